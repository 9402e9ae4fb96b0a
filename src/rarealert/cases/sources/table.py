"""A team's own cases: JSONL, CSV or Parquet, one case a row, with or without a column map.

Without a map the columns are the fields of ``Case`` and ``Label`` side by side, as in
``cases.parquet``; JSONL may also hold them nested, ``{"case": {…}, "label": {…}}``. Instead of a
label a row may hold a ``diagnosis`` in words or a ``diagnosis_code``, from which it is resolved.
``source`` may be left out and is then ``table``; a null is the same as an absent field.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rarealert.cases.case import Case, Label
from rarealert.cases.sources import columns
from rarealert.cases.sources.columns import DIAGNOSIS_FIELDS, ColumnMap, load_columns
from rarealert.cases.sources.diagnosis import disease_key
from rarealert.cases.sources.files import Tick, no_tick
from rarealert.cases.sources.refused import (
    Place,
    Read,
    Reader,
    Refused,
    build_label,
    build_visit,
    harmless,
)
from rarealert.cases.sources.rows import KINDS, Row, rows
from rarealert.cases.sources.visits import Diagnosis, Visit, VisitLabeller, without_diagnosis
from rarealert.errors import BadInputError

NAME = "cases"
_NESTED = {"case", "label"}
_CODES = re.compile(r"[\s;|,]+")
_LISTS = ("findings_present", "findings_excluded")


@dataclass(frozen=True)
class _Parts:
    """A row taken apart: the visit, the label it brings, and the diagnosis it names."""

    visit: Mapping[str, object]
    label: Mapping[str, object] = field(default_factory=dict)
    diagnosis: Diagnosis | None = None


def table_file(folder: Path) -> Path:
    """The one table in ``folder``.

    Raises:
        BadInputError: there is none, or several.
    """
    found = sorted(folder / f"{NAME}{ending}" for ending in set(KINDS.values()))
    there = [path for path in found if path.is_file()]
    if len(there) != 1:
        raise BadInputError(
            f"{folder} holds {len(there)} of {', '.join(path.name for path in found)}; "
            "import the table again: rarealert data import table PATH."
        )
    return there[0]


def read_visits(
    path: Path, tick: Tick = no_tick, source: str = "table"
) -> Iterator[Visit | Refused]:
    """Every row of the file ``path`` as a visit; a label is passed over, a diagnosis is kept.

    A ``columns.yaml`` beside ``path`` is its column map.

    Raises:
        BadInputError: the file can't be read at all, or its columns are not those of the map.
    """
    for place, parts in _rows(path, tick, source):
        if isinstance(parts, Refused):
            yield parts
            continue
        case = build_visit(place, parts.visit)
        if isinstance(case, Refused):
            yield case
        else:
            yield Visit(place, case, (parts.diagnosis,) if parts.diagnosis else ())


def _read(source: str, folder: Path, tick: Tick = no_tick) -> Iterator[Read]:
    labeller = VisitLabeller(folder)
    for place, parts in _rows(table_file(folder), tick, source):
        yield parts if isinstance(parts, Refused) else _labelled(place, parts, labeller)


def _rows(path: Path, tick: Tick, source: str) -> Iterator[tuple[Place, _Parts | Refused]]:
    beside = path.parent / columns.FILE
    mapped = load_columns(beside) if beside.is_file() else None
    for number, row in rows(path, tick):
        place = Place(source, path.name, number)
        if isinstance(row, str):
            yield place, place.refuse("row" if path.suffix == ".parquet" else "line", row)
        else:
            yield place, _taken_apart(place, row, mapped)


def _taken_apart(place: Place, row: Row, mapped: ColumnMap | None) -> _Parts | Refused:
    if mapped is not None:
        unknown = mapped.unknown(frozenset(row))
        if unknown is not None:
            return place.refuse(harmless(unknown), "a column that the column map does not name")
        return _flat(place, mapped.fields(row))
    if "case" in row or isinstance(row.get("label"), dict):
        return _nested(place, row)
    return _flat(place, row)


def _flat(place: Place, row: Row) -> _Parts | Refused:
    unknown = sorted(row.keys() - set(columns.FIELDS))
    if unknown:
        return place.refuse(harmless(unknown[0]), "unknown field")
    visit = {name: _listed(name, row[name]) for name in Case.model_fields if name in row}
    label = {name: row[name] for name in Label.model_fields if row.get(name) is not None}
    name, code = (row.get(field) for field in DIAGNOSIS_FIELDS)
    for field_name, value in zip(DIAGNOSIS_FIELDS, (name, code), strict=True):
        if value is not None and not isinstance(value, str):
            return place.refuse(field_name, "not a text")
    named = isinstance(name, str) and name.strip()
    coded = isinstance(code, str) and code.strip()
    diagnosis = Diagnosis(
        str(name).strip() if named else None, (str(code).strip(),) if coded else ()
    )
    return _checked(place, visit, label, diagnosis if named or coded else None)


def _nested(place: Place, row: Row) -> _Parts | Refused:
    unknown = sorted(row.keys() - _NESTED)
    if unknown:
        return place.refuse(harmless(unknown[0]), "unknown field")
    case, label = row.get("case"), row.get("label")
    if not isinstance(case, dict):
        return place.refuse("case", "not a JSON object")
    if label is not None and not isinstance(label, dict):
        return place.refuse("label", "not a JSON object")
    return _checked(place, case, label or {}, None)


def _checked(place: Place, visit: Row, label: Row, diagnosis: Diagnosis | None) -> _Parts | Refused:
    named = {"source": place.source, **{k: v for k, v in visit.items() if v is not None}}
    if place.source != "table" and named["source"] != place.source:
        return place.refuse("case.source", f"not {place.source}")
    return _Parts(named, label, diagnosis)


def _listed(name: str, value: object) -> object:
    """Codes in one cell of CSV stand between spaces, commas, semicolons or bars."""
    if name in _LISTS and isinstance(value, str):
        return tuple(code for code in _CODES.split(value) if code)
    return value


def _labelled(place: Place, parts: _Parts, labeller: VisitLabeller) -> Read:
    case = build_visit(place, parts.visit)
    if isinstance(case, Refused):
        return case
    if not parts.label:
        return labeller.label(Visit(place, case, (parts.diagnosis,) if parts.diagnosis else ()))
    label = dict(parts.label)
    code, name = label.get("orpha_code"), label.get("disease_name")
    if "disease_id" not in label and isinstance(name, str):
        label["disease_id"] = code or disease_key(name)
    label.setdefault("reason", "the table's own label")
    return without_diagnosis(place, build_label(place, case, label))


def reader(source: str) -> Reader:
    """A reader of the table in a folder, whose cases belong to ``source``."""
    return partial(_read, source)
