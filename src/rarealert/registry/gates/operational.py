"""Gates on what a clinic would run: the registered version itself, freshly loaded."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from rarealert.evaluation.predictions import STUDENT
from rarealert.registry.gates.gate import Gate, GateResult
from rarealert.registry.judged import GateInput

MIN_RELOADED = 8
"""Cases that the reloaded version must score; fewer could agree by chance."""


@dataclass(frozen=True)
class ReloadParity(Gate):
    """The registered version, freshly loaded, returns the risks it was judged on."""

    max_difference: float
    code: ClassVar[str] = "RA007"
    title: ClassVar[str] = "The reloaded model gives the same risks"
    param: ClassVar[str | None] = "max_reload_difference"

    def check(self, given: GateInput) -> GateResult:
        """Compare the largest absolute difference over the cases scored twice."""
        if given.load_error is not None:
            return self._result(False, f"It can't be loaded: {given.load_error}")
        judged = given.risks.get(STUDENT, {})
        shared = given.reloaded.keys() & judged.keys()
        needed = min(MIN_RELOADED, len(given.rare))
        if len(shared) < max(1, needed):
            reason = f"Only {len(shared)} cases were scored again; {needed} are needed."
            return self._result(False, reason, None, self.max_difference)
        gaps = [abs(given.reloaded[key] - judged[key]) for key in shared]
        if not all(map(math.isfinite, gaps)):
            return self._result(False, "A risk is not a number.", None, self.max_difference)
        reason = f"The largest difference on {len(shared)} cases is {max(gaps):.1e}."
        passed = max(gaps) <= self.max_difference
        return self._result(passed, reason, max(gaps), self.max_difference)


@dataclass(frozen=True)
class Latency(Gate):
    """One visit is scored in time with the model already loaded."""

    max_seconds: float
    code: ClassVar[str] = "RA008"
    title: ClassVar[str] = "One visit is answered in time"
    param: ClassVar[str | None] = "max_latency_s"

    def check(self, given: GateInput) -> GateResult:
        """Report tenths of a second: finer figures would change the report with every run."""
        if given.latency_s is None:
            return self._result(False, "It was not timed.", None, self.max_seconds)
        value = round(given.latency_s, 1)
        reason = f"One visit takes {value:.1f} s with the model loaded."
        return self._result(given.latency_s <= self.max_seconds, reason, value, self.max_seconds)


@dataclass(frozen=True)
class Memory(Gate):
    """The process that scores visits stays within the memory of a clinic's machine."""

    max_gib: float
    code: ClassVar[str] = "RA020"
    title: ClassVar[str] = "It fits into a clinic's memory"
    param: ClassVar[str | None] = "max_memory_gib"

    def check(self, given: GateInput) -> GateResult:
        """Compare the peak memory of this process, an upper bound of what screening needs.

        Rounded to half a GiB, so that the report does not change with every run.
        """
        value = round(given.memory_gib * 2) / 2
        reason = f"The process that scored visits peaked at {value:.1f} GiB."
        return self._result(given.memory_gib <= self.max_gib, reason, value, self.max_gib)


@dataclass(frozen=True)
class SchemaKept(Gate):
    """The version takes and returns the columns that screening relies on."""

    code: ClassVar[str] = "RA021"
    title: ClassVar[str] = "Its columns are those that screening expects"

    def check(self, given: GateInput) -> GateResult:
        """Count differences of the stored signature and of the columns really returned."""
        passed = "Its input and output columns are as expected."
        return self._count(given.schema_faults, passed, f"{'; '.join(given.schema_faults)}.")


@dataclass(frozen=True)
class BaseLicence(Gate):
    """The base model's licence has been read and accepted by a person."""

    accepted: Mapping[str, str]
    code: ClassVar[str] = "RA022"
    title: ClassVar[str] = "The base model's licence was accepted"
    param: ClassVar[str | None] = "accepted_base_models"

    def check(self, given: GateInput) -> GateResult:
        """Look the base model up by name; its digest is checked when it is loaded."""
        licence = self.accepted.get(given.base_model)
        if licence is None:
            reason = (
                f"{given.base_model} is not in register.accepted_base_models; read its licence "
                "and add the model with its licence there."
            )
            return self._result(False, reason)
        return self._result(True, f"{given.base_model} has the accepted licence {licence}.")
