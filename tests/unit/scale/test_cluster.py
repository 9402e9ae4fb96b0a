"""The Ray adapter against a stand-in for Ray: where work goes, what is lost, what is refused."""

import os
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from rarealert.errors import RareAlertError
from rarealert.scale.cluster import connect, nodes, spread


def test_without_ray_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RareAlertError, match=r"pip install 'rarealert\[ray\]'"):
        connect()


def test_usage_statistics_are_off_before_ray_starts_and_a_client_address_is_refused(monkeypatch):
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())
    with pytest.raises(RareAlertError, match="RAY_ADDRESS"):
        connect()
    assert os.environ.pop("RAY_USAGE_STATS_ENABLED") == "0"


def test_an_address_without_a_cluster_is_named(monkeypatch):
    def refuse(**_: object) -> None:
        raise ConnectionError("no GCS there")

    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    found = SimpleNamespace(is_initialized=lambda: False, init=refuse)
    monkeypatch.setitem(sys.modules, "ray", found)
    with pytest.raises(RareAlertError, match=r"RAY_ADDRESS=127\.0\.0\.1:1"):
        connect()


def test_only_living_machines_with_processors_count_the_largest_first():
    listed = [
        {"NodeID": "head", "Alive": True, "Resources": {}},
        {"NodeID": "small", "Alive": True, "Resources": {"CPU": 2.0}},
        {"NodeID": "lost", "Alive": False, "Resources": {"CPU": 64.0}},
        {"NodeID": "large", "Alive": True, "Resources": {"CPU": 8.0}},
    ]
    found = nodes(SimpleNamespace(nodes=lambda: listed))
    assert [(one.id, one.cpus) for one in found] == [("large", 8), ("small", 2)]


class _RayError(Exception):
    pass


class _TaskError(_RayError):
    def __init__(self, cause: Exception):
        super().__init__(str(cause))
        self.cause = cause


class _Ray:
    """Ray's calls as ``spread`` uses them: a task runs when it is waited for, the last one first.

    ``lose`` decides whether the machine of a task is lost, by task and machine.
    """

    def __init__(self, machines: tuple[str, ...], lose: Callable[[Any, str], bool]):
        self.machines = list(machines)
        self.lose = lose
        self.ran: list[tuple[Any, str]] = []
        self.killed: list[str] = []
        self.most = 0

    def is_initialized(self) -> bool:
        return True

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": m, "Alive": True, "Resources": {"CPU": 2}} for m in self.machines]

    def remote(self, make: Callable[..., Any]) -> SimpleNamespace:
        return SimpleNamespace(options=lambda **options: self._placed(make, options))

    def _placed(self, make: Callable[..., Any], options: dict[str, Any]) -> SimpleNamespace:
        machine = options["scheduling_strategy"]
        return SimpleNamespace(remote=lambda *given: _Actor(machine, make(*given)))

    def wait(self, references: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        self.most = max(self.most, len(references))
        return references[-1:], references[:-1]

    def get(self, reference: "_Reference") -> Any:
        if self.lose(reference.task, reference.actor.machine):
            self.machines.remove(reference.actor.machine)
            raise _RayError
        self.ran.append((reference.task, reference.actor.machine))
        try:
            return reference.actor.worker.run(reference.task)
        except ValueError as error:
            raise _TaskError(RareAlertError(str(error))) from error

    def kill(self, actor: "_Actor") -> None:
        self.killed.append(actor.machine)


class _Actor:
    def __init__(self, machine: str, worker: Any):
        self.machine = machine
        self.worker = worker
        self.run = SimpleNamespace(remote=lambda task: _Reference(self, task))


class _Reference:
    def __init__(self, actor: _Actor, task: Any):
        self.actor = actor
        self.task = task


class _Half:
    def run(self, task: int) -> int:
        if task % 2:
            raise ValueError(f"{task} is odd")
        return task // 2


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[..., _Ray]:
    def begin(
        *machines: str, lose: Callable[[Any, str], bool] = lambda task, machine: False
    ) -> _Ray:
        ray = _Ray(machines, lose)
        errors = SimpleNamespace(RayError=_RayError, RayTaskError=_TaskError)
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        monkeypatch.setitem(sys.modules, "ray", ray)
        monkeypatch.setitem(sys.modules, "ray.exceptions", errors)
        monkeypatch.setattr("rarealert.scale.cluster.pinned", lambda node_id: node_id)
        return ray

    return begin


EVEN = range(0, 40, 2)


def test_every_machine_gets_tasks_and_every_result_comes_once(start):
    ray = start("a", "b")
    assert sorted(spread(_Half, (), EVEN)) == [(task, task // 2) for task in EVEN]
    assert {machine for _, machine in ray.ran} == {"a", "b"}
    assert sorted(ray.killed) == ["a", "b"]


def test_ordered_results_come_in_the_order_of_the_tasks(start):
    start("a", "b")
    assert list(spread(_Half, (), EVEN, ordered=True)) == [(task, task // 2) for task in EVEN]


@pytest.mark.parametrize(("ordered", "ahead"), [(False, 4), (True, 8)])
def test_tasks_are_drawn_only_as_slots_become_free(start, ordered, ahead):
    ray = start("a", "b")
    drawn: list[int] = []

    def tasks() -> Iterator[int]:
        for task in EVEN:
            drawn.append(task)
            yield task

    for given, _ in enumerate(spread(_Half, (), tasks(), slots=2, ordered=ordered)):
        assert len(drawn) - given <= ahead
    assert ray.most == 4


@pytest.mark.parametrize("ordered", [False, True])
def test_tasks_of_a_lost_machine_run_on_another(start, ordered):
    lost: list[str] = []

    def lose(_: Any, machine: str) -> bool:
        if machine != "a" or lost:
            return False
        lost.append(machine)
        return True

    ray = start("a", "b", lose=lose)
    found = list(spread(_Half, (), EVEN, slots=2, ordered=ordered))
    assert sorted(found) == [(task, task // 2) for task in EVEN]
    assert ray.machines == ["b"]


def test_a_task_that_loses_three_machines_ends_the_run(start):
    start("a", "b", "c", "d", lose=lambda task, machine: task == 4)
    with pytest.raises(RareAlertError, match="3 times"):
        list(spread(_Half, (), EVEN))


def test_an_error_of_a_task_is_raised_and_the_actors_are_stopped(start):
    ray = start("a", "b")
    with pytest.raises(RareAlertError, match="3 is odd"):
        list(spread(_Half, (), [2, 3, 4]))
    assert sorted(ray.killed) == ["a", "b"]


def test_a_cluster_without_processors_is_refused(start):
    start()
    with pytest.raises(RareAlertError, match="ray start"):
        list(spread(_Half, (), EVEN))
