"""Gates on where the figures come from: the right cases, honest targets, and nothing leaked.

Gates on how the model came about: what it learnt from, who taught it, where it was cut.
"""

from dataclasses import dataclass
from typing import ClassVar

from rarealert.evaluation.metrics import UndefinedMetricError, auroc
from rarealert.registry.gates.gate import Gate, GateResult
from rarealert.registry.gates.statistical import auroc_or_none
from rarealert.registry.judged import Evidence

_REPORT_TOLERANCE = 1e-6  # a report keeps more digits than that


@dataclass(frozen=True)
class LockedTest(Gate):
    """The challenger was scored on the locked test part, all of it, and nothing leaked into it."""

    code: ClassVar[str] = "RA005"
    title: ClassVar[str] = "Judged on the whole locked test part, without leaks"

    def check(self, evidence: Evidence) -> GateResult:
        """Digest against lock, predictions against cases, and the leakage report."""
        scored = evidence.risks.get(evidence.challenger, {})
        usable = evidence.answered(evidence.challenger).keys()
        wrong = (evidence.rare.keys() | scored.keys()) - usable
        if evidence.test_digest != evidence.test_lock:
            reason = "The test part on disk is not the one the split locked."
        elif wrong:
            reason = f"{len(wrong)} test cases have no usable prediction, or are no test cases."
        elif evidence.leaks:
            reason = f"The leakage report is not clean: {'; '.join(evidence.leaks)}."
        else:
            reason = f"All {len(scored)} locked test cases were scored; no leak was found."
            return self._result(True, reason, 0.0, 0.0)
        return self._result(False, reason, float(len(wrong)), 0.0)


@dataclass(frozen=True)
class TargetsOutOfFold(Gate):
    """Every training target was predicted by a model that had not seen its case."""

    code: ClassVar[str] = "RA006"
    title: ClassVar[str] = "Training targets are out-of-fold"

    def check(self, evidence: Evidence) -> GateResult:
        """Every target names its fold, and no target belongs to another part."""
        folds = evidence.target_folds
        bare = [key for key, fold in folds.items() if fold is None]
        foreign = folds.keys() - evidence.train_cases
        if not folds:
            return self._result(False, "There is no training target to check.")
        if bare or foreign:
            reason = (
                f"{len(bare)} targets name no fold and {len(foreign)} belong to cases outside "
                "the training part."
            )
            return self._result(False, reason, float(len(bare) + len(foreign)), 0.0)
        return self._result(True, f"All {len(folds)} training targets name their fold.", 0.0, 0.0)


@dataclass(frozen=True)
class NoCaseText(Gate):
    """No tracked artifact holds eight words in a row of a case."""

    code: ClassVar[str] = "RA009"
    title: ClassVar[str] = "No case text in tracked artifacts"

    def check(self, evidence: Evidence) -> GateResult:
        """The files are named; what they hold is not."""
        hits = evidence.scan.hits
        if evidence.scan.files == 0:
            return self._result(False, "No artifact was found to search.")
        if hits:
            named = ", ".join(sorted(hits)[:3])
            reason = f"Case text stands in {len(hits)} artifacts: {named}. Delete them."
            return self._result(False, reason, float(len(hits)), 0.0)
        return self._result(True, "No artifact holds eight words in a row of a case.", 0.0, 0.0)


@dataclass(frozen=True)
class InputsPinned(Gate):
    """What the stage read is byte for byte what ``dvc.lock`` pins."""

    code: ClassVar[str] = "RA010"
    title: ClassVar[str] = "Inputs match dvc.lock"

    def check(self, evidence: Evidence) -> GateResult:
        """The stage's own entry is written after it ends and is not asked for."""
        inputs = evidence.inputs
        wrong = inputs.changed + inputs.unpinned
        if not inputs.locked:
            return self._result(False, "There is no dvc.lock; run the stage with dvc repro.")
        if wrong:
            reason = (
                f"{', '.join(wrong[:3])} differ from dvc.lock or are not pinned there; "
                "run dvc repro."
            )
            return self._result(False, reason, float(len(wrong)), 0.0)
        return self._result(True, f"All {inputs.checked} inputs match dvc.lock.", 0.0, 0.0)


@dataclass(frozen=True)
class CleanTree(Gate):
    """Code and parameters are those of a commit.

    ``reports/`` and ``dvc.lock`` do not count: ``dvc repro`` rewrites them while it runs, and
    their content is checked by other gates.
    """

    code: ClassVar[str] = "RA011"
    title: ClassVar[str] = "Code and parameters are committed"

    def check(self, evidence: Evidence) -> GateResult:
        """Changed and untracked files are named."""
        if evidence.dirty is None:
            return self._result(False, "This is no git repository, so no commit can be named.")
        if evidence.dirty:
            named = ", ".join(evidence.dirty[:3])
            reason = f"{len(evidence.dirty)} files differ from the commit: {named}. Commit them."
            return self._result(False, reason, float(len(evidence.dirty)), 0.0)
        return self._result(True, "Code and parameters are those of the commit.", 0.0, 0.0)


@dataclass(frozen=True)
class ReportTrue(Gate):
    """The report a reviewer reads was made from these predictions."""

    code: ClassVar[str] = "RA012"
    title: ClassVar[str] = "The evaluation report belongs to these predictions"

    def check(self, evidence: Evidence) -> GateResult:
        """AUROC and number of cases, computed anew, against the report's."""
        risks = evidence.answered(evidence.challenger)
        ids = sorted(risks)
        if not ids:
            return self._result(False, "The challenger has no prediction on the test part.")
        try:
            told = evidence.reported["models"][evidence.challenger]["auroc"]
            found = auroc([float(evidence.rare[key]) for key in ids], [risks[key] for key in ids])
        except KeyError:
            return self._result(False, "The report has no AUROC of the challenger.")
        except UndefinedMetricError:
            return self._result(False, "The predictions do not define an AUROC.")
        gap = abs(found - float(told["value"]))
        if gap > _REPORT_TOLERANCE or told["n"] != len(ids):
            reason = (
                f"The report says AUROC {told['value']:.4f} on {told['n']} cases, the predictions "
                f"give {found:.4f} on {len(ids)}; run dvc repro evaluate."
            )
            return self._result(False, reason, gap, _REPORT_TOLERANCE)
        reason = f"The report's AUROC is that of the {len(ids)} predictions."
        return self._result(True, reason, gap, _REPORT_TOLERANCE)


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
