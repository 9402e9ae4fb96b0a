"""The column map: how a team's own table says what a case says.

A YAML file; docs/importing.md shows one.

A team's own cases: JSONL, CSV or Parquet, one case a row, with or without a column map.

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
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rarealert.errors import BadInputError
from rarealert.sources.files import Tick, no_tick
from rarealert.sources.records import Diagnosis, Visit, VisitLabeller, without_diagnosis
from rarealert.sources.rows import KINDS, Row, rows
from rarealert.visits.case import TEXT_FIELDS, Case, Label
from rarealert.visits.diagnosis import disease_key
from rarealert.visits.refused import (
    Place,
    Read,
    Reader,
    Refused,
    build_label,
    build_visit,
    harmless,
)

FILE = "columns.yaml"
DIAGNOSIS_FIELDS = ("diagnosis", "diagnosis_code")
"""Fields of a table that no case has: text and code from which a label is resolved."""

FIELDS = (*Case.model_fields, *Label.model_fields, *DIAGNOSIS_FIELDS)
_UNITS_A_YEAR = {"years": 1.0, "months": 12.0, "weeks": 365.25 / 7, "days": 365.25}
Scalar = str | int | float | bool | None


class Column(BaseModel):
    """Where a column goes, and how its cells are to be read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str
    unit: Literal["years", "months", "weeks", "days"] = "years"
    values: Mapping[str, str | None] | None = None

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.field not in FIELDS:
            raise ValueError(f"no field of that name; the fields are {', '.join(FIELDS)}")
        if self.unit != "years" and self.field != "age_years":
            raise ValueError("only age_years has a unit")
        return self


class ColumnMap(BaseModel):
    """The whole file. A column mapped to null is read by nobody."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")] | None = None
    missing: tuple[str, ...] = ()
    columns: Annotated[Mapping[str, Column | None], Field(min_length=1)]

    @field_validator("columns", mode="before")
    @classmethod
    def _short_form(cls, columns: Any) -> Any:
        if not isinstance(columns, dict):
            return columns
        return {
            name: {"field": value} if isinstance(value, str) else value
            for name, value in columns.items()
        }

    @model_validator(mode="after")
    def _one_column_a_field(self) -> Self:
        seen: set[str] = set()
        for column in self.columns.values():
            if column is not None and column.field not in TEXT_FIELDS:
                if column.field in seen:
                    raise ValueError(f"two columns for {column.field}; only text is put together")
                seen.add(column.field)
        if "case_id" not in seen:
            raise ValueError("no column for case_id")
        return self

    def unknown(self, names: frozenset[str]) -> str | None:
        """The first of ``names`` that the map does not speak of."""
        return next(iter(sorted(names - self.columns.keys())), None)

    def fields(self, row: Mapping[str, object]) -> dict[str, object]:
        """``row`` under the names of fields; cells of one text field are put together."""
        found: dict[str, object] = {"source": self.source} if self.source else {}
        for name, column in self.columns.items():
            value = self._value(row.get(name), column) if column else None
            if column is None or value is None:
                continue
            if column.field in TEXT_FIELDS:
                value = _together(found.get(column.field), _as_text(value))
            found[column.field] = value
        return found

    def _value(self, cell: object, column: Column) -> object:
        word = _as_text(cell)
        if cell is None or (isinstance(word, str) and _missing(word, self.missing)):
            return None
        if column.values is not None and (known := str(word).strip()) in column.values:
            return column.values[known]
        # a value the map does not name stays, so that the case's own check refuses it
        if column.unit != "years":
            return _in_years(cell, _UNITS_A_YEAR[column.unit])
        return cell


def _as_text(cell: object) -> object:
    """A number as the text that CSV would hold; 99.0 is 99, for a gap makes all integers floats."""
    if isinstance(cell, bool) or not isinstance(cell, int | float):
        return cell
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def _together(before: object, value: object) -> object:
    """Two texts as one; what is no text stays alone, so that the case's own check refuses it."""
    if before is None or not isinstance(value, str):
        return value
    return f"{before}\n{value}" if isinstance(before, str) else before


def _missing(cell: str, missing: tuple[str, ...]) -> bool:
    return not cell.strip() or cell.strip() in missing


def _in_years(cell: object, units_a_year: float) -> object:
    try:
        return float(str(cell)) / units_a_year
    except ValueError:
        return cell


def load_columns(path: Path) -> ColumnMap:
    """The column map at ``path``.

    Raises:
        BadInputError: the file is missing, is not YAML, or is no column map; the sentence names
            the key.
    """
    import yaml

    class Words(yaml.SafeLoader):
        """YAML without truth values and numbers: columns and cells are called no, N, on and 1."""

    Words.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in known if tag == "tag:yaml.org,2002:null"]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Words)  # noqa: S506 - a safe loader
    except OSError as error:
        raise BadInputError(f"{path} can't be read ({error.strerror}); check the path.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadInputError(f"{path} is not YAML in UTF-8; see docs/importing.md.") from error
    try:
        return ColumnMap.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        said = first["msg"].removeprefix("Value error, ")
        raise BadInputError(f"{path}: {key}: {said}; see docs/importing.md.") from error


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
    beside = path.parent / FILE
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
    unknown = sorted(row.keys() - set(FIELDS))
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
