"""A team's own cases: JSONL with one case a line, nested or flat.

Nested is ``{"case": {…}, "label": {…}}``; flat holds the fields of ``Case`` and ``Label`` side by
side, as the columns of ``cases.parquet`` do. ``source`` may be left out and is then ``table``; a
null is the same as an absent field.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from rarealert.cases.case import Case, Label
from rarealert.cases.render import render
from rarealert.cases.sources.diagnosis import names_diagnosis
from rarealert.cases.sources.files import json_lines
from rarealert.cases.sources.refused import Place, Read, Reader, Refused, build_case, harmless

FILE = "cases.jsonl"
_NESTED = {"case", "label"}
_FLAT = set(Case.model_fields) | set(Label.model_fields)


def _read(source: str, folder: Path) -> Iterator[Read]:
    for number, row in json_lines(folder / FILE):
        place = Place(source, FILE, number)
        if isinstance(row, str):
            yield place.refuse("line", row)
        else:
            yield _labelled(place, row)


def _labelled(place: Place, row: dict[str, object]) -> Read:
    nested = "case" in row or isinstance(row.get("label"), dict)
    known = _NESTED if nested else _FLAT
    unknown = sorted(row.keys() - known)
    if unknown:
        return place.refuse(harmless(unknown[0]), "unknown field")
    if not nested:
        return _built(
            place,
            {name: row[name] for name in Case.model_fields if name in row},
            {name: row[name] for name in Label.model_fields if name in row},
        )
    case, label = row.get("case"), row.get("label")
    if not isinstance(case, dict):
        return place.refuse("case", "not a JSON object")
    if not isinstance(label, dict):
        return place.refuse("label", "not a JSON object")
    return _built(place, case, label)


def _built(place: Place, case: dict[str, object], label: dict[str, object]) -> Read:
    named = {"source": place.source, **case}
    if place.source != "table" and named["source"] != place.source:
        return place.refuse("case.source", f"not {place.source}")
    built = build_case(place, named, label)
    if isinstance(built, Refused):
        return built
    if names_diagnosis(render(built.case), [built.label.disease_name]):
        return place.refuse("case", "the diagnosis stands in the text", "diagnosis_in_text")
    return built


def reader(source: str) -> Reader:
    """A reader of ``cases.jsonl`` whose cases belong to ``source``."""
    return partial(_read, source)
