"""Gates on those whom an average hides: Orphanet heads, sources, ages, sexes.

Figures of small cells are chance more than model, so small heads are judged together and other
small cells not at all; both are said in the reason.
"""

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from rarealert.registry.evidence import Evidence
from rarealert.registry.gates.gate import Gate, GateResult
from rarealert.registry.gates.scored import auroc_or_none

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
