"""The page on a real server of its own port, over a scorer that answers by words, in no time."""

import json
import socket
import threading
import time

import pandas as pd
import pytest
import uvicorn

from rarealert.screening.champion import ScreeningModel
from rarealert.screening.service.app import make_app
from rarealert.screening.service.state import ServiceSettings

RAISES, LOWERS = "stiff", "cough"


def risk_of(text):
    """Each word that raises adds to the log-odds, each that lowers takes from them."""
    low = text.lower()
    odds = 2.0 ** (2 * low.count(RAISES) - low.count(LOWERS) + low.count("muscle"))
    return odds / (1 + odds)


def evidence_in(row):
    found = []
    for field, text in row.items():
        for word, direction in ((RAISES, "raises"), (LOWERS, "lowers")):
            start = str(text).lower().find(word)
            if field not in ("case_id", "sex", "age_years") and start >= 0:
                found.append(
                    {
                        "field": field,
                        "start": start,
                        "end": start + len(word),
                        "words": str(text)[start : start + len(word)],
                        "label": word,
                        "status": "present",
                        "direction": direction,
                        "weight": 0.5,
                        "hpo_id": "HP:0003552",
                    }
                )
    return json.dumps(found)


class WordScorer:
    def predict(self, data, params=None):
        asked = params or {}
        texts = [" ".join(str(v) for v in row.values()) for row in data.to_dict("records")]
        risks = [risk_of(text) for text in texts]
        if shift := asked.get("prevalence"):
            odds = [risk / (1 - risk) * shift / (1 - shift) for risk in risks]
            risks = [each / (1 + each) for each in odds]
        rows = pd.DataFrame({"case_id": data["case_id"], "risk": risks})
        rows["risk_low"] = [risk / 2 for risk in risks]
        rows["risk_high"] = [risk + (1 - risk) / 2 for risk in risks]
        rows["band"] = ["alert" if RAISES in text.lower() else "low" for text in texts]
        rows["abstain"] = ["undecided" in text for text in texts]
        rows["out_of_distribution"] = ["unlike" in text for text in texts]
        rows["not_english"] = ["Schmerzen" in text for text in texts]
        rows["truncated"] = [len(text) > 5000 for text in texts]
        rows["evidence"] = [evidence_in(row) for row in data.to_dict("records")]
        if asked.get("rationale"):
            rows["rationale"] = "Stiffness that warms up with use."
        return rows


class Source:
    def current(self):
        return "1"

    def load(self):
        return ScreeningModel("rarealert", "1", "d" * 64, WordScorer())


class Server:
    """uvicorn in a thread; ``stop`` it to see what the page says of a server that is gone."""

    def __init__(self, source=None, **settings):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        app = make_app(ServiceSettings(**settings), source or Source())
        self._server = uvicorn.Server(
            uvicorn.Config(app, port=self.port, log_level="error", access_log=False)
        )
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/"

    def start(self):
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.05)
        return self

    def stop(self):
        self._server.should_exit = True
        self._thread.join(20)


@pytest.fixture
def serve():
    """``serve(source, token=...)`` starts a server; all are stopped at the end."""
    running = []

    def start(source=None, **settings):
        running.append(Server(source, **settings).start())
        return running[-1]

    yield start
    for server in running:
        server.stop()
