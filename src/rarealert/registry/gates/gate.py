"""The base class of a gate: a code, a title, a threshold, and one check of a version's facts."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from rarealert.registry.judged import GateInput


@dataclass(frozen=True)
class GateResult:
    """A gate's verdict. ``value`` is compared with ``threshold``; ``None`` where nothing is."""

    code: str
    title: str
    passed: bool
    value: float | None
    threshold: float | None
    reason: str


class Gate(ABC):
    """One check. A gate fails where the facts that it needs are missing."""

    code: ClassVar[str]
    title: ClassVar[str]
    param: ClassVar[str | None] = None
    """Key of its threshold in the section ``register``; ``None`` where it allows no fault."""

    @abstractmethod
    def check(self, given: GateInput) -> GateResult:
        """Return the verdict with its reason in one sentence, free of case text."""

    def _result(
        self,
        passed: bool,
        reason: str,
        value: float | None = None,
        threshold: float | None = None,
    ) -> GateResult:
        return GateResult(self.code, self.title, passed, value, threshold, reason)

    def _count(self, faults: Collection[object], passed: str, failed: str) -> GateResult:
        """Pass where ``faults`` is empty; the value is their number."""
        reason = failed if faults else passed
        return self._result(not faults, reason, float(len(faults)), 0.0)


def first_few(names: Collection[str]) -> str:
    """Return up to three names for a sentence."""
    return ", ".join(sorted(names)[:3])
