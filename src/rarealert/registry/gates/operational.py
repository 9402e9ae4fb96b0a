"""Gates on what a clinic would run: the registered version itself, loaded anew."""

import math
from dataclasses import dataclass
from typing import ClassVar

from rarealert.registry.evidence import Evidence
from rarealert.registry.gates.gate import Gate, GateResult

MIN_RELOADED = 8
"""Cases the reloaded version must be asked about; fewer could agree by luck."""


@dataclass(frozen=True)
class ReloadParity(Gate):
    """The registered version, loaded anew, gives the risks it was judged on."""

    max_difference: float
    code: ClassVar[str] = "RA007"
    title: ClassVar[str] = "The reloaded model gives the same risks"

    def check(self, evidence: Evidence) -> GateResult:
        """The largest absolute difference over the cases asked again."""
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

    def check(self, evidence: Evidence) -> GateResult:
        """Rounded to a tenth of a second: finer figures change with every run."""
        value = round(evidence.latency_s, 1)
        reason = f"One visit takes {value:.1f} s with the model loaded."
        return self._result(evidence.latency_s <= self.max_seconds, reason, value, self.max_seconds)
