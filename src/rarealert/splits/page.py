"""What was checked on a finished split, as plain data and as a page; ids and counts only."""

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
    patient_key,
    same_disease,
)
from rarealert.splits.parts import (
    PARTS,
    CutByDate,
    HeldOutHead,
    HeldOutSource,
    RegisteredSplit,
    Rule,
    Shares,
    assign,
    counts_by_part,
)
from rarealert.templates import render_template
from rarealert.visits.case import LabelledCase

Json = dict[str, Any]


@dataclass(frozen=True)
class Split:
    """A finished split: the part of each case, what ties cases, and how it came about."""

    cases: Sequence[LabelledCase]
    parts: Sequence[str]
    groups: Sequence[Sequence[int]]
    duplicates: Sequence[Duplicate]
    rule: Rule
    registered: RegisteredSplit | None


def leakage_report(split: Split, shares: Shares, seed: int, near_duplicate_jaccard: float) -> Json:
    """The whole of ``leakage.json``.

    Every count that ends in ``_on_two_sides`` is a leak. Of near-duplicate pairs only those are
    counted that ``near_duplicates`` keeps. ``if_split_by_disease_alone`` says what
    ties by text and patient prevented, and how many cases had to move for it.
    """
    cases, parts = split.cases, split.parts
    alone = assign(cases, same_disease(cases), shares, seed)
    patients = Counter(key for item in cases if (key := patient_key(item)))
    return {
        **count_leaks(cases, parts, split.duplicates),
        "if_split_by_disease_alone": {
            "cases_to_move": cases_to_move(split.groups, alone),
            "near_duplicate_pairs_cut": count_leaks(cases, alone, split.duplicates)[
                "near_duplicate_pairs_on_two_sides"
            ],
            "patients_cut": count_leaks(cases, alone, ())["patients_on_two_sides"],
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
    if isinstance(split.rule, HeldOutSource):
        return {"kind": "held_out_source", "name": split.rule.source}
    if isinstance(split.rule, HeldOutHead):
        return {"kind": "held_out_head", "name": split.rule.head}
    cut = isinstance(split.rule, CutByDate) and split.rule.cuts
    return {"kind": "by_date" if cut else "drawn"}


def date_report(cases: Sequence[LabelledCase], parts: Sequence[str], rule: Rule) -> Json:
    """By source with dates: dated visits, the cut, and what was learnt from after testing began.

    ``learnt_after_first_test`` counts visits of train and valid that are not older than the first
    visit of the test part: no leak by itself, but no test of the future either.
    """
    found: Json = {}
    for source in sorted({item.case.source for item in cases}):
        days: dict[str, list[date]] = {part: [] for part in (*PARTS, SET_ASIDE)}
        for item, part in zip(cases, parts, strict=True):
            if item.case.source == source and item.case.visit_date is not None:
                days[part].append(item.case.visit_date)
        dated = sum(map(len, days.values()))
        if not dated:
            continue
        first = min(days["test"], default=date.max)
        cut = rule.cuts.get(source) if isinstance(rule, CutByDate) else None
        found[source] = {
            "dated": dated,
            "cut": cut.isoformat() if cut else None,
            "learnt_after_first_test": sum(
                day >= first for part in ("train", "valid") for day in days[part]
            ),
        }
    return found


def heads_by_part(cases: Sequence[LabelledCase], parts: Sequence[str]) -> dict[str, dict[str, int]]:
    """Rare cases of each Orphanet head by part; empty where no source names heads."""
    table: dict[str, dict[str, int]] = {}
    for item, part in zip(cases, parts, strict=True):
        if item.label.orphanet_head is not None:
            of_head = table.setdefault(item.label.orphanet_head, dict.fromkeys(PARTS, 0))
            of_head[part] = of_head.get(part, 0) + 1
    return dict(sorted(table.items()))


def render_split_page(report: Mapping[str, Any], lock: Mapping[str, Any]) -> str:
    """``leakage.json`` and ``lock.json`` for a reader."""
    leaks = {key: count for key, count in report.items() if key.endswith("_on_two_sides")}
    return render_template(
        Path(__file__).parent / "split_page.html.j2",
        report=report,
        lock=lock,
        leaks=leaks,
        parts=[part for part in (*PARTS, SET_ASIDE) if report["cases"].get(part)],
        sources=sorted({source for labels in report["cases"].values() for source in labels}),
    )
