"""Gates on the origin of the figures: the right cases, honest targets, no leak, pinned inputs."""

from dataclasses import dataclass
from typing import ClassVar

from rarealert.evaluation.predictions import STUDENT
from rarealert.registry.gates.gate import Gate, GateResult, first_few
from rarealert.registry.judged import GateInput

_REPORT_TOLERANCE = 1e-6  # the report keeps more digits than that


@dataclass(frozen=True)
class LockedTest(Gate):
    """The challenger was scored on the whole locked test part, and nothing leaked into it."""

    code: ClassVar[str] = "RA005"
    title: ClassVar[str] = "Judged on the whole locked test part, without leaks"

    def check(self, given: GateInput) -> GateResult:
        """Compare digest with lock and predictions with cases; read the leakage report."""
        scored = given.risks.get(STUDENT, {})
        wrong = (given.rare.keys() | scored.keys()) - given.answered().keys()
        if given.test_digest != given.test_lock:
            reason = "The test part on disk differs from the one that the split locked."
        elif wrong:
            reason = f"{len(wrong)} cases have no usable prediction or are not in the test part."
        elif given.leaks:
            reason = f"The leakage report is not clean: {'; '.join(given.leaks)}."
        else:
            reason = f"All {len(scored)} locked test cases were scored; no leak was found."
            return self._result(True, reason, 0.0, 0.0)
        return self._result(False, reason, float(len(wrong)), 0.0)


@dataclass(frozen=True)
class TargetsOutOfFold(Gate):
    """Every training target was predicted by a model that was not trained on its case."""

    code: ClassVar[str] = "RA006"
    title: ClassVar[str] = "Training targets are out-of-fold"

    def check(self, given: GateInput) -> GateResult:
        """Count targets without a fold and targets of cases outside the training part."""
        folds = given.target_folds
        if not folds:
            return self._result(False, "There is no training target to check.")
        bare = [key for key, fold in folds.items() if fold is None]
        foreign = folds.keys() - given.train_cases
        return self._count(
            [*bare, *foreign],
            f"All {len(folds)} training targets name their fold.",
            f"{len(bare)} targets name no fold and {len(foreign)} belong to cases outside the "
            "training part.",
        )


@dataclass(frozen=True)
class NoCaseText(Gate):
    """No tracked artifact contains eight consecutive words of a case."""

    code: ClassVar[str] = "RA009"
    title: ClassVar[str] = "No case text in tracked artifacts"

    def check(self, given: GateInput) -> GateResult:
        """Name the files, never their content."""
        hits = given.scan.hits
        if given.scan.files == 0:
            return self._result(False, "No artifact was found to search.")
        return self._count(
            hits,
            "No artifact contains eight consecutive words of a case.",
            f"{len(hits)} artifacts contain case text: {first_few(hits)}. Delete them.",
        )


@dataclass(frozen=True)
class InputsPinned(Gate):
    """The inputs of the stage are byte for byte what ``dvc.lock`` pins."""

    code: ClassVar[str] = "RA010"
    title: ClassVar[str] = "Inputs match dvc.lock"

    def check(self, given: GateInput) -> GateResult:
        """Compare with the pins of the stages above; the stage's own are written after it ends."""
        state = given.workspace
        if state.fault is not None:
            return self._result(False, state.fault)
        wrong = state.changed + state.unpinned
        return self._count(
            wrong,
            f"All {len(state.inputs)} inputs match dvc.lock.",
            f"{first_few(wrong)} differ from dvc.lock or are not pinned there; run dvc repro.",
        )


@dataclass(frozen=True)
class CleanTree(Gate):
    """Code and parameters are those of a commit.

    ``reports/`` and ``dvc.lock`` do not count: ``dvc repro`` rewrites them while it runs, and
    other gates check their content.
    """

    code: ClassVar[str] = "RA011"
    title: ClassVar[str] = "Code and parameters are committed"

    def check(self, given: GateInput) -> GateResult:
        """Name changed and untracked files."""
        if given.dirty is None:
            return self._result(False, "This is not a git repository, so it has no commit.")
        return self._count(
            given.dirty,
            "Code and parameters are those of the commit.",
            f"{len(given.dirty)} files differ from the commit: {first_few(given.dirty)}. "
            "Commit them.",
        )


@dataclass(frozen=True)
class ReportTrue(Gate):
    """The evaluation report was made from these predictions."""

    code: ClassVar[str] = "RA012"
    title: ClassVar[str] = "The evaluation report belongs to these predictions"

    def check(self, given: GateInput) -> GateResult:
        """Recompute AUROC and the number of cases, and compare them with the report's."""
        n = len(given.answered())
        if not n:
            return self._result(False, "The challenger has no prediction on the test part.")
        reported = given.report.get("models", {}).get(STUDENT, {}).get("auroc")
        if reported is None:
            return self._result(False, "The report has no AUROC of the challenger.")
        found = given.auroc()
        if found is None:
            return self._result(False, "The predictions do not define an AUROC.")
        gap = abs(found - float(reported["value"]))
        if gap > _REPORT_TOLERANCE or reported["n"] != n:
            reason = (
                f"The report has AUROC {reported['value']:.4f} on {reported['n']} cases, the "
                f"predictions give {found:.4f} on {n}; run dvc repro evaluate."
            )
            return self._result(False, reason, gap, _REPORT_TOLERANCE)
        reason = f"The report's AUROC is that of the {n} predictions."
        return self._result(True, reason, gap, _REPORT_TOLERANCE)


@dataclass(frozen=True)
class ThresholdsFromValidation(Gate):
    """The packaged thresholds are those that the validation part gives."""

    max_difference: float
    code: ClassVar[str] = "RA016"
    title: ClassVar[str] = "Thresholds come from the validation part"
    param: ClassVar[str | None] = "max_threshold_difference"

    def check(self, given: GateInput) -> GateResult:
        """Choose each again from the validation predictions; the largest difference decides."""
        gaps = {name: abs(used - found) for name, (used, found) in given.thresholds.items()}
        if not gaps:
            reason = "The student has no threshold, or the validation part defines none."
            return self._result(False, reason)
        worst = max(sorted(gaps), key=lambda name: gaps[name])
        used, found = given.thresholds[worst]
        reason = f"{worst} is {used:.4f}, the validation part gives {found:.4f}."
        passed = gaps[worst] <= self.max_difference
        return self._result(passed, reason, gaps[worst], self.max_difference)


@dataclass(frozen=True)
class TrainedOnTrain(Gate):
    """The student was trained on the training part of this split and on nothing else."""

    code: ClassVar[str] = "RA017"
    title: ClassVar[str] = "The student was trained on the training part"

    def check(self, given: GateInput) -> GateResult:
        """Compare the digests recorded at training with the parts on disk."""
        if not given.trained_on:
            return self._result(False, "The student does not record what it was trained on.")
        wrong = [part for part, (noted, held) in given.trained_on.items() if noted != held]
        return self._count(
            wrong,
            "The recorded training and validation parts are the current ones.",
            f"It was trained on another {' and '.join(wrong)} part; run dvc repro distil.",
        )


@dataclass(frozen=True)
class NoTeacherKnows(Gate):
    """No teacher is so good that it must have seen the label."""

    max_auroc: float
    code: ClassVar[str] = "RA018"
    title: ClassVar[str] = "No teacher knows the answer"
    param: ClassVar[str | None] = "max_teacher_auroc"

    def check(self, given: GateInput) -> GateResult:
        """Compare the best teacher's AUROC: a leaked label would pass into the targets."""
        found = given.teacher_aurocs()
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

    def check(self, given: GateInput) -> GateResult:
        """Compare the workspace with what ``dvc.lock`` records of each stage."""
        state = given.workspace
        if state.fault is not None:
            return self._result(False, state.fault)
        return self._count(
            state.stale,
            "Each ran with the current code, data and parameters.",
            f"{len(state.stale)} changes since they ran: {first_few(state.stale)}; run dvc repro.",
        )
