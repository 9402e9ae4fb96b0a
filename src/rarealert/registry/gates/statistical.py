"""Labels and usable risks of one model on some of the test cases.

AUROC of two models on the cases both answered, with the interval of their difference.

Gates on what the model can do: against champion, teachers, shortcuts, and its calibration.

Comparisons ask for the lower bound of a paired interval, so the burden of proof lies with the
challenger: few cases make a wide interval, and a wide interval does not pass. A gate that
compares with several models needs all of its tests to hold, which wants no correction for their
number (intersection-union test: Berger, Technometrics 24:295, 1982).

Gates on those whom an average hides: Orphanet heads, sources, ages, sexes.

Figures of small cells are chance more than model, so small heads are judged together and other
small cells not at all; both are said in the reason.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from rarealert.evaluation.intervals import Bootstrap, Estimate
from rarealert.evaluation.metrics import UndefinedMetricError, auroc, measure
from rarealert.evaluation.report import why_absent
from rarealert.evaluation.study import Study, compare
from rarealert.registry.gates.gate import Gate, GateResult
from rarealert.registry.judged import Champion, Evidence

Floats = NDArray[np.float64]


def scored(
    evidence: Evidence, model: str, among: Iterable[str] | None = None
) -> tuple[Floats, Floats]:
    """Labels (1 rare) and risks 0-1 of the cases ``model`` answered, each of shape ``(n,)``."""
    risks = evidence.answered(model)
    ids = sorted(risks if among is None else risks.keys() & set(among))
    return (
        np.array([float(evidence.rare[key]) for key in ids]),
        np.array([risks[key] for key in ids], dtype=np.float64),
    )


def auroc_or_none(
    evidence: Evidence, model: str, among: Iterable[str] | None = None
) -> float | None:
    """AUROC on the cases answered, ``None`` where they do not define it."""
    labels, risks = scored(evidence, model, among)
    if labels.size == 0:
        return None
    try:
        return float(auroc(labels, risks))
    except UndefinedMetricError:
        return None


@dataclass(frozen=True)
class Pairing:
    """The challenger against others on one locked test part, by the same resamples."""

    evidence: Evidence
    plan: Bootstrap

    def differences(self, others: Mapping[str, Mapping[str, float]]) -> dict[str, Estimate]:
        """AUROC of the challenger minus that of each other model, by name.

        Whole diseases are resampled. A model is left out where the cases both answered do not
        define the difference.
        """
        if not others:
            return {}
        ids = sorted(self.evidence.rare)
        own = self.evidence.answered(self.evidence.challenger)
        risks = {name: _column(ids, risk) for name, risk in {**others, "": own}.items()}
        study = Study(
            labels=np.array([float(self.evidence.rare[key]) for key in ids]),
            clusters=np.array([self.evidence.disease[key] for key in ids]),
            risks=risks,
            thresholds={},
        )
        pairs = {name: ("", name) for name in others}
        found = compare(study, pairs, "auroc", self.plan)
        return {name: comparison.difference for name, comparison in found.items()}


def _column(ids: list[str], risks: Mapping[str, float]) -> NDArray[np.float64]:
    return np.array([risks.get(key, np.nan) for key in ids], dtype=np.float64)


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
        value = measure("ece", labels, risks)
        reason = f"Expected calibration error is {value:.3f} on {labels.size} cases."
        return self._result(value <= self.max_ece, reason, value, self.max_ece)


MIN_CELL = 10
"""Rare cases, and non-rare ones where the cell has them, that a figure must rest on."""

SMALL_HEADS = "the small heads together"
_KINDS = ("source", "age", "sex")


@dataclass(frozen=True)
class WorstHead(Gate):
    """Every Orphanet head is told from the non-rare cases better than the floor."""

    floor: float
    code: ClassVar[str] = "RA013"
    title: ClassVar[str] = "No Orphanet head is left behind"
    param: ClassVar[str | None] = "min_head_auroc"

    def check(self, evidence: Evidence) -> GateResult:
        """AUROC of each head's rare cases against all non-rare ones; the lowest decides."""
        heads = evidence.cells.get("head", {})
        sizes = Counter(heads.get(key, "") for key, rare in evidence.rare.items() if rare)
        large = {head for head, size in sizes.items() if head and size >= MIN_CELL}
        members: dict[str, list[str]] = {}
        for key, rare in evidence.rare.items():
            if rare:
                head = heads.get(key, "")
                members.setdefault(head if head in large else SMALL_HEADS, []).append(key)
        nonrare = [key for key, rare in evidence.rare.items() if not rare]
        found = {
            head: value
            for head, keys in members.items()
            if (value := auroc_or_none(evidence, evidence.challenger, keys + nonrare)) is not None
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
    """Every source, age band and sex with enough cases lies above the floor."""

    floor: float
    code: ClassVar[str] = "RA014"
    title: ClassVar[str] = "No source, age band or sex is left behind"
    param: ClassVar[str | None] = "min_subgroup_auroc"

    def check(self, evidence: Evidence) -> GateResult:
        """AUROC within each cell; the lowest decides."""
        found: dict[str, tuple[float, int]] = {}
        skipped = 0
        for kind in _KINDS:
            cells: dict[str, list[str]] = {}
            for key, cell in evidence.cells.get(kind, {}).items():
                cells.setdefault(cell, []).append(key)
            for cell, keys in cells.items():
                rare = sum(evidence.rare[key] for key in keys)
                value = auroc_or_none(evidence, evidence.challenger, keys)
                if min(rare, len(keys) - rare) < MIN_CELL or value is None:
                    skipped += 1
                else:
                    found[f"{kind} {cell}"] = (value, len(keys))
        if not found:
            return self._result(False, f"No subgroup has {MIN_CELL} cases of each label to judge.")
        worst = min(sorted(found), key=lambda name: found[name])
        value, n = found[worst]
        reason = (
            f"AUROC is {value:.3f} for {worst} (n = {n}), the lowest of {len(found)} subgroups; "
            f"{skipped} with fewer than {MIN_CELL} cases of a label were not judged."
        )
        return self._result(value >= self.floor, reason, value, self.floor)


@dataclass(frozen=True)
class EverySource(Gate):
    """Every source that was asked for is judged, on rare and on non-rare cases."""

    min_cases: int
    code: ClassVar[str] = "RA015"
    title: ClassVar[str] = "Every source is judged on both labels"
    param: ClassVar[str | None] = "min_test_cases_per_label"

    def check(self, evidence: Evidence) -> GateResult:
        """A source with one label only tells style from style, which looks like medicine."""
        usable = evidence.answered(evidence.challenger)
        counts = Counter(
            (source, evidence.rare[key])
            for key, source in evidence.cells.get("source", {}).items()
            if key in usable
        )
        wanted = sorted({*evidence.sources, *evidence.cells.get("source", {}).values()})
        fewest = {source: min(counts[source, True], counts[source, False]) for source in wanted}
        if not evidence.sources:
            return self._result(False, "No source is asked for in params.yaml.")
        worst = min(wanted, key=lambda source: fewest[source])
        unasked = sorted(set(wanted) - set(evidence.sources))
        value = float(fewest[worst])
        if unasked:
            reason = f"{unasked[0]} is judged but not asked for in ingest.sources."
            return self._result(False, reason, value, float(self.min_cases))
        reason = (
            f"{worst} has {counts[worst, True]} rare and {counts[worst, False]} non-rare cases "
            f"in the test part, the fewest of {len(wanted)} sources."
        )
        return self._result(value >= self.min_cases, reason, value, float(self.min_cases))
