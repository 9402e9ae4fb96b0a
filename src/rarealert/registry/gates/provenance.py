"""Gates on how the model came about: what it learnt from, who taught it, where it was cut."""

from dataclasses import dataclass
from typing import ClassVar

from rarealert.registry.evidence import Evidence
from rarealert.registry.gates.gate import Gate, GateResult
from rarealert.registry.gates.scored import auroc_or_none


@dataclass(frozen=True)
class ThresholdsFromValidation(Gate):
    """The packaged thresholds are those that the validation part gives."""

    max_difference: float
    code: ClassVar[str] = "RA016"
    title: ClassVar[str] = "Thresholds come from the validation part"
    param: ClassVar[str | None] = "max_threshold_difference"

    def check(self, evidence: Evidence) -> GateResult:
        """Each is chosen anew from the validation predictions; the largest difference decides."""
        gaps = {name: abs(used - found) for name, (used, found) in evidence.thresholds.items()}
        if not gaps:
            return self._result(False, "The student has no threshold, or validation none to give.")
        worst = max(sorted(gaps), key=lambda name: gaps[name])
        used, found = evidence.thresholds[worst]
        reason = f"{worst} is {used:.4f}, the validation part gives {found:.4f}."
        passed = gaps[worst] <= self.max_difference
        return self._result(passed, reason, gaps[worst], self.max_difference)


@dataclass(frozen=True)
class TrainedOnTrain(Gate):
    """The student learnt from the training part of this split and from nothing else."""

    code: ClassVar[str] = "RA017"
    title: ClassVar[str] = "The student was trained on the training part"

    def check(self, evidence: Evidence) -> GateResult:
        """The digests that the student noted while training against the parts on disk."""
        wrong = [part for part, (noted, held) in evidence.trained_on.items() if noted != held]
        if not evidence.trained_on:
            return self._result(False, "The student does not say what it was trained on.")
        if wrong:
            reason = f"It was trained on another {wrong[0]} part than this one; run dvc repro."
            return self._result(False, reason, float(len(wrong)), 0.0)
        said = " and ".join(evidence.trained_on)
        return self._result(True, f"It was trained on the {said} part of this split.", 0.0, 0.0)


@dataclass(frozen=True)
class NoTeacherKnows(Gate):
    """No teacher is so good that it must have seen the label."""

    max_auroc: float
    code: ClassVar[str] = "RA018"
    title: ClassVar[str] = "No teacher knows the answer"
    param: ClassVar[str | None] = "max_teacher_auroc"

    def check(self, evidence: Evidence) -> GateResult:
        """The best teacher by AUROC; one that was told passes its knowledge to the targets."""
        found = {
            name: value
            for name in evidence.risks
            if name.startswith("teacher:") and (value := auroc_or_none(evidence, name)) is not None
        }
        if not found:
            return self._result(False, "No teacher was scored on the test part.")
        best = max(sorted(found), key=lambda name: found[name])
        reason = f"The best of {len(found)} teachers is {best} with AUROC {found[best]:.3f}."
        return self._result(found[best] <= self.max_auroc, reason, found[best], self.max_auroc)


@dataclass(frozen=True)
class StagesCurrent(Gate):
    """The stages above ran with this code, these parameters and each other's outputs."""

    code: ClassVar[str] = "RA019"
    title: ClassVar[str] = "The stages above are up to date"

    def check(self, evidence: Evidence) -> GateResult:
        """What ``dvc.lock`` says each stage ran with, against the workspace."""
        if evidence.stale:
            named = ", ".join(evidence.stale[:3])
            reason = f"{len(evidence.stale)} changes since they ran: {named}; run dvc repro."
            return self._result(False, reason, float(len(evidence.stale)), 0.0)
        return self._result(True, "Each ran with this code, data and parameters.", 0.0, 0.0)
