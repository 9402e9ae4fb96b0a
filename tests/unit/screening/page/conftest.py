"""The page on a real server of its own port, over a scorer that answers by words, in no time."""

import socket
import threading
import time

import pytest
import toy
import uvicorn

from rarealert.calibration.prevalence import shift_prevalence
from rarealert.screening.answer import FLAGS, Note
from rarealert.screening.champion import ScreeningModel
from rarealert.screening.service.app import make_app
from rarealert.screening.service.state import ServiceSettings
from rarealert.student.evidence import Evidence
from rarealert.visits.case import TEXT_FIELDS

RAISES, LOWERS = "stiff", "cough"


def risk_of(text):
    """Each word that raises adds to the log-odds, each that lowers takes from them."""
    low = text.lower()
    odds = 2.0 ** (2 * low.count(RAISES) - low.count(LOWERS) + low.count("muscle"))
    return odds / (1 + odds)


def evidence_in(case):
    for field in TEXT_FIELDS:
        text = getattr(case, field) or ""
        for word, direction in ((RAISES, "raises"), (LOWERS, "lowers")):
            start = text.lower().find(word)
            if start >= 0:
                yield Evidence(
                    field=field,
                    start=start,
                    end=start + len(word),
                    words=text[start : start + len(word)],
                    label=word,
                    status="present",
                    direction=direction,
                    weight=0.5,
                    hpo_id="HP:0003552",
                )


class WordScorer:
    def answer(self, readings, prevalence=None, rationale="none"):
        return [self._answer(each.case, prevalence, rationale) for each in readings]

    def _answer(self, case, prevalence, rationale):
        text = toy.words_of(case)
        risk = risk_of(text)
        if prevalence:
            risk = shift_prevalence(risk, 0.5, prevalence)
        flags = {
            "abstain": "undecided" in text,
            "out_of_distribution": "unlike" in text,
            "not_english": "Schmerzen" in text,
            "truncated": len(text) > 5000,
        }
        return toy.plain_answer(
            case.case_id,
            risk=risk,
            risk_low=risk / 2,
            risk_high=risk + (1 - risk) / 2,
            band="alert" if RAISES in text.lower() else "low",
            evidence=tuple(evidence_in(case)),
            rationale="Stiffness that warms up with use." if rationale == "all" else None,
            notes=tuple(Note(code=code, message=FLAGS[code]) for code in FLAGS if flags[code]),
            **flags,
        )


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
