"""A team's own cases: JSONL, CSV or Parquet, one case a row, with or without a column map.

Without a map the columns are the fields of ``Case`` and ``Label`` side by side, as in
``cases.parquet``; JSONL may also nest them, ``{"case": {…}, "label": {…}}``. Instead of a label a
row may have a ``diagnosis`` in words or a ``diagnosis_code``. ``source`` defaults to ``table``, and
null means absent. A column map (YAML, see docs/importing.md) assigns columns of any name.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rarealert.errors import BadInputError
from rarealert.sources.labelling import CaseLabeller, Diagnosis, RecordedCase, without_diagnosis
from rarealert.sources.published_files import Tick, no_tick
from rarealert.sources.rows import KINDS, Row, rows
from rarealert.visits.case import TEXT_FIELDS, Case, Label, LabelledCase
from rarealert.visits.diagnosis import disease_key
from rarealert.visits.refused import Place, Refused, build_case, build_labelled, safe_name

FILE = "columns.yaml"
DIAGNOSIS_FIELDS = ("diagnosis", "diagnosis_code")
"""Fields of a table from which its label is resolved: the diagnosis in words, or its code."""

FIELDS = (*Case.model_fields, *Label.model_fields, *DIAGNOSIS_FIELDS)
_UNITS_A_YEAR = {"years": 1.0, "months": 12.0, "weeks": 365.25 / 7, "days": 365.25}


class Column(BaseModel):
    """The field that a column fills, and how its cells are read."""

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
    """A column map. A column that is mapped to null is ignored."""

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
                    raise ValueError(f"two columns for {column.field}; only text fields are joined")
                seen.add(column.field)
        if "case_id" not in seen:
            raise ValueError("no column for case_id")
        return self

    def unknown(self, names: frozenset[str]) -> str | None:
        """The first of ``names`` that the map does not contain."""
        return next(iter(sorted(names - self.columns.keys())), None)

    def fields(self, row: Mapping[str, object]) -> dict[str, object]:
        """Return ``row`` by field; cells of one text field are joined by line breaks."""
        found: dict[str, object] = {"source": self.source} if self.source else {}
        for name, column in self.columns.items():
            value = self._value(row.get(name), column) if column else None
            if column is None or value is None:
                continue
            if column.field in TEXT_FIELDS:
                value = _joined(found.get(column.field), _as_text(value))
            found[column.field] = value
        return found

    def _value(self, cell: object, column: Column) -> object:
        word = _as_text(cell)
        if cell is None or (isinstance(word, str) and word.strip() in ("", *self.missing)):
            return None
        if column.values is not None and (known := str(word).strip()) in column.values:
            return column.values[known]
        # other values stay, and the check of the case refuses what does not fit
        if column.unit != "years":
            return _in_years(cell, _UNITS_A_YEAR[column.unit])
        return cell


def _as_text(cell: object) -> object:
    """Write a number as CSV would; 99.0 is 99, because a column with gaps turns into floats."""
    if isinstance(cell, bool) or not isinstance(cell, int | float):
        return cell
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def _joined(before: object, value: object) -> object:
    """Join two texts; anything else stays, and the check of the case refuses it."""
    if before is None or not isinstance(value, str):
        return value
    return f"{before}\n{value}" if isinstance(before, str) else before


def _in_years(cell: object, units_a_year: float) -> object:
    try:
        return float(str(cell)) / units_a_year
    except ValueError:
        return cell


def load_columns(path: Path) -> ColumnMap:
    """Load a column map.

    Raises:
        BadInputError: the file is missing, not YAML, or no column map; the message names the key.
    """
    import yaml

    class Words(yaml.SafeLoader):
        """YAML without booleans and numbers: columns and cells have names such as no, N, on, 1."""

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
        reason = first["msg"].removeprefix("Value error, ")
        raise BadInputError(f"{path}: {key}: {reason}; see docs/importing.md.") from error


NAME = "cases"
_CODES = re.compile(r"[\s;|,]+")
_LISTS = ("findings_present", "findings_excluded")


@dataclass(frozen=True)
class _Parts:
    """A row by its parts: fields of the case, fields of the label, and the diagnosis."""

    case: Mapping[str, object]
    label: Mapping[str, object] = field(default_factory=dict)
    diagnosis: Diagnosis | None = None


def table_file(folder: Path) -> Path:
    """Return the one table in ``folder``.

    Raises:
        BadInputError: there is none, or several.
    """
    known = sorted(folder / f"{NAME}{ending}" for ending in set(KINDS.values()))
    found = [path for path in known if path.is_file()]
    if len(found) != 1:
        raise BadInputError(
            f"{folder} contains {len(found)} of {', '.join(path.name for path in known)}; "
            "import the table again: rarealert data import table PATH."
        )
    return found[0]


def read(
    folder: Path, tick: Tick = no_tick, source: str = "table"
) -> Iterator[LabelledCase | Refused]:
    """Read the table in ``folder``, every row as a labelled case or refused.

    ``source`` names the cases; with any other than ``table``, a row that names another source is
    refused.

    Raises:
        BadInputError: there is no table, or several, or it can't be read at all.
    """
    labeller = CaseLabeller(folder)
    for place, parts in _rows(table_file(folder), tick, source):
        yield parts if isinstance(parts, Refused) else _labelled(place, parts, labeller)


def read_recorded(path: Path, tick: Tick = no_tick) -> Iterator[RecordedCase | Refused]:
    """Read every row of the file ``path`` as a case with its diagnosis; a label is ignored.

    A ``columns.yaml`` beside ``path`` is its column map.

    Raises:
        BadInputError: the file can't be read at all.
    """
    for place, parts in _rows(path, tick, "table"):
        yield parts if isinstance(parts, Refused) else _recorded(place, parts)


def _rows(path: Path, tick: Tick, source: str) -> Iterator[tuple[Place, _Parts | Refused]]:
    map_file = path.parent / FILE
    column_map = load_columns(map_file) if map_file.is_file() else None
    for number, row in rows(path, tick):
        place = Place(source, path.name, number)
        if isinstance(row, str):
            yield place, place.refuse("row" if path.suffix == ".parquet" else "line", row)
        else:
            yield place, _parts(place, row, column_map)


def _parts(place: Place, row: Row, column_map: ColumnMap | None) -> _Parts | Refused:
    if column_map is not None:
        unknown = column_map.unknown(frozenset(row))
        if unknown is not None:
            return place.refuse(safe_name(unknown), "a column that the column map does not name")
        return _flat(place, column_map.fields(row))
    if "case" in row or isinstance(row.get("label"), dict):
        return _nested(place, row)
    return _flat(place, row)


def _flat(place: Place, row: Row) -> _Parts | Refused:
    unknown = sorted(row.keys() - set(FIELDS))
    if unknown:
        return place.refuse(safe_name(unknown[0]), "unknown field")
    case = {name: _listed(name, row[name]) for name in Case.model_fields if name in row}
    label = {name: row[name] for name in Label.model_fields if row.get(name) is not None}
    given: list[str] = []
    for name in DIAGNOSIS_FIELDS:
        value = "" if row.get(name) is None else row[name]
        if not isinstance(value, str):
            return place.refuse(name, "not a text")
        given.append(value.strip())
    name, code = given
    diagnosis = Diagnosis(name or None, (code,) if code else ()) if name or code else None
    return _with_source(place, case, label, diagnosis)


def _nested(place: Place, row: Row) -> _Parts | Refused:
    unknown = sorted(row.keys() - {"case", "label"})
    if unknown:
        return place.refuse(safe_name(unknown[0]), "unknown field")
    case, label = row.get("case"), row.get("label")
    if not isinstance(case, dict):
        return place.refuse("case", "not a JSON object")
    if label is not None and not isinstance(label, dict):
        return place.refuse("label", "not a JSON object")
    return _with_source(place, case, label or {}, None)


def _with_source(
    place: Place, case: Row, label: Row, diagnosis: Diagnosis | None
) -> _Parts | Refused:
    fields = {"source": place.source, **{k: v for k, v in case.items() if v is not None}}
    if place.source != "table" and fields["source"] != place.source:
        return place.refuse("case.source", f"not {place.source}")
    return _Parts(fields, label, diagnosis)


def _listed(name: str, value: object) -> object:
    """Split the codes in one cell of CSV at spaces, commas, semicolons and bars."""
    if name in _LISTS and isinstance(value, str):
        return tuple(code for code in _CODES.split(value) if code)
    return value


def _recorded(place: Place, parts: _Parts) -> RecordedCase | Refused:
    case = build_case(place, parts.case)
    if isinstance(case, Refused):
        return case
    return RecordedCase(place, case, (parts.diagnosis,) if parts.diagnosis else ())


def _labelled(place: Place, parts: _Parts, labeller: CaseLabeller) -> LabelledCase | Refused:
    recorded = _recorded(place, parts)
    if isinstance(recorded, Refused):
        return recorded
    if not parts.label:
        return labeller.label(recorded)
    label = dict(parts.label)
    code, name = label.get("orpha_code"), label.get("disease_name")
    if "disease_id" not in label and isinstance(name, str):
        label["disease_id"] = code or disease_key(name)
    label.setdefault("reason", "the table's own label")
    return without_diagnosis(place, build_labelled(place, recorded.case, label))
