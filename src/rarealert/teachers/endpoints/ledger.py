"""Where a run keeps what endpoints say, and the money that all of them share."""

from dataclasses import dataclass
from typing import Protocol

from rarealert.teachers.answer import Answer
from rarealert.teachers.cache import RationaleCache, Usage
from rarealert.teachers.endpoints.limits import Budget
from rarealert.teachers.teacher import Request


class Purse(Protocol):
    """A cap on what several teachers may cost together."""

    @property
    def exhausted(self) -> bool:
        """Whether a call did not fit; then no more are made."""
        ...

    async def reserve(self, worst_usd: float) -> bool:
        """Whether a call of this worst case may be made."""
        ...

    def settle(self, worst_usd: float, cost_usd: float) -> None:
        """Replace a reservation by what the call did cost."""
        ...


class Ledger(Purse, Protocol):
    """A purse with the cache beside it; what ``add`` has returned from is never asked again."""

    async def add(
        self, request: Request, case_id: str, answer: Answer, usage: Usage, response: str | None
    ) -> None:
        """Keep an answer, as ``RationaleCache.add``."""
        ...

    async def fail(self, request: Request, case_id: str, error: Exception, usage: Usage) -> None:
        """Keep a failure, as ``RationaleCache.fail``."""
        ...


@dataclass(frozen=True)
class OwnPurse:
    """The budget of this process."""

    budget: Budget

    @property
    def exhausted(self) -> bool:
        """As in ``Purse``."""
        return self.budget.exhausted

    async def reserve(self, worst_usd: float) -> bool:
        """As in ``Purse``."""
        return self.budget.reserve(worst_usd)

    def settle(self, worst_usd: float, cost_usd: float) -> None:
        """As in ``Purse``."""
        self.budget.settle(worst_usd, cost_usd)


@dataclass(frozen=True)
class OwnLedger(OwnPurse):
    """The budget and the open cache of this process."""

    cache: RationaleCache

    async def add(
        self, request: Request, case_id: str, answer: Answer, usage: Usage, response: str | None
    ) -> None:
        """As in ``Ledger``."""
        self.cache.add(request, case_id, answer, usage, response)

    async def fail(self, request: Request, case_id: str, error: Exception, usage: Usage) -> None:
        """As in ``Ledger``."""
        self.cache.fail(request, case_id, type(error).__name__, usage)
