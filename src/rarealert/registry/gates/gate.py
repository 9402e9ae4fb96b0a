"""A gate: a code, a title, a threshold, and one question put to the evidence."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from rarealert.registry.judged import Evidence


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
    """One question. A gate that can't find its evidence fails: silence is not consent."""

    code: ClassVar[str]
    title: ClassVar[str]
    param: ClassVar[str | None] = None
    """Key of its threshold in the section ``register``; ``None`` where it allows no fault."""

    @abstractmethod
    def check(self, evidence: Evidence) -> GateResult:
        """The verdict with its reason in one sentence, free of case text."""

    def _result(
        self,
        passed: bool,
        reason: str,
        value: float | None = None,
        threshold: float | None = None,
    ) -> GateResult:
        return GateResult(self.code, self.title, passed, value, threshold, reason)
