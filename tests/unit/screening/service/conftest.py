"""A service over a scorer that answers by the length of the complaint, in no time."""

import threading
from contextlib import contextmanager

import pandas as pd
import pytest
from fastapi.testclient import TestClient

from rarealert.screening.champion import ScreeningModel
from rarealert.screening.service.app import make_app
from rarealert.screening.service.state import ServiceSettings


class Scorer:
    """Remembers the size of each batch; ``gate`` holds it back while it is clear."""

    def __init__(self):
        self.batches = []
        self.gate = threading.Event()
        self.gate.set()
        self.fails = None

    def predict(self, data, params=None):
        assert self.gate.wait(20)
        if self.fails is not None and self.fails in set(data.get("chief_complaint", [])):
            raise ValueError(f"can't read {self.fails}")
        self.batches.append(len(data))
        words = data.get("chief_complaint", pd.Series([""] * len(data), index=data.index))
        rows = pd.DataFrame({"case_id": data["case_id"]})
        shift = (params or {}).get("prevalence") or 0.0
        rows["risk"] = [min(1.0, len(str(text)) / 100) + shift for text in words]
        rows["band"] = ["alert" if risk > 0.5 else "low" for risk in rows["risk"]]
        rows["truncated"] = False
        if (params or {}).get("rationale"):
            rows["rationale"] = "because"
        return rows


class Source:
    def __init__(self, scorer):
        self.scorer = scorer
        self.version = "1"
        self.broken = False

    def current(self):
        return self.version

    def load(self):
        if self.broken:
            raise OSError("the registry is down")
        return ScreeningModel("toy", self.version, "d" * 64, self.scorer)


class Served:
    def __init__(self, **settings):
        self.scorer = Scorer()
        self.source = Source(self.scorer)
        self.app = make_app(ServiceSettings(**settings), self.source)
        self.service = self.app.state.service
        self.client = TestClient(
            self.app, base_url="http://127.0.0.1", raise_server_exceptions=False
        )

    def screen(self, *visits, **more):
        return self.client.post("/v1/screen", json={"visits": list(visits), **more})


@contextmanager
def serving(**settings):
    served = Served(**settings)
    with served.client:
        yield served


@pytest.fixture
def served():
    """A running service with the default settings."""
    with serving() as made:
        yield made


@pytest.fixture
def serve():
    """``with serve(max_visits=3) as served`` runs one with other settings."""
    return serving
