"""The loaded model and the thread that scores the visits of many requests in batches.

A batch costs less than its visits one by one, and two threads on one model cost more than one. An
answer does not depend on the other visits of its batch: the student pads on the right under causal
attention, and a visit that the model refuses is scored again alone, so that only its own request
fails. When the alias moves, the next version is loaded in the background and replaces the current
one between two batches; a version that can't be loaded changes nothing but a counter.
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
        """Identify the model that should be loaded; a new value triggers a reload."""

    def load(self) -> ScreeningModel:
        """Load the model that ``current`` identifies.

        Raises:
            RareAlertError: there is no such model, or it is damaged.
        """


class RegistrySource:
    """The version that an alias points at in MLflow's registry."""

    def __init__(self, name: str, alias: str, tracking_uri: str) -> None:
        self._where = (name, alias, tracking_uri)

    def current(self) -> str:
        """The number of the version."""
        return version_of(*self._where)

    def load(self) -> ScreeningModel:
        """Load the version."""
        return load_model(*self._where)


class FolderSource:
    """A model's folder, as written by ``rarealert bundle`` or ``mlflow artifacts download``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def current(self) -> str:
        """The path of the folder, whose content does not change."""
        return str(self._folder)

    def load(self) -> ScreeningModel:
        """Load the folder's model with the version that it was bundled from."""
        return load_folder(self._folder)


class ModelHolder:
    """Holds the loaded model and reloads it; call ``start`` before use and ``close`` at the end."""

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
        """Whether a model is loaded."""
        return self._model is not None

    def model(self) -> ScreeningModel:
        """The loaded model; there is one after ``start``."""
        assert self._model is not None
        return self._model

    def start(self) -> None:
        """Load the first model and start to watch for the next.

        Raises:
            RareAlertError: there is no model to load.
        """
        self._take(self._source.current())
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._stop.set()
        self._thread.join(self._every_s)

    def refresh(self) -> bool:
        """Load the model that the source identifies if it is a new one; whether it was replaced."""
        try:
            named = self._source.current()
            if named == self._named:
                return False
            self._take(named)
        except Exception as error:  # an unreachable registry must not stop the watch
            self._metrics.load_failed()
            _LOG.warning("model not loaded, the current one stays: %s", type(error).__name__)
            return False
        return True

    def _take(self, named: str) -> None:
        model = self._source.load()
        # the first answer fills caches and proves that the model works
        model.scorer.answer([read_visit(_CHECK)])
        self._model, self._named = model, named
        self._metrics.loaded(model.name, model.version, model.digest)
        _LOG.info("model %s version %s loaded", model.name, model.version)

    def _watch(self) -> None:
        while not self._stop.wait(self._every_s):
            self.refresh()


@dataclass(frozen=True)
class Job:
    """One visit to score; ``prevalence`` is a share between 0 and 1."""

    reading: Reading
    prevalence: float | None = None
    rationale: bool = False


@dataclass(frozen=True)
class Answered:
    """The answer to a visit, with the version that computed it."""

    answer: Answer
    model: ScreeningModel


@dataclass
class _Waiting:
    job: Job
    since: float
    answer: "Future[Answered]" = field(default_factory=Future)


class QueueFullError(Exception):
    """The queue has no room."""


class QueueClosedError(Exception):
    """The service is shutting down."""


class Batcher:
    """A queue and its worker thread; call ``start`` before use and ``close`` at the end."""

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
        """Accept no more visits, answer those in the queue, end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout_s)

    @property
    def alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Visits in the queue."""
        return len(self._queue) + len(self._slow)

    def submit(self, jobs: Sequence[Job]) -> "list[Future[Answered]]":
        """Queue all of ``jobs`` or none.

        Raises:
            QueueFullError: the queue has no room for them.
            QueueClosedError: the service is shutting down.
        """
        now = time.monotonic()
        added = [_Waiting(job, now) for job in jobs]
        with self._changed:
            if self._closed:
                raise QueueClosedError
            if self.waiting + len(added) > self._max_waiting:
                raise QueueFullError
            for each in added:
                (self._slow if each.job.rationale else self._queue).append(each)
            self._changed.notify_all()
        return [each.answer for each in added]

    def _work(self) -> None:
        slow_next = False
        while batch := self._next(slow_next):
            # a rationale takes as long as dozens of risks, so the two kinds take turns
            slow_next = not batch[0].job.rationale
            live = [each for each in batch if each.answer.set_running_or_notify_cancel()]
            model = self._model()
            for group in _alike(live):
                self._answer(group, model)

    def _next(self, slow_next: bool) -> list[_Waiting]:
        """The next batch, once it is full or its first visit has waited; empty at the end."""
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
        except Exception as error:  # an error of the model belongs to its request
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
    """Visits grouped by prevalence: one call of the model has one."""
    groups: dict[float | None, list[_Waiting]] = {}
    for each in batch:
        groups.setdefault(each.job.prevalence, []).append(each)
    return list(groups.values())


def _ask(group: Sequence[_Waiting], model: ScreeningModel) -> list[Answer]:
    job = group[0].job
    readings = [each.job.reading for each in group]
    rationale: RationaleFor = "all" if job.rationale else "none"
    return model.scorer.answer(readings, job.prevalence, rationale)
