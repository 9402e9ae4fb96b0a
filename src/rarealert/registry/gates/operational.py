"""Gates on what a clinic would run: the registered version itself, loaded anew."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from rarealert.registry.gates.gate import Gate, GateResult
from rarealert.registry.judged import Evidence

MIN_RELOADED = 8
"""Cases the reloaded version must be asked about; fewer could agree by luck."""


@dataclass(frozen=True)
class ReloadParity(Gate):
    """The registered version, loaded anew, gives the risks it was judged on."""

    max_difference: float
    code: ClassVar[str] = "RA007"
    title: ClassVar[str] = "The reloaded model gives the same risks"
    param: ClassVar[str | None] = "max_reload_difference"

    def check(self, evidence: Evidence) -> GateResult:
        """The largest absolute difference over the cases asked again."""
        if evidence.load_error is not None:
            return self._result(False, f"It can't be loaded: {evidence.load_error}")
        scored = evidence.risks.get(evidence.challenger, {})
        shared = evidence.reloaded.keys() & scored.keys()
        wanted = min(MIN_RELOADED, len(evidence.rare))
        if len(shared) < max(1, wanted):
            reason = f"Only {len(shared)} cases were asked again; {wanted} are needed."
            return self._result(False, reason, None, self.max_difference)
        gaps = [abs(evidence.reloaded[key] - scored[key]) for key in shared]
        if not all(map(math.isfinite, gaps)):
            return self._result(False, "A risk is not a number.", None, self.max_difference)
        worst = max(gaps)
        reason = f"The largest difference on {len(shared)} cases is {worst:.1e}."
        return self._result(worst <= self.max_difference, reason, worst, self.max_difference)


@dataclass(frozen=True)
class Latency(Gate):
    """One visit is answered in time, the model already loaded."""

    max_seconds: float
    code: ClassVar[str] = "RA008"
    title: ClassVar[str] = "One visit is answered in time"
    param: ClassVar[str | None] = "max_latency_s"

    def check(self, evidence: Evidence) -> GateResult:
        """Rounded to a tenth of a second: finer figures change with every run."""
        if evidence.latency_s is None:
            return self._result(False, "It was never asked.", None, self.max_seconds)
        value = round(evidence.latency_s, 1)
        reason = f"One visit takes {value:.1f} s with the model loaded."
        return self._result(evidence.latency_s <= self.max_seconds, reason, value, self.max_seconds)


@dataclass(frozen=True)
class Memory(Gate):
    """The process that answers stays within the memory of a clinic's machine."""

    max_gib: float
    code: ClassVar[str] = "RA020"
    title: ClassVar[str] = "It fits into a clinic's memory"
    param: ClassVar[str | None] = "max_memory_gib"

    def check(self, evidence: Evidence) -> GateResult:
        """Peak resident memory of this process: model, libraries and this stage's own work.

        An upper bound of what screening needs. Rounded to half a GiB, so that reports stay still.
        """
        value = round(evidence.memory_gib * 2) / 2
        reason = f"The process that asked it peaked at {value:.1f} GiB."
        return self._result(evidence.memory_gib <= self.max_gib, reason, value, self.max_gib)


@dataclass(frozen=True)
class SchemaKept(Gate):
    """The version takes and gives the columns that screening relies on."""

    code: ClassVar[str] = "RA021"
    title: ClassVar[str] = "Its columns are those that screening expects"

    def check(self, evidence: Evidence) -> GateResult:
        """The signature stored with the version, and the columns it really answered with."""
        if evidence.schema_faults:
            reason = f"{'; '.join(evidence.schema_faults)}."
            return self._result(False, reason, float(len(evidence.schema_faults)), 0.0)
        return self._result(True, "Its inputs and answers have the expected columns.", 0.0, 0.0)


@dataclass(frozen=True)
class BaseLicence(Gate):
    """The base model is one whose licence a person has read and accepted."""

    accepted: Mapping[str, str]
    code: ClassVar[str] = "RA022"
    title: ClassVar[str] = "The base model's licence was accepted"
    param: ClassVar[str | None] = "accepted_base_models"

    def check(self, evidence: Evidence) -> GateResult:
        """By name; that its bytes are those it was trained on is asked when it is loaded."""
        licence = self.accepted.get(evidence.base_model)
        if licence is None:
            reason = (
                f"{evidence.base_model} is not among register.accepted_base_models; read its "
                "licence and add both."
            )
            return self._result(False, reason)
        return self._result(True, f"{evidence.base_model} is under {licence}, which was accepted.")
