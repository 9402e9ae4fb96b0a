"""A service over a scorer that answers by the length of the complaint, in no time."""

import threading
from contextlib import contextmanager

import pytest
import toy
from fastapi.testclient import TestClient

from rarealert.screening.champion import ScreeningModel
from rarealert.screening.service.app import make_app
from rarealert.screening.service.state import ServiceSettings


class Scorer(toy.Scorer):
    """Remembers the size of each batch; ``gate`` holds it back while it is clear."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.fails = "nothing"

    @property
    def batches(self):
        return [len(ids) for ids, *_ in self.asked]

    def answer(self, readings, *asked):
        assert self.gate.wait(20)
        if self.fails in [each.case.chief_complaint for each in readings]:
            raise ValueError(f"can't read {self.fails}")
        return super().answer(readings, *asked)


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
