"""Endpoint teachers on a Ray cluster: each is one actor, so its limits lie in one place.

An actor on this machine keeps the cache and the budget of all. A teacher draws its next case only
once its last answer is in the cache, so what a kill loses is what was in flight, as without Ray. A
teacher whose machine is lost goes on at another. Keys are read from the environment of the machine
that asks: set them before ``ray start``.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rarealert.errors import RareAlertError
from rarealert.scale.cluster import join, nodes, pinned
from rarealert.teachers.answer import TeacherAnswer
from rarealert.teachers.asking import Tally
from rarealert.teachers.cache import RationaleCache, Usage
from rarealert.teachers.endpoints.limits import Budget
from rarealert.teachers.endpoints.teacher import Asked, EndpointRun, EndpointTeacher, cap_reached
from rarealert.teachers.progress import Board
from rarealert.teachers.teacher import Request, Teacher
from rarealert.visits.case import Case

_CHUNK = 512  # cases that travel together; an actor holds one chunk at a time
_PLACEMENTS = 3  # machines that a teacher may lose before the run ends
_LOOK_S = 0.5  # seconds between looks at what was done, for the progress bar
OTHER_VERSION = (
    "A machine of the Ray cluster runs another RareAlert, or another model, than this one: it "
    "would ask other questions. Install the same version everywhere and run the command again."
)


def ask_endpoints_on_ray(
    teachers: Sequence[EndpointTeacher],
    cases: Sequence[Case],
    folder: Path,
    budget: Budget,
    *,
    known: set[str],
    trace_sample: int = 0,
    board: Board | None = None,
) -> Asked:
    """What ``ask_endpoints`` does, spread over a cluster; answers go to the cache in ``folder``.

    Raises:
        RareAlertError: no cluster to join, a machine that runs another version, a full disk, a
            teacher that lost its machine three times, or a keeper that died.
    """
    ray = join()
    here = pinned(ray.get_runtime_context().get_node_id())
    keeper = ray.remote(Keeper).options(num_cpus=0, scheduling_strategy=here).remote(folder, budget)
    run = _Spread(ray, keeper, teachers, cases, known, trace_sample, board)
    try:
        asked = run.ask()
        left: Budget = ray.get(keeper.close.remote())
    except ray.exceptions.RayActorError as error:
        raise RareAlertError(
            "The process that writes the cache died; what it wrote is kept, run the command again."
        ) from error
    finally:
        ray.kill(keeper)
    if left.exhausted:
        asked.notes.append(cap_reached(left))
    return asked


class Keeper:
    """The one that writes answers and counts money, for all teachers of a run.

    Its methods run one at a time, so no two reservations see the same balance.
    """

    def __init__(self, folder: Path, budget: Budget):
        self._cache = RationaleCache(folder).__enter__()
        self._budget = budget
        self._done: list[tuple[str, str, Usage]] = []
        self._keys: set[str] = set()

    def reserve(self, worst_usd: float) -> bool:
        """As ``Budget.reserve``."""
        return self._budget.reserve(worst_usd)

    def settle(self, worst_usd: float, cost_usd: float) -> None:
        """As ``Budget.settle``."""
        self._budget.settle(worst_usd, cost_usd)

    def add(
        self,
        request: Request,
        case_id: str,
        answer: TeacherAnswer,
        usage: Usage,
        response: str | None,
    ) -> bool:
        """As ``RationaleCache.add``; tells whether the budget is exhausted."""
        self._cache.add(request, case_id, answer, usage, response)
        self._keys.add(request.key)
        self._done.append((request.teacher, "answered", usage))
        return self._budget.exhausted

    def fail(self, request: Request, case_id: str, kind: str, usage: Usage) -> bool:
        """As ``RationaleCache.fail``; tells whether the budget is exhausted."""
        self._cache.fail(request, case_id, kind, usage)
        self._done.append((request.teacher, "failed", usage))
        return self._budget.exhausted

    def done(self) -> list[tuple[str, str, Usage]]:
        """Teacher, outcome and usage of what came since the last call."""
        new, self._done = self._done, []
        return new

    def answered(self) -> set[str]:
        """Keys of what this run has answered."""
        return self._keys

    def close(self) -> Budget:
        """Force everything to disk; the budget as it stands."""
        self._cache.__exit__(None, None, None)
        return self._budget


@dataclass
class RemoteLedger:
    """A ledger that lies with a ``Keeper``, a handle of whose actor it holds."""

    keeper: Any
    exhausted: bool = False

    async def reserve(self, worst_usd: float) -> bool:
        """As in ``Purse``; what costs nothing needs no leave."""
        if worst_usd > 0 and not self.exhausted:
            self.exhausted = not await _told(self.keeper.reserve.remote(worst_usd))
        return not self.exhausted

    def settle(self, worst_usd: float, cost_usd: float) -> None:
        """As in ``Purse``."""
        if worst_usd > 0:
            self.keeper.settle.remote(worst_usd, cost_usd)

    async def add(
        self,
        request: Request,
        case_id: str,
        answer: TeacherAnswer,
        usage: Usage,
        response: str | None,
    ) -> None:
        """As in ``Ledger``."""
        self.exhausted = await _told(
            self.keeper.add.remote(request, case_id, answer, usage, response)
        )

    async def fail(self, request: Request, case_id: str, error: Exception, usage: Usage) -> None:
        """As in ``Ledger``."""
        self.exhausted = await _told(
            self.keeper.fail.remote(request, case_id, type(error).__name__, usage)
        )


async def _told(reference: Any) -> Any:
    try:
        return await reference
    except Exception as error:  # of the keeper's, with Ray's traceback around its sentence
        raise getattr(error, "cause", None) or error from None


class Asker:
    """One teacher on some machine; asks what it is given and tells what became of it."""

    def __init__(self, teacher: EndpointTeacher, keeper: Any):
        self._teacher = teacher
        self._ledger = RemoteLedger(keeper)

    def ask(
        self, chunks: Sequence[Any], wanted: Sequence[Sequence[int]], key: str, trace_sample: int
    ) -> Asked:
        """Put the cases at the places ``wanted`` of each chunk; ``key`` is the first one's.

        Raises:
            RareAlertError: this machine would ask another question than the one that sent it.
        """
        cases = _drawn(chunks, wanted)
        first = next(cases)
        if self._teacher.request(first).key != key:
            raise RareAlertError(OTHER_VERSION)
        run = EndpointRun(_chain(first, cases), self._ledger, set(), trace_sample)
        return asyncio.run(run.ask([self._teacher]))


def _drawn(chunks: Sequence[Any], wanted: Sequence[Sequence[int]]) -> Iterator[Case]:
    import ray

    for chunk, places in zip(chunks, wanted, strict=True):
        if places:
            held = ray.get(chunk)
            yield from (held[place] for place in places)


def _chain(first: Case, rest: Iterator[Case]) -> Iterator[Case]:
    yield first
    yield from rest


@dataclass
class _Spread:
    """The run as this machine sees it: who is where, and what has come back."""

    ray: Any
    keeper: Any
    teachers: Sequence[EndpointTeacher]
    cases: Sequence[Case]
    known: set[str]
    trace_sample: int
    board: Board | None
    asked: Asked = field(default_factory=Asked)

    def ask(self) -> Asked:
        self.chunks = [
            self.ray.put(list(self.cases[start : start + _CHUNK]))
            for start in range(0, len(self.cases), _CHUNK)
        ]
        self.placed: dict[Any, tuple[EndpointTeacher, Any, int]] = {}
        try:
            for place, teacher in enumerate(self.teachers):
                self._place(teacher, place, 1)
            while self.placed:
                ready, _ = self.ray.wait(list(self.placed), timeout=_LOOK_S)
                self._show()
                for reference in ready:
                    self._take(reference)
        finally:
            for _, actor, _ in self.placed.values():
                self.ray.kill(actor)
        self.asked.tallies = {one.id: self.asked.tallies[one.id] for one in self.teachers}
        return self.asked

    def _place(self, teacher: EndpointTeacher, place: int, times: int) -> None:
        """Put an actor on the machine whose turn it is; ``times`` counts those of this teacher."""
        wanted, first, cached = self._open(teacher)
        self.asked.tallies[teacher.id] = Tally(cached=cached)
        if self.board is not None and times == 1:
            for _ in range(cached):
                self.board.advance(teacher.id, "cached")
        if first is not None:
            machines = nodes(self.ray)
            turn = pinned(machines[place % len(machines)].id)
            remote = self.ray.remote(Asker).options(num_cpus=0, scheduling_strategy=turn)
            actor = remote.remote(teacher, self.keeper)
            reference = actor.ask.remote(self.chunks, wanted, first, self.trace_sample)
            self.placed[reference] = teacher, actor, times

    def _open(self, teacher: Teacher) -> tuple[list[list[int]], str | None, int]:
        """Places of the cases still to be asked by chunk, the first one's key, and the others."""
        wanted: list[list[int]] = [[] for _ in self.chunks]
        drawn: set[str] = set()
        first, cached = None, 0
        for number, case in enumerate(self.cases):
            request = teacher.request(case)
            assert request is not None
            if request.key in self.known or request.key in drawn:
                cached += 1
                continue
            first = first or request.key
            drawn.add(request.key)
            wanted[number // _CHUNK].append(number % _CHUNK)
        return wanted, first, cached

    def _take(self, reference: Any) -> None:
        from ray.exceptions import ActorUnschedulableError, RayActorError, RayTaskError

        teacher, actor, times = self.placed.pop(reference)
        try:
            found: Asked = self.ray.get(reference)
        except RayTaskError as error:
            raise error.cause from None
        except (ActorUnschedulableError, RayActorError):
            if times == _PLACEMENTS:
                raise RareAlertError(
                    f"The teacher {teacher.id} lost its machine {_PLACEMENTS} times; what it "
                    "answered is kept, run the command again for the rest."
                ) from None
            self.known |= self.ray.get(self.keeper.answered.remote())
            self._place(teacher, times, times + 1)
            return
        self.ray.kill(actor)
        told, own = found.tallies[teacher.id], self.asked.tallies[teacher.id]
        told.cached += own.cached
        self.asked.tallies[teacher.id] = told
        self.asked.notes += found.notes
        self.asked.samples += found.samples
        self.asked.flagged |= found.flagged
        if self.board is not None:
            for _ in range(told.not_asked):
                self.board.advance(teacher.id, "not_asked")

    def _show(self) -> None:
        done = self.ray.get(self.keeper.done.remote())
        if self.board is not None:
            for teacher, outcome, usage in done:
                self.board.advance(teacher, outcome, usage)
