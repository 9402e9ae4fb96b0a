"""Rate limits, cost cap, circuit breaker and back-off for calls to an endpoint."""

import asyncio
import email.utils
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rarealert.teachers.panel import Limits, Price

if TYPE_CHECKING:
    from tenacity import RetryCallState

_BURST_SHARE = 0.1  # largest share of a minute's tokens in one burst
_MILLION = 1_000_000
_LONGEST_WAIT_S = 60.0
TRUSTED_WAIT_S = 300.0  # a longer Retry-After is an error or an outage, for which ``outage_s`` is


class Pace:
    """Requests and tokens per minute, spaced evenly (leaky bucket)."""

    def __init__(self, limits: Limits):
        from aiolimiter import AsyncLimiter

        self._requests = self._tokens = None
        if limits.requests_per_minute is not None:
            self._requests = AsyncLimiter(1, 60 / limits.requests_per_minute)
        if limits.tokens_per_minute is not None:
            self._burst = limits.tokens_per_minute * _BURST_SHARE
            self._tokens = AsyncLimiter(self._burst, 60 * _BURST_SHARE)

    async def wait(self, tokens: int) -> None:
        """Wait until a request of at most ``tokens`` tokens, prompt and reply, may be sent."""
        if self._requests is not None:
            await self._requests.acquire()
        if self._tokens is not None:
            left = float(tokens)
            while left > 0:
                await self._tokens.acquire(min(left, self._burst))
                left -= self._burst


def price_of(price: Price | None, prompt_tokens: int, completion_tokens: int) -> float:
    """Cost of one call in US dollars; 0 without a price."""
    if price is None:
        return 0.0
    return (prompt_tokens * price.input + completion_tokens * price.output) / _MILLION


@dataclass
class Budget:
    """A hard cap on the cost of all teachers, over this run and those before it.

    A call is made only if its worst case fits beside what was spent and what is in flight, so the
    cap holds whatever the length of the replies. A call of unknown cost (a time-out, a reply that
    is unreadable or without usage) counts with its worst case.
    """

    cap_usd: float | None
    spent_usd: float = 0.0
    reserved_usd: float = 0.0
    exhausted: bool = False

    def reserve(self, worst_usd: float) -> bool:
        """Whether a call of this worst case may be made; once one does not fit, always false."""
        if self.exhausted:
            return False
        total = self.spent_usd + self.reserved_usd + worst_usd
        if self.cap_usd is not None and worst_usd > 0 and total > self.cap_usd:
            self.exhausted = True
            return False
        self.reserved_usd += worst_usd
        return True

    def settle(self, worst_usd: float, cost_usd: float) -> None:
        """Replace a reservation with the call's actual cost."""
        self.reserved_usd -= worst_usd
        self.spent_usd += cost_usd


class Breaker:
    """A circuit breaker for one endpoint.

    It is closed while calls succeed. After ``trip_after`` failures in a row it opens: one probe is
    admitted at a time, after waits that double. After ``outage_s`` seconds without a success it is
    ``dead``.
    """

    def __init__(
        self, limits: Limits, trip_after: int = 5, clock: Callable[[], float] = time.monotonic
    ):
        self._limits = limits
        self._trip_after = max(trip_after, limits.concurrency)
        self._clock = clock
        self._failures = 0
        self._failing_since: float | None = None
        self._resume_at = 0.0
        self._probing = False
        self.dead = False

    @property
    def open(self) -> bool:
        """Whether only probes are admitted."""
        return self._failures >= self._trip_after

    async def admit(self) -> bool:
        """Wait until a call may be made; ``False`` once the endpoint is dead.

        While the breaker is open, the admitted call is the probe: others wait for its result.
        """
        while not self.dead:
            pause = self._resume_at - self._clock()
            if pause > 0:
                await asyncio.sleep(min(pause, 1.0))
            elif not self.open:
                return True
            elif not self._probing:
                self._probing = True
                return True
            else:
                await asyncio.sleep(0.05)
        return False

    def succeeded(self) -> None:
        """Close: the endpoint works."""
        self._failures = 0
        self._failing_since = None
        self._probing = False

    def failed(self, retry_after_s: float | None = None) -> None:
        """Count a failure; ``retry_after_s`` is a wait for all callers."""
        now = self._clock()
        self._failures += 1
        if self._failing_since is None:
            self._failing_since = now
        if now - self._failing_since >= self._limits.outage_s:
            self.dead = True
        if retry_after_s is not None:
            self._resume_at = max(self._resume_at, now + min(retry_after_s, TRUSTED_WAIT_S))
        elif self.open:
            over = min(self._failures - self._trip_after, 6)
            self._resume_at = now + min(_LONGEST_WAIT_S, self._limits.backoff_s * 2**over)
        self._probing = False

    def released(self) -> None:
        """Withdraw an admitted call that was not made."""
        self._probing = False

    def give_up(self) -> None:
        """Declare the endpoint dead: a refused key, an unknown model."""
        self.dead = True
        self._probing = False


def retry_after(header: str | None) -> float | None:
    """Seconds of a ``Retry-After`` header, a number or an HTTP date (RFC 9110, 10.2.3)."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def backoff(limits: Limits) -> Callable[["RetryCallState"], float]:
    """Seconds before the next attempt: the endpoint's Retry-After plus jitter, else full jitter.

    Full jitter below a doubling ceiling spreads the retries of many callers (Brooker, AWS
    Architecture Blog, 2015).
    """
    from tenacity import wait_random, wait_random_exponential

    jitter = wait_random(0, limits.backoff_s)
    growing = wait_random_exponential(limits.backoff_s, max=_LONGEST_WAIT_S)

    def wait(state: "RetryCallState") -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        asked = getattr(error, "retry_after_s", None)
        if asked is None:
            return growing(state)
        return min(float(asked), TRUSTED_WAIT_S) + jitter(state)

    return wait
