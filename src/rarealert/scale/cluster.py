"""Spread work over a Ray cluster: an actor on every machine, each task to one that is free.

The cluster is the one at RAY_ADDRESS, else one started on this machine. Ray's usage statistics are
switched off before it starts.
"""

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from rarealert.errors import RareAlertError

Task = TypeVar("Task")
Result = TypeVar("Result")
Task_contra = TypeVar("Task_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)

_CLIENT = "ray://"
_LOSSES = 3  # machines that a task may lose before the run ends
_AHEAD = 2  # tasks for each slot of the cluster that may wait for an earlier result
_LOOK_S = 0.5  # seconds between two calls of ``meanwhile``


@dataclass(frozen=True)
class Node:
    """A living machine of the cluster with processors."""

    id: str
    cpus: int


def connect() -> Any:
    """The module ``ray``, connected to a cluster; an existing connection is kept.

    Raises:
        RareAlertError: Ray is not installed, or no machine of a cluster answers at its address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise RareAlertError(
            "Ray is not installed. Run pip install 'rarealert[ray]', or use the engine local."
        ) from error
    address = os.environ.get("RAY_ADDRESS", "")
    if address.startswith(_CLIENT):
        raise RareAlertError(
            f"RAY_ADDRESS is the address of a Ray client ({_CLIENT}…), which has other files. Run "
            "the command on a machine of the cluster, with RAY_ADDRESS=auto."
        )
    if not ray.is_initialized():
        try:
            ray.init(log_to_driver=False, configure_logging=False)
        except ConnectionError as error:
            raise RareAlertError(
                f"No Ray cluster answers at RAY_ADDRESS={address}. Start it (ray start --head), or "
                "unset the variable to use this machine alone."
            ) from error
    return ray


def nodes(ray: Any) -> list[Node]:
    """The living machines with processors, the largest first."""
    found = [
        Node(one["NodeID"], int(one["Resources"].get("CPU", 0)))
        for one in ray.nodes()
        if one["Alive"]
    ]
    return sorted((one for one in found if one.cpus), key=lambda one: (-one.cpus, one.id))


def pinned(node_id: str) -> Any:
    """The scheduling strategy that places an actor on this machine and on no other."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=False)


class Worker(Protocol[Task_contra, Result_co]):
    """What runs on a machine; it should load what it needs with its first task."""

    def run(self, task: Task_contra) -> Result_co:
        """The result of one task. A ``RareAlertError`` ends the run with its sentence."""
        ...


def spread(
    make: Callable[..., Worker[Task, Result]],
    arguments: Sequence[object],
    tasks: Iterable[Task],
    *,
    slots: int = 1,
    cpus: float = 1,
    ordered: bool = False,
    meanwhile: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Task, Result]]:
    """Run ``tasks`` on actors ``make(*arguments)``, one a machine; yields each with its result.

    A task is drawn only when one of the ``slots`` of an actor is free. Results come as they are
    ready, or with ``ordered`` in the order of the tasks. ``cpus`` is what an actor reserves.
    ``meanwhile`` is called at least every half second. The tasks of a lost actor go to another
    one, on another machine if there is one.

    Raises:
        RareAlertError: there is no cluster, a task raised one, or a task lost three machines.
    """
    pool = _Pool(connect(), make, arguments, slots, cpus)
    try:
        yield from pool.run(tasks, ordered, meanwhile)
    finally:
        for actor in pool.nodes:
            pool.ray.kill(actor)


@dataclass
class _Pool(Generic[Task, Result]):
    ray: Any
    make: Callable[..., Worker[Task, Result]]
    arguments: Sequence[object]
    slots: int
    cpus: float
    nodes: dict[Any, str] = field(default_factory=dict)
    """The machine of each living actor."""
    free: deque[Any] = field(default_factory=deque)
    """An actor for each free slot."""
    running: dict[Any, tuple[int, Task, Any]] = field(default_factory=dict)
    """Number, task and actor of each result to come."""
    lost: deque[tuple[int, Task]] = field(default_factory=deque)
    losses: Counter[int] = field(default_factory=Counter)

    def run(
        self, tasks: Iterable[Task], ordered: bool, meanwhile: Callable[[], None]
    ) -> Iterator[tuple[Task, Result]]:
        waiting = enumerate(tasks)
        done: dict[int, tuple[Task, Result]] = {}
        given = 0
        actors = [self._start(node.id) for node in nodes(self.ray)]
        if not actors:
            raise RareAlertError(
                "No machine of the Ray cluster has a processor to give. Start one with ray start."
            )
        self.free.extend(actors * self.slots)
        most = _AHEAD * len(self.free) if ordered else None
        while True:
            while self.free and (most is None or len(done) + len(self.running) < most):
                task = self.lost.popleft() if self.lost else next(waiting, None)
                if task is None:
                    break
                self._submit(*task)
            if not self.running:
                break
            ready, _ = self.ray.wait(list(self.running), timeout=_LOOK_S)
            meanwhile()
            for reference in ready:
                done |= self._collect(reference)
            for number in sorted(done) if not ordered else list(_run_from(given, done)):
                yield done.pop(number)
                given += 1

    def _start(self, node_id: str) -> Any:
        remote = self.ray.remote(self.make).options(
            num_cpus=self.cpus, max_concurrency=self.slots, scheduling_strategy=pinned(node_id)
        )
        actor = remote.remote(*self.arguments)
        self.nodes[actor] = node_id
        return actor

    def _submit(self, number: int, task: Task) -> None:
        actor = self.free.popleft()
        self.running[actor.run.remote(task)] = number, task, actor

    def _collect(self, reference: Any) -> dict[int, tuple[Task, Result]]:
        """The task's number, task and result; empty where its actor was lost."""
        from ray.exceptions import RayError, RayTaskError

        number, task, actor = self.running.pop(reference)
        try:
            result: Result = self.ray.get(reference)
        except RayTaskError as error:
            raise error.cause from None
        except RayError:
            self._lose(actor)
            self.losses[number] += 1
            if self.losses[number] == _LOSSES:
                raise RareAlertError(
                    f"A task lost its machine of the Ray cluster {_LOSSES} times. Finished work is "
                    "kept: run the command again for the rest."
                ) from None
            self.lost.append((number, task))
            return {}
        if actor in self.nodes:
            self.free.append(actor)
        return {number: (task, result)}

    def _lose(self, actor: Any) -> None:
        """Replace a lost actor, once for all of its tasks."""
        gone = self.nodes.pop(actor, None)
        if gone is None:
            return
        self.ray.kill(actor)
        self.free = deque(one for one in self.free if one != actor)
        held = Counter(self.nodes.values())
        living = [node.id for node in nodes(self.ray)]
        others = [node_id for node_id in living if node_id != gone] or [gone]
        self.free.extend([self._start(min(others, key=held.__getitem__))] * self.slots)


def _run_from(start: int, done: dict[int, Any]) -> Iterator[int]:
    """The numbers from ``start`` on that are in ``done`` without a gap."""
    while start in done:
        yield start
        start += 1
