"""Endpoint and local teachers on a Ray cluster.

An endpoint teacher runs in one actor at a time, so its limits hold however large the cluster is. An
actor on this machine, the keeper, writes the cache and counts the cost of all of them. A teacher
draws its next case once its last answer is in the cache, so a kill loses only calls in flight. Keys
are read from the environment of the machine that asks: set them before ``ray start``.
"""

import asyncio
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rarealert.errors import RareAlertError
from rarealert.scale.cluster import connect, pinned, spread
from rarealert.teachers.cache import RationaleCache, Usage
from rarealert.teachers.collect import Board, Outcome
from rarealert.teachers.endpoints.client import Entry, Ledger, keep
from rarealert.teachers.endpoints.endpoint import (
    EndpointOutcome,
    EndpointRun,
    EndpointTeacher,
    cap_reached,
)
from rarealert.teachers.endpoints.limits import Budget
from rarealert.teachers.local import Judged, LocalTeacher
from rarealert.teachers.teacher import Teacher
from rarealert.visits.case import Case
from rarealert.visits.reading import read_visit

_CHUNK = 512  # cases that are sent together; an actor holds one chunk at a time
_OTHER_VERSION = (
    "A machine of the Ray cluster has another version of RareAlert, or another model, than this "
    "one, so it would ask other questions. Install the same version everywhere and run the command "
    "again."
)


def ask_endpoints_on_ray(
    teachers: Sequence[EndpointTeacher],
    cases: Sequence[Case],
    folder: Path,
    known: set[str],
    budget: Budget,
    *,
    trace_sample: int = 0,
    board: Board | None = None,
) -> EndpointOutcome:
    """As ``ask_endpoints``, on a cluster; answers go to the cache in ``folder``.

    Raises:
        RareAlertError: there is no cluster, a machine has another version, the disk is full, a
            teacher lost its machine three times, or the keeper died.
    """
    ray = connect()
    here = pinned(ray.get_runtime_context().get_node_id())
    options = {"num_cpus": 0, "scheduling_strategy": here}
    keeper = ray.remote(Keeper).options(**options).remote(folder, budget, known)
    chunks = [list(cases[start : start + _CHUNK]) for start in range(0, len(cases), _CHUNK)]
    first = read_visit(cases[0])
    outcome = EndpointOutcome()

    def show() -> None:
        for teacher, result, usage in ray.get(keeper.finished.remote()):
            if board is not None:
                board.advance(teacher, result, usage)

    try:
        arguments = (keeper, [ray.put(chunk) for chunk in chunks], cases[0], trace_sample)
        tasks = [(teacher, teacher.request(first).key) for teacher in teachers]
        made = spread(_Asker, arguments, tasks, slots=len(teachers), cpus=0, meanwhile=show)
        for _, found in made:
            _merge(outcome, found, board)
        left: Budget = ray.get(keeper.close.remote())
    except ray.exceptions.RayActorError as error:
        raise RareAlertError(
            "The process that writes the cache died. Its answers are kept: run the command again."
        ) from error
    finally:
        ray.kill(keeper)
    if left.exhausted:
        outcome.notes.append(cap_reached(left))
    return outcome


def _merge(outcome: EndpointOutcome, found: EndpointOutcome, board: Board | None) -> None:
    outcome.tallies |= found.tallies
    outcome.notes += found.notes
    outcome.samples += found.samples
    outcome.flagged |= found.flagged
    if board is not None:
        for teacher, tally in found.tallies.items():
            for _ in range(tally.cached):
                board.advance(teacher, "cached")
            for _ in range(tally.not_asked):
                board.advance(teacher, "not_asked")


class Keeper:
    """Writes the answers and counts the cost of all teachers of a run.

    Its methods run one at a time, so no two reservations use the same balance.
    """

    def __init__(self, folder: Path, budget: Budget, known: set[str]):
        self._cache = RationaleCache(folder).__enter__()
        self._budget = budget
        self._known = known
        self._finished: list[tuple[str, Outcome, Usage]] = []

    def unanswered(self, keys: Sequence[str]) -> list[int]:
        """Positions of the keys without an answer."""
        return [place for place, key in enumerate(keys) if key not in self._known]

    def reserve(self, worst_usd: float) -> bool:
        """As ``Budget.reserve``."""
        return self._budget.reserve(worst_usd)

    def settle(self, worst_usd: float, cost_usd: float) -> None:
        """As ``Budget.settle``."""
        self._budget.settle(worst_usd, cost_usd)

    def keep(self, *entry: *Entry) -> bool:
        """As ``Ledger.keep``; returns whether the budget is exhausted."""
        keep(self._cache, *entry)
        request, _, result, usage, _ = entry
        if isinstance(result, str):
            self._finished.append((request.teacher, "failed", usage))
        else:
            self._known.add(request.key)
            self._finished.append((request.teacher, "answered", usage))
        return self._budget.exhausted

    def finished(self) -> list[tuple[str, Outcome, Usage]]:
        """Teacher, outcome and usage of the cases since the last call."""
        new, self._finished = self._finished, []
        return new

    def close(self) -> Budget:
        """Force everything to disk; returns the budget."""
        self._cache.__exit__(None, None, None)
        return self._budget


class RemoteLedger(Ledger):
    """The ledger of a ``Keeper``, through the handle of its actor."""

    exhausted = False

    def __init__(self, keeper: Any):
        self._keeper = keeper

    async def reserve(self, worst_usd: float) -> bool:
        """As ``Ledger.reserve``; a free call needs none."""
        if worst_usd > 0 and not self.exhausted:
            self.exhausted = not await _result(self._keeper.reserve.remote(worst_usd))
        return not self.exhausted

    def settle(self, worst_usd: float, cost_usd: float) -> None:
        """As ``Ledger.settle``."""
        if worst_usd > 0:
            self._keeper.settle.remote(worst_usd, cost_usd)

    async def keep(self, *entry: *Entry) -> None:
        """As ``Ledger.keep``."""
        self.exhausted = await _result(self._keeper.keep.remote(*entry))


async def _result(reference: Any) -> Any:
    try:
        return await reference
    except Exception as error:  # the keeper's own error without Ray's traceback around it
        raise getattr(error, "cause", None) or error from None


class _Asker:
    """An actor: asks endpoint teachers about the cases that the keeper has no answer to."""

    def __init__(self, keeper: Any, chunks: Sequence[Any], first: Case, trace_sample: int):
        self._keeper = keeper
        self._chunks = chunks
        self._first = first
        self._trace_sample = trace_sample

    def run(self, task: tuple[EndpointTeacher, str]) -> EndpointOutcome:
        """Ask one teacher; ``task`` is the teacher and its key of the first case."""
        teacher, key = task
        _check_version(teacher, self._first, key)
        cached = [0]
        cases = self._unanswered(teacher, cached)
        run = EndpointRun(cases, RemoteLedger(self._keeper), set(), self._trace_sample)
        outcome = asyncio.run(run.ask([teacher]))
        outcome.tallies[teacher.id].cached += cached[0]
        return outcome

    def _unanswered(self, teacher: EndpointTeacher, cached: list[int]) -> Iterator[Case]:
        """The cases without an answer; counts the others in ``cached``."""
        import ray

        for chunk in self._chunks:
            cases = ray.get(chunk)
            keys = [teacher.request(read_visit(case)).key for case in cases]
            places = ray.get(self._keeper.unanswered.remote(keys))
            cached[0] += len(cases) - len(places)
            yield from (cases[place] for place in places)


def judge_on_ray(
    teacher: LocalTeacher, batches: Sequence[Sequence[Case]]
) -> Iterator[tuple[Sequence[Case], Judged]]:
    """Each batch with its answers, as they are ready; every machine loads the model once.

    Raises:
        RareAlertError: there is no cluster, or a machine has another version or model.
    """
    first = batches[0][0]
    key = teacher.request(read_visit(first)).key
    return spread(_Reader, (teacher, first, key), batches)


class _Reader:
    """An actor: a local model with all processors of its machine."""

    def __init__(self, teacher: LocalTeacher, first: Case, key: str):
        self._teacher = teacher
        self._first: tuple[Case, str] | None = (first, key)

    def run(self, batch: Sequence[Case]) -> Judged:
        """As ``LocalTeacher.judge``."""
        if self._first is not None:
            import torch

            torch.set_num_threads(os.cpu_count() or 1)
            _check_version(self._teacher, *self._first)
            self._first = None
        return self._teacher.judge(batch)


def _check_version(teacher: Teacher, case: Case, key: str) -> None:
    request = teacher.request(read_visit(case))
    if request is None or request.key != key:
        raise RareAlertError(_OTHER_VERSION)
