"""Gates on the figures: against champion, teachers and controls, calibration, and subgroups.

Comparisons use the lower bound of a paired interval, so the burden of proof is on the challenger:
few cases make a wide interval, and a wide interval does not pass. A gate that compares with several
models requires all of its tests to hold, which needs no correction for their number
(intersection-union test: Berger, Technometrics 24:295, 1982).
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rarealert.evaluation.intervals import Bootstrap, Estimate
from rarealert.evaluation.metrics import measure
from rarealert.evaluation.predictions import STUDENT
from rarealert.evaluation.report import why_absent
from rarealert.evaluation.study import Study, compare
from rarealert.evaluation.subgroups import MIN_CELL
from rarealert.registry.gates.gate import Gate, GateResult
from rarealert.registry.judged import (
    Champion,
    GateInput,
    group_by_cell,
    is_judged_alone,
    rare_by_head,
)

_MIN_ANSWERED = 0.5  # share 0-1 of test cases that a teacher must answer to be compared with
_KINDS = ("source", "age", "sex")


def auroc_differences(
    given: GateInput, others: Mapping[str, Mapping[str, float]], plan: Bootstrap
) -> dict[str, Estimate]:
    """Return AUROC of the challenger minus that of each other model, by name.

    ``others`` is model → case → risk. Whole diseases are resampled, the same for every model. A
    model is left out where the cases that both answered do not define the difference.
    """
    if not others:
        return {}
    ids = sorted(given.rare)
    risks = {**others, STUDENT: given.answered()}
    study = Study(
        labels=np.array([float(given.rare[key]) for key in ids]),
        clusters=np.array([given.disease[key] for key in ids]),
        risks={
            name: np.array([own.get(key, np.nan) for key in ids], dtype=np.float64)
            for name, own in risks.items()
        },
        thresholds={},
    )
    found = compare(study, {name: (STUDENT, name) for name in others}, "auroc", plan)
    return {name: comparison.difference for name, comparison in found.items()}


@dataclass(frozen=True)
class NotBelowChampion(Gate):
    """The lower bound of AUROC(challenger) - AUROC(champion) is at least ``-max_loss``."""

    max_loss: float
    plan: Bootstrap
    code: ClassVar[str] = "RA001"
    title: ClassVar[str] = "Not worse than the champion"
    param: ClassVar[str | None] = "max_auroc_loss"

    def check(self, given: GateInput) -> GateResult:
        """Compare in pairs where the champion scored these cases, else with its AUROC."""
        champion = given.champion
        if champion is None:
            return self._result(True, "There is no champion yet to compare with.")
        if champion.same_as_challenger:
            return self._result(True, f"Version {champion.version} is the champion itself.")
        if given.rare.keys() <= champion.risks.keys():
            return self._paired(given, champion)
        return self._unpaired(given, champion)

    def _paired(self, given: GateInput, champion: Champion) -> GateResult:
        found = auroc_differences(given, {"champion": champion.risks}, self.plan)
        if not found:
            return self._result(False, "The test cases do not define the difference.")
        low = found["champion"].ci_low
        reason = (
            f"AUROC is {found['champion'].value:+.3f} against version {champion.version} on the "
            f"same {found['champion'].n} cases, at least {low:+.3f}."
        )
        return self._result(low >= -self.max_loss, reason, low, -self.max_loss)

    def _unpaired(self, given: GateInput, champion: Champion) -> GateResult:
        own = given.report["models"].get(STUDENT, {}).get("auroc")
        if own is None:
            why = why_absent(given.report, STUDENT, "auroc")
            return self._result(False, f"AUROC is not defined on the test part ({why}).")
        if champion.auroc is None:
            return self._result(False, f"Version {champion.version} has no AUROC to compare with.")
        low, floor = own["ci_low"], champion.auroc - self.max_loss
        reason = (
            f"Version {champion.version} was judged on other cases with AUROC "
            f"{champion.auroc:.3f}; the challenger reaches at least {low:.3f} on its own."
        )
        return self._result(low >= floor, reason, low, floor)


@dataclass(frozen=True)
class NearBestTeacher(Gate):
    """The lower bound of the difference to the best teacher is at least ``-max_below``."""

    max_below: float
    plan: Bootstrap
    code: ClassVar[str] = "RA002"
    title: ClassVar[str] = "Within the margin of the best teacher"
    param: ClassVar[str | None] = "max_auroc_below_best_teacher"

    def check(self, given: GateInput) -> GateResult:
        """Take the best teacher by AUROC among those that answered half of the cases."""
        aurocs = given.teacher_aurocs(_MIN_ANSWERED)
        if not aurocs:
            return self._result(False, "No teacher answered half of the test cases.")
        best = max(sorted(aurocs), key=lambda name: aurocs[name])
        found = auroc_differences(given, {best: given.answered(best)}, self.plan)
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
    """The lower bound of the difference to every negative control is above ``min_above``."""

    min_above: float
    plan: Bootstrap
    code: ClassVar[str] = "RA003"
    title: ClassVar[str] = "Above every negative control"
    param: ClassVar[str | None] = "min_auroc_above_control"

    def check(self, given: GateInput) -> GateResult:
        """Compare with every control; the nearest decides."""
        names = [name for name in given.risks if name.startswith("control:")]
        if not names:
            return self._result(False, "No negative control was scored on the test part.")
        controls = {name: given.answered(name) for name in names}
        found = auroc_differences(given, controls, self.plan)
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
    """The expected calibration error on the test part is at most ``max_ece``."""

    max_ece: float
    code: ClassVar[str] = "RA004"
    title: ClassVar[str] = "Calibrated on the test part"
    param: ClassVar[str | None] = "max_ece"

    def check(self, given: GateInput) -> GateResult:
        """Compute the error from the predictions, not from the report."""
        labels, risks = given.scored()
        if labels.size == 0:
            return self._result(False, "The challenger has no prediction on the test part.")
        value = measure("ece", labels, risks)
        reason = f"Expected calibration error is {value:.3f} on {labels.size} cases."
        return self._result(value <= self.max_ece, reason, value, self.max_ece)


@dataclass(frozen=True)
class WorstHead(Gate):
    """The rare cases of every Orphanet head are separated from the non-rare ones.

    Heads with few cases are judged together.
    """

    floor: float
    code: ClassVar[str] = "RA013"
    title: ClassVar[str] = "No Orphanet head is left behind"
    param: ClassVar[str | None] = "min_head_auroc"

    def check(self, given: GateInput) -> GateResult:
        """Compute AUROC of each head's rare cases against all non-rare ones; the lowest decides."""
        members = rare_by_head(given.rare, given.cells.get("head", {}))
        nonrare = [key for key, rare in given.rare.items() if not rare]
        found = {
            head: value
            for head, keys in members.items()
            if (value := given.auroc(among=keys + nonrare)) is not None
        }
        if not found or found.keys() != members.keys():
            return self._result(False, "The predictions do not define an AUROC for every head.")
        worst = min(sorted(found), key=lambda head: found[head])
        reason = (
            f"AUROC is {found[worst]:.3f} for {worst} (n = {len(members[worst])} rare), the lowest "
            f"of {len(found)}; heads with fewer than {MIN_CELL} rare cases are judged together."
        )
        return self._result(found[worst] >= self.floor, reason, found[worst], self.floor)


@dataclass(frozen=True)
class WorstSubgroup(Gate):
    """Rare and non-rare cases are separated in every source, age band and sex.

    Subgroups with few cases are not judged.
    """

    floor: float
    code: ClassVar[str] = "RA014"
    title: ClassVar[str] = "No source, age band or sex is left behind"
    param: ClassVar[str | None] = "min_subgroup_auroc"

    def check(self, given: GateInput) -> GateResult:
        """Compute AUROC within each cell; the lowest decides."""
        cells = {
            f"{kind} {cell}": keys
            for kind in _KINDS
            for cell, keys in group_by_cell(given.cells.get(kind, {})).items()
        }
        found = {
            name: value
            for name, keys in cells.items()
            if is_judged_alone(given.rare, keys) and (value := given.auroc(among=keys)) is not None
        }
        if not found:
            return self._result(False, f"No subgroup has {MIN_CELL} cases of each label to judge.")
        worst = min(sorted(found), key=lambda name: found[name])
        reason = (
            f"AUROC is {found[worst]:.3f} for {worst} (n = {len(cells[worst])}), the lowest of "
            f"{len(found)} subgroups; {len(cells) - len(found)} with fewer than {MIN_CELL} cases "
            "of a label were not judged."
        )
        return self._result(found[worst] >= self.floor, reason, found[worst], self.floor)


@dataclass(frozen=True)
class EverySource(Gate):
    """Every configured source is judged, on rare and on non-rare cases."""

    min_cases: int
    code: ClassVar[str] = "RA015"
    title: ClassVar[str] = "Every source is judged on both labels"
    param: ClassVar[str | None] = "min_test_cases_per_label"

    def check(self, given: GateInput) -> GateResult:
        """Count answered cases by source and label.

        A source with one label measures differences of style, which look like medicine.
        """
        if not given.sources:
            return self._result(False, "params.yaml names no source in ingest.sources.")
        source_of, usable = given.cells.get("source", {}), given.answered()
        counts = Counter((source_of[key], given.rare[key]) for key in usable if key in source_of)
        sources = sorted({*given.sources, *source_of.values()})
        fewest = {source: min(counts[source, True], counts[source, False]) for source in sources}
        worst = min(sources, key=lambda source: fewest[source])
        value, floor = float(fewest[worst]), float(self.min_cases)
        unconfigured = sorted(set(sources) - set(given.sources))
        if unconfigured:
            reason = f"{unconfigured[0]} has test cases but is not in ingest.sources."
            return self._result(False, reason, value, floor)
        reason = (
            f"{worst} has {counts[worst, True]} rare and {counts[worst, False]} non-rare cases "
            f"in the test part, the fewest of {len(sources)} sources."
        )
        return self._result(value >= floor, reason, value, floor)
