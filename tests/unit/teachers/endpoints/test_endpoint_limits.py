"""Pace, budget, breaker and back-off."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rarealert.teachers.endpoints.limits import (
    Breaker,
    Budget,
    Pace,
    backoff,
    price_of,
    retry_after,
)
from rarealert.teachers.panel import Limits, Price


@pytest.mark.parametrize(
    ("limits", "tokens", "calls", "least_s"),
    [
        (Limits(requests_per_minute=1200), 1, 5, 4 * 0.05),
        (Limits(tokens_per_minute=60_000), 6_200, 2, (2 * 6_200 - 6_000) / 1_000),
    ],
)
def test_calls_wait_for_the_limits_of_their_minute(limits, tokens, calls, least_s):
    async def wait() -> float:
        pace, started = Pace(limits), time.monotonic()
        for _ in range(calls):
            await pace.wait(tokens)
        return time.monotonic() - started

    assert asyncio.run(wait()) >= least_s - 0.2


@settings(deadline=None, max_examples=50)
@given(
    cap=st.floats(0, 10),
    calls=st.lists(st.tuples(st.floats(0, 3), st.floats(0, 1)), max_size=30),
)
def test_a_budget_is_never_exceeded_whatever_calls_cost_within_their_worst_case(cap, calls):
    budget = Budget(cap)
    in_flight = []
    for worst, share in calls:
        if budget.reserve(worst):
            in_flight.append((worst, worst * share))
        if len(in_flight) > 3:
            budget.settle(*in_flight.pop(0))
        assert budget.spent_usd + budget.reserved_usd <= cap + 1e-9
    for call in in_flight:
        budget.settle(*call)
    assert budget.spent_usd <= cap + 1e-9


def test_a_budget_never_stops_what_costs_nothing():
    assert all(Budget(0.0).reserve(0.0) for _ in range(3))
    assert price_of(None, 10**6, 10**6) == 0
    assert price_of(Price(input=2, output=8), 10**6, 10**5) == pytest.approx(2.8)


class _Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def _admitted(breaker: Breaker) -> bool:
    async def admit() -> bool:
        try:
            return await asyncio.wait_for(breaker.admit(), 0.1)
        except TimeoutError:
            return False

    return asyncio.run(admit())


def test_a_breaker_opens_probes_one_at_a_time_and_closes_again():
    clock = _Clock()
    breaker = Breaker(Limits(concurrency=2, backoff_s=1), trip_after=3, clock=clock)
    for _ in range(3):
        breaker.failed()
    assert breaker.open
    assert not _admitted(breaker), "a wait comes first"
    clock.now += 2
    assert _admitted(breaker), "one probe"
    assert not _admitted(breaker), "and no second one"
    breaker.failed()
    clock.now += 1
    assert not _admitted(breaker), "the wait has doubled"
    clock.now += 1.5
    assert _admitted(breaker)
    breaker.succeeded()
    assert not breaker.open
    assert _admitted(breaker)


def test_a_breaker_gives_up_after_an_outage():
    clock = _Clock()
    breaker = Breaker(Limits(outage_s=60), clock=clock)
    breaker.failed()
    clock.now += 61
    breaker.failed()
    assert breaker.dead
    assert not _admitted(breaker)


def test_a_retry_after_of_the_endpoint_holds_for_every_caller():
    clock = _Clock()
    breaker = Breaker(Limits(), clock=clock)
    breaker.failed(retry_after_s=5)
    assert not _admitted(breaker)
    clock.now += 5.1
    assert _admitted(breaker)


@pytest.mark.parametrize(
    ("header", "seconds"), [(None, None), ("1.5", 1.5), ("-3", 0), ("soon", None)]
)
def test_retry_after_is_a_number_of_seconds(header, seconds):
    assert retry_after(header) == seconds


def test_retry_after_is_a_date():
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert retry_after(later) == pytest.approx(30, abs=2)


def test_backoff_adds_jitter_to_a_retry_after_and_grows_otherwise():
    wait = backoff(Limits(backoff_s=2))

    def state(attempt: int, asked: float | None) -> SimpleNamespace:
        error = SimpleNamespace(retry_after_s=asked)
        return SimpleNamespace(
            attempt_number=attempt, outcome=SimpleNamespace(exception=lambda: error)
        )

    asked = [wait(state(1, 10.0)) for _ in range(50)]
    assert all(10 <= seconds <= 12 for seconds in asked)
    assert len(set(asked)) > 40, "callers must not return together"
    assert wait(state(1, 10_000.0)) <= 302
    assert max(wait(state(1, None)) for _ in range(50)) <= 2
    assert 8 < max(wait(state(4, None)) for _ in range(50)) <= 16
    assert max(wait(state(30, None)) for _ in range(50)) <= 60
