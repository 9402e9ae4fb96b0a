"""The keeper of a run on Ray, without Ray: one cache and one budget for separate workers."""

import asyncio
from typing import Any

import pytest
from endpoint_kit import case, teacher

from rarealert.errors import RareAlertError
from rarealert.teachers import shards
from rarealert.teachers.cache import RationaleCache
from rarealert.teachers.collect import Tally
from rarealert.teachers.endpoints.endpoint import EndpointRun
from rarealert.teachers.endpoints.limits import Budget
from rarealert.teachers.on_ray import Keeper, RemoteLedger


class _Method:
    """A method called as an actor's: its result is awaited, one call after the other."""

    def __init__(self, call: Any):
        self._call = call

    def remote(self, *given: object) -> "asyncio.Future[object]":
        result: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        try:
            result.set_result(self._call(*given))
        except RareAlertError as error:
            result.set_exception(error)
        return result


class _Handle:
    def __init__(self, keeper: Keeper):
        self._keeper = keeper

    def __getattr__(self, name: str) -> _Method:
        return _Method(getattr(self._keeper, name))


def _spread(keeper: Keeper, teachers: list, cases: list) -> dict[str, Tally]:
    """Each teacher with a ledger of its own, as in an actor of its own."""

    async def both() -> dict[str, Tally]:
        runs = [EndpointRun(cases, RemoteLedger(_Handle(keeper)), set(), 0) for _ in teachers]
        asked = await asyncio.gather(
            *(run.ask([one]) for run, one in zip(runs, teachers, strict=True))
        )
        return {name: tally for one in asked for name, tally in one.tallies.items()}

    return asyncio.run(both())


def test_teachers_apart_share_one_cap_and_one_cache(replay, tmp_path):
    first, second = replay(), replay()
    two = [teacher(first, "a"), teacher(second, "b")]
    cases = [case(number) for number in range(8)]
    keeper = Keeper(tmp_path, Budget(3.0), set())
    tallies = _spread(keeper, two, cases)
    left = keeper.close()
    stats = RationaleCache(tmp_path).stats()
    assert left.exhausted
    assert sum(one.cost_usd for one in stats.values()) == pytest.approx(left.spent_usd)
    assert 0 < left.spent_usd <= 3.0
    assert left.reserved_usd == pytest.approx(0)
    assert 0 < sum(tally.not_asked for tally in tallies.values()) < 16
    answered = sorted(RationaleCache(tmp_path).answered())
    assert keeper.unanswered([*answered, "another"]) == [len(answered)]
    assert len(keeper.finished()) == len(first.seen) + len(second.seen)


def test_a_full_disk_of_the_keeper_reaches_the_one_who_asks(replay, tmp_path, monkeypatch):
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    keeper = Keeper(tmp_path, Budget(None), set())
    monkeypatch.setattr(shards.os, "write", full)
    with pytest.raises(RareAlertError, match="is full"):
        _spread(keeper, [teacher(replay())], [case(0)])
    monkeypatch.undo()
    keeper.close()
