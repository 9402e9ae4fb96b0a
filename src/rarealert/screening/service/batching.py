"""Which model is at work: loaded at the start, replaced when the alias moves.

The next version is loaded beside the one at work and takes over between two batches, so no request
fails or waits for it. A version that can't be loaded changes nothing but a counter.

Visits of many requests, scored together by the one thread that talks to the model.

A batch costs less than its visits one by one, and two threads on one model cost more than one. An
answer does not depend on who shared the batch: the student pads on the right under causal
attention, and a visit that the model refuses is asked again alone, so that only its own request
fails.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rarealert.screening.answer import Answer, RationaleFor
from rarealert.screening.champion import ScreeningModel, load_folder, load_model, version_of
from rarealert.screening.service.telemetry import Metrics
from rarealert.visits.case import Case
from rarealert.visits.reading import Reading, read_visit

_LOG = logging.getLogger("rarealert.service")
_CHECK = Case(
    case_id="warm-up", source="screening", age_years=34, chief_complaint="Tired for half a year."
)


class ModelSource(Protocol):
    """Where the service finds its model."""

    def current(self) -> str:
        """Names what should be at work now; another name means that it should be loaded."""

    def load(self) -> ScreeningModel:
        """What ``current`` names, ready to be asked.

        Raises:
            RareAlertError: there is none, or it is damaged.
        """


class RegistrySource:
    """The version that an alias points at in MLflow's registry."""

    def __init__(self, name: str, alias: str, tracking_uri: str) -> None:
        self._where = (name, alias, tracking_uri)

    def current(self) -> str:
        """The version's number."""
        return version_of(*self._where)

    def load(self) -> ScreeningModel:
        """The version, loaded."""
        return load_model(*self._where)


class FolderSource:
    """A model's folder, as ``rarealert bundle`` or ``mlflow artifacts download`` leave it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def current(self) -> str:
        """The folder; what lies in it does not change."""
        return str(self._folder)

    def load(self) -> ScreeningModel:
        """The folder's model, marked with the version that it was bundled from."""
        return load_folder(self._folder)


class Keeper:
    """Holds the model at work and looks for the next; ``start`` it, and ``close`` it at the end."""

    def __init__(self, source: ModelSource, metrics: Metrics, every_s: float) -> None:
        self._source = source
        self._metrics = metrics
        self._every_s = every_s
        self._named = ""
        self._model: ScreeningModel | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="model", daemon=True)

    @property
    def ready(self) -> bool:
        """Whether a model is at work."""
        return self._model is not None

    def model(self) -> ScreeningModel:
        """The model at work; there is one from ``start`` on."""
        assert self._model is not None
        return self._model

    def start(self) -> None:
        """Load the first model and begin to look for the next.

        Raises:
            RareAlertError: there is no model to load.
        """
        self._take(self._source.current())
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        self._thread.join(self._every_s)

    def look(self) -> bool:
        """Load the model that should be at work, if it is another one; whether it took over."""
        try:
            named = self._source.current()
            if named == self._named:
                return False
            self._take(named)
        except Exception as error:  # a registry that is down must not end the watch
            self._metrics.load_failed()
            _LOG.warning("model not loaded, the one before stays: %s", type(error).__name__)
            return False
        return True

    def _take(self, named: str) -> None:
        model = self._source.load()
        # the first answer of a model builds what later ones find ready, and shows that it works
        model.scorer.answer([read_visit(_CHECK)])
        self._model, self._named = model, named
        self._metrics.loaded(model.name, model.version, model.digest)
        _LOG.info("model %s version %s at work", model.name, model.version)

    def _watch(self) -> None:
        while not self._stop.wait(self._every_s):
            self.look()


@dataclass(frozen=True)
class Question:
    """One visit and what is asked of it; ``prevalence`` is a share 0-1, exclusive."""

    reading: Reading
    prevalence: float | None = None
    rationale: bool = False


@dataclass(frozen=True)
class Answered:
    """The answer to a visit, with the version that gave it."""

    answer: Answer
    model: ScreeningModel


@dataclass
class _Waiting:
    question: Question
    since: float
    answer: "Future[Answered]" = field(default_factory=Future)


class QueueFullError(Exception):
    """More visits wait than the queue may hold."""


class QueueClosedError(Exception):
    """The service is shutting down."""


class Batcher:
    """A queue and the thread that empties it; ``start`` it, and ``close`` it at the end."""

    def __init__(
        self,
        model: Callable[[], ScreeningModel],
        metrics: Metrics,
        *,
        max_batch: int,
        max_wait_ms: float,
        max_waiting: int,
    ) -> None:
        self._model = model
        self._metrics = metrics
        self._max_batch = max_batch
        self._max_wait_s = max_wait_ms / 1000
        self._max_waiting = max_waiting
        self._queue: deque[_Waiting] = deque()
        self._slow: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Take no more visits, answer those that wait, end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout_s)

    @property
    def alive(self) -> bool:
        """Whether the thread answers."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Visits in the queue."""
        return len(self._queue) + len(self._slow)

    def submit(self, questions: Sequence[Question]) -> "list[Future[Answered]]":
        """Queue all of ``questions`` or none.

        Raises:
            QueueFullError: the queue has no room for them.
            QueueClosedError: the service is shutting down.
        """
        now = time.monotonic()
        added = [_Waiting(question, now) for question in questions]
        with self._changed:
            if self._closed:
                raise QueueClosedError
            if self.waiting + len(added) > self._max_waiting:
                raise QueueFullError
            for each in added:
                (self._slow if each.question.rationale else self._queue).append(each)
            self._changed.notify_all()
        return [each.answer for each in added]

    def _work(self) -> None:
        slow_next = False
        while batch := self._next(slow_next):
            # a rationale takes as long as dozens of risks, so the two kinds take turns
            slow_next = not batch[0].question.rationale
            live = [each for each in batch if each.answer.set_running_or_notify_cancel()]
            model = self._model()
            for group in _alike(live):
                self._answer(group, model)

    def _next(self, slow_next: bool) -> list[_Waiting]:
        """The next visits, after the first has waited for company; none at the end."""
        with self._changed:
            while not self.waiting:
                if self._closed:
                    return []
                self._changed.wait()
            if self._slow and (slow_next or not self._queue):
                return [self._slow.popleft()]
            deadline = self._queue[0].since + self._max_wait_s
            while len(self._queue) < self._max_batch and not self._closed:
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            count = min(len(self._queue), self._max_batch)
            return [self._queue.popleft() for _ in range(count)]

    def _answer(self, group: Sequence[_Waiting], model: ScreeningModel) -> None:
        started = time.perf_counter()
        try:
            answers = _ask(group, model)
        except Exception as error:  # whatever the model raises belongs to a request, not here
            if len(group) > 1:
                for each in group:
                    self._answer([each], model)
            else:
                group[0].answer.set_exception(error)
            return
        self._metrics.batch(len(group), time.perf_counter() - started)
        for each, answer in zip(group, answers, strict=True):
            each.answer.set_result(Answered(answer, model))


def _alike(batch: Sequence[_Waiting]) -> list[list[_Waiting]]:
    """Visits that ask the same of the model, which one call can answer."""
    groups: dict[float | None, list[_Waiting]] = {}
    for each in batch:
        groups.setdefault(each.question.prevalence, []).append(each)
    return list(groups.values())


def _ask(group: Sequence[_Waiting], model: ScreeningModel) -> list[Answer]:
    question = group[0].question
    readings = [each.question.reading for each in group]
    rationale: RationaleFor = "all" if question.rationale else "none"
    return model.scorer.answer(readings, question.prevalence, rationale)
