"""The column map: how a team's own table says what a case says.

A YAML file; docs/importing.md shows one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rarealert.cases.case import TEXT_FIELDS, Case, Label
from rarealert.errors import BadInputError

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
