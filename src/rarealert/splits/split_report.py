"""The report of a finished split, as JSON and as a page: leaks, dates and counts, no case text."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from rarealert.splits.leakage import (
    SET_ASIDE,
    Duplicate,
    cases_to_move,
    count_leaks,
    disease_keys,
    patient_keys,
    same_disease,
)
from rarealert.splits.parts import PARTS, RegisteredSplit, Rule, Shares, assign
from rarealert.templates import render_template
from rarealert.visits.case import LabelledCase

Json = dict[str, Any]


@dataclass(frozen=True)
class Split:
    """A finished split: the part of each case, the tied groups, and how the parts were decided."""

    cases: Sequence[LabelledCase]
    parts: Sequence[str]
    groups: Sequence[Sequence[int]]
    duplicates: Sequence[Duplicate]
    rule: Rule
    registered: RegisteredSplit | None = None


def leakage_report(split: Split, shares: Shares, seed: int, near_duplicate_jaccard: float) -> Json:
    """Compute the content of ``leakage.json``.

    Every count that ends in ``_on_two_sides`` is a leak. Near-duplicate pairs are those that
    ``near_duplicates`` returns. ``if_split_by_disease_alone`` counts what ties by text and
    patient prevented, and how many cases had to move for it.
    """
    cases, parts = split.cases, split.parts
    alone = assign(cases, same_disease(cases), shares, seed)
    cut = count_leaks(cases, alone, split.duplicates)
    patients = Counter(key for item in cases for key in patient_keys(item))
    return {
        **count_leaks(cases, parts, split.duplicates),
        "if_split_by_disease_alone": {
            "cases_to_move": cases_to_move(split.groups, alone),
            "near_duplicate_pairs_cut": cut["near_duplicate_pairs_on_two_sides"],
            "patients_cut": cut["patients_on_two_sides"],
        },
        "made_by": _made_by(split),
        "near_duplicate_jaccard": near_duplicate_jaccard,
        "near_duplicate_pairs": len(split.duplicates),
        "near_duplicate_pairs_of_two_diseases": sum(
            not set(disease_keys(cases[pair.first])) & set(disease_keys(cases[pair.second]))
            for pair in split.duplicates
        ),
        "patients_with_several_visits": sum(count > 1 for count in patients.values()),
        "cases_with_patient_id": sum(patients.values()),
        "dates": date_report(cases, parts, split.rule),
        "diseases": len({item.label.disease_id for item in cases}),
        "groups": len(split.groups),
        "largest_group": max(len(group) for group in split.groups),
        "set_aside": sum(part == SET_ASIDE for part in parts),
        "cases": counts_by_part(cases, parts),
        "heads": heads_by_part(cases, parts),
    }


def _made_by(split: Split) -> Json:
    if split.registered is not None:
        return {
            "kind": "registered",
            "sha256": split.registered.sha256,
            "rows_without_a_case": split.registered.absent,
        }
    name = {"name": split.rule.name} if split.rule.holds_out else {}
    return {"kind": split.rule.kind, **name}


def date_report(cases: Sequence[LabelledCase], parts: Sequence[str], rule: Rule) -> Json:
    """Dated visits and the cut of each source with dates.

    ``learnt_after_first_test`` counts visits of train and valid that are not older than the first
    visit of the test part: no leak by itself, but no test on the future either.
    """
    days: dict[str, list[tuple[str, date]]] = {}
    for item, part in zip(cases, parts, strict=True):
        if item.case.visit_date is not None:
            days.setdefault(item.case.source, []).append((part, item.case.visit_date))
    found: Json = {}
    for source, dated in sorted(days.items()):
        first = min((day for part, day in dated if part == "test"), default=date.max)
        cut = rule.cuts.get(source)
        found[source] = {
            "dated": len(dated),
            "cut": cut.isoformat() if cut else None,
            "learnt_after_first_test": sum(
                day >= first for part, day in dated if part in ("train", "valid")
            ),
        }
    return found


def counts_by_part(
    cases: Sequence[LabelledCase], parts: Sequence[str]
) -> dict[str, dict[str, dict[str, int]]]:
    """Cases by part, source and label; parts in the order of ``PARTS``, then those set aside."""
    table: dict[str, dict[str, dict[str, int]]] = {part: {} for part in PARTS}
    for item, part in zip(cases, parts, strict=True):
        labels = table.setdefault(part, {}).setdefault(item.case.source, {})
        labels[item.label.label] = labels.get(item.label.label, 0) + 1
    return table


def heads_by_part(cases: Sequence[LabelledCase], parts: Sequence[str]) -> dict[str, dict[str, int]]:
    """Rare cases of each Orphanet head by part; empty if no case has a head."""
    table: dict[str, dict[str, int]] = {}
    for item, part in zip(cases, parts, strict=True):
        if item.label.orphanet_head is not None:
            of_head = table.setdefault(item.label.orphanet_head, dict.fromkeys(PARTS, 0))
            of_head[part] = of_head.get(part, 0) + 1
    return dict(sorted(table.items()))


def render_split_page(report: Mapping[str, Any], lock: Mapping[str, Any]) -> str:
    """Render ``leakage.json`` and ``lock.json`` as an HTML page."""
    leaks = {key: count for key, count in report.items() if key.endswith("_on_two_sides")}
    return render_template(
        Path(__file__).parent / "split_page.html.j2",
        report=report,
        lock=lock,
        leaks=leaks,
        parts=[part for part in (*PARTS, SET_ASIDE) if report["cases"].get(part)],
        sources=sorted({source for labels in report["cases"].values() for source in labels}),
    )
