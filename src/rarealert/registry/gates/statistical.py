"""Gates on what the model can do: against champion, teachers, shortcuts, and its calibration.

Comparisons ask for the lower bound of a paired interval, so the burden of proof lies with the
challenger: few cases make a wide interval, and a wide interval does not pass. A gate that
compares with several models needs all of its tests to hold, which wants no correction for their
number (intersection-union test: Berger, Technometrics 24:295, 1982).
"""

from dataclasses import dataclass
from typing import ClassVar

from rarealert.metrics.calibration import ece
from rarealert.metrics.intervals import Bootstrap
from rarealert.metrics.panel import why_absent
from rarealert.registry.evidence import Champion, Evidence
from rarealert.registry.gates.gate import Gate, GateResult
from rarealert.registry.gates.paired import Pairing
from rarealert.registry.gates.scored import auroc_or_none, scored

_MIN_ANSWERED = 0.5  # share 0-1 of test cases; a teacher heard on fewer is no yardstick


@dataclass(frozen=True)
class NotBelowChampion(Gate):
    """The lower bound of AUROC(challenger) - AUROC(champion) lies above ``-max_loss``."""

    max_loss: float
    plan: Bootstrap
    code: ClassVar[str] = "RA001"
    title: ClassVar[str] = "Not worse than the champion"
    param: ClassVar[str | None] = "max_auroc_loss"

    def check(self, evidence: Evidence) -> GateResult:
        """Paired where the champion was scored on these cases, else by the champion's AUROC."""
        champion = evidence.champion
        if champion is None:
            return self._result(True, "There is no champion yet to compare with.")
        if champion.same_as_challenger:
            return self._result(True, f"Version {champion.version} is the champion itself.")
        if evidence.rare.keys() <= champion.risks.keys():
            return self._paired(evidence, champion)
        return self._unpaired(evidence, champion)

    def _paired(self, evidence: Evidence, champion: Champion) -> GateResult:
        found = Pairing(evidence, self.plan).differences({"champion": champion.risks})
        if not found:
            return self._result(False, "The test cases do not define the difference.")
        low = found["champion"].ci_low
        reason = (
            f"AUROC is {found['champion'].value:+.3f} against version {champion.version} on the "
            f"same {found['champion'].n} cases, at least {low:+.3f}."
        )
        return self._result(low >= -self.max_loss, reason, low, -self.max_loss)

    def _unpaired(self, evidence: Evidence, champion: Champion) -> GateResult:
        told = evidence.reported["models"].get(evidence.challenger, {}).get("auroc")
        if told is None:
            why = why_absent(evidence.reported, evidence.challenger, "auroc")
            return self._result(False, f"AUROC is not defined on the test part ({why}).")
        if champion.auroc is None:
            return self._result(False, f"Version {champion.version} has no AUROC to compare with.")
        low = told["ci_low"]
        floor = champion.auroc - self.max_loss
        reason = (
            f"Version {champion.version} was judged on other cases with AUROC "
            f"{champion.auroc:.3f}; the challenger reaches at least {low:.3f} on its own."
        )
        return self._result(low >= floor, reason, low, floor)


@dataclass(frozen=True)
class NearBestTeacher(Gate):
    """The lower bound of the difference to the best teacher lies above ``-max_below``."""

    max_below: float
    plan: Bootstrap
    code: ClassVar[str] = "RA002"
    title: ClassVar[str] = "Within the margin of the best teacher"
    param: ClassVar[str | None] = "max_auroc_below_best_teacher"

    def check(self, evidence: Evidence) -> GateResult:
        """The best teacher by AUROC on the cases it answered, at least half of them."""
        enough = _MIN_ANSWERED * len(evidence.rare)
        answers = {name: evidence.answered(name) for name in evidence.risks}
        teachers = {
            name: risks
            for name, risks in answers.items()
            if name.startswith("teacher:") and len(risks) >= enough
        }
        aurocs = {
            name: value for name in teachers if (value := auroc_or_none(evidence, name)) is not None
        }
        if not aurocs:
            return self._result(False, "No teacher answered half of the test cases.")
        best = max(sorted(aurocs), key=lambda name: aurocs[name])
        found = Pairing(evidence, self.plan).differences({best: teachers[best]})
        if best not in found:
            return self._result(False, f"The cases answered do not define a difference to {best}.")
        low = found[best].ci_low
        reason = (
            f"AUROC is {found[best].value:+.3f} against {best} ({aurocs[best]:.3f}), the best of "
            f"{len(aurocs)} teachers, at least {low:+.3f}."
        )
        return self._result(low >= -self.max_below, reason, low, -self.max_below)


@dataclass(frozen=True)
class AboveControls(Gate):
    """The lower bound of the difference to every negative control lies above ``min_above``."""

    min_above: float
    plan: Bootstrap
    code: ClassVar[str] = "RA003"
    title: ClassVar[str] = "Above every negative control"
    param: ClassVar[str | None] = "min_auroc_above_control"

    def check(self, evidence: Evidence) -> GateResult:
        """The control that comes nearest decides."""
        names = [name for name in evidence.risks if name.startswith("control:")]
        controls = {name: evidence.answered(name) for name in names}
        if not controls:
            return self._result(False, "No negative control was scored on the test part.")
        found = Pairing(evidence, self.plan).differences(controls)
        missing = sorted(controls.keys() - found.keys())
        if missing:
            return self._result(False, f"The test part does not define AUROC for {missing[0]}.")
        nearest = min(sorted(found), key=lambda name: found[name].ci_low)
        low = found[nearest].ci_low
        reason = (
            f"AUROC is {found[nearest].value:+.3f} against {nearest}, the nearest of "
            f"{len(found)} controls, at least {low:+.3f}."
        )
        return self._result(low > self.min_above, reason, low, self.min_above)


@dataclass(frozen=True)
class Calibrated(Gate):
    """The expected calibration error on the test part stays below ``max_ece``."""

    max_ece: float
    code: ClassVar[str] = "RA004"
    title: ClassVar[str] = "Calibrated on the test part"
    param: ClassVar[str | None] = "max_ece"

    def check(self, evidence: Evidence) -> GateResult:
        """Computed from the predictions themselves, not read from a report."""
        labels, risks = scored(evidence, evidence.challenger)
        if labels.size == 0:
            return self._result(False, "The challenger has no prediction on the test part.")
        value = ece(labels, risks)
        reason = f"Expected calibration error is {value:.3f} on {labels.size} cases."
        return self._result(value <= self.max_ece, reason, value, self.max_ece)
