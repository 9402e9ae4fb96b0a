"""Tables of answers: written as JSONL, CSV or Parquet, and read back with every cell checked.

A file that was opened in a spreadsheet, cut, or written by an earlier version holds cells in the
wrong place. They may be a visit's words, so no message quotes a cell.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, FiniteFloat, ValidationError

from rarealert.calibration.bands import Band
from rarealert.errors import BadInputError
from rarealert.screening.answer import COLUMNS, Answer
from rarealert.screening.champion import ScreeningModel
from rarealert.sources.published_files import no_tick
from rarealert.sources.rows import rows

if TYPE_CHECKING:
    import pyarrow as pa

ENDINGS = (".jsonl", ".csv", ".parquet")
"""Endings of a file of answers."""

_GROUP_ROWS = 10_000  # a row group; larger ones compress no better and hold more in memory
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def check_out(source: Path, out: Path) -> None:
    """Refuse an ``out`` that can't be written, or that the next run would read as visits.

    Raises:
        BadInputError: its ending is none of ``ENDINGS``, it is a folder or below a file, or it is
            ``source`` or in it.
    """
    if out.suffix.lower() not in ENDINGS:
        raise BadInputError(f"{out} ends in none of {', '.join(ENDINGS)}; name another --out.")
    if source.resolve() == out.resolve():
        raise BadInputError(f"{out} is the file of visits itself; name another file for --out.")
    if out.is_dir():
        raise BadInputError(f"{out} is a folder; name a file for --out.")
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise BadInputError(f"{out} is in the folder of visits; name a file elsewhere for --out.")
    for above in out.parents:
        if above.exists() and not above.is_dir():
            raise BadInputError(f"{above} is not a folder; name another --out than {out}.")


def answer_row(answer: Answer, model: ScreeningModel, rationale: bool) -> dict[str, Any]:
    """The cells of one answer, in the order of the columns."""
    notes = " ".join(note.message for note in answer.notes) or None
    given = {"rationale": answer.rationale} if rationale else {}
    marks = {"model_version": model.version, "model_digest": model.digest}
    return {**answer.row(), **given, "notes": notes, **marks}


def _columns(rationale: bool) -> tuple[str, ...]:
    given = ("rationale",) if rationale else ()
    return (*COLUMNS, *given, "notes", "model_version", "model_digest")


def write_table(lines: Path, out: Path, rationale: bool) -> None:
    """Turn the JSONL of answers at ``lines`` into the kind that ``out`` ends in.

    Row by row, so memory does not grow with it; ``out`` appears once it is complete.
    """
    partial = out.with_name(f"{out.name}.writing")
    write = _write_csv if out.suffix.lower() == ".csv" else _write_parquet
    with lines.open(encoding="utf-8") as stream:
        write(map(json.loads, stream), partial, _columns(rationale))
    partial.replace(out)


def harmless(value: object) -> object:
    """A cell that no spreadsheet takes for a formula: such a text gets an apostrophe in front.

    OWASP, CSV injection: a visit could otherwise run a command on the machine that opens it.
    """
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


def _write_csv(rows: Iterable[Mapping[str, Any]], path: Path, names: tuple[str, ...]) -> None:
    # without the byte order mark Excel assumes the machine's own code page and breaks umlauts
    with path.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(names)
        for row in rows:
            writer.writerow([harmless(row.get(name)) for name in names])


def _write_parquet(rows: Iterator[Mapping[str, Any]], path: Path, names: tuple[str, ...]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(names)
    with pq.ParquetWriter(path, schema) as writer:
        while held := list(islice(rows, _GROUP_ROWS)):
            writer.write_table(pa.Table.from_pylist(held, schema=schema))


def _schema(names: tuple[str, ...]) -> "pa.Schema":
    import pyarrow as pa

    kinds = {
        "string": pa.string(),
        "double": pa.float64(),
        "long": pa.int64(),
        "boolean": pa.bool_(),
    }
    return pa.schema([(name, kinds[COLUMNS.get(name, "string")]) for name in names])


def _parsed(cell: object) -> object:
    try:
        return json.loads(str(cell).removeprefix("'"))
    except (ValueError, RecursionError):
        raise ValueError("not the list of findings that screening writes") from None


class ScreenedFinding(BaseModel):
    """A finding in the evidence of an answer read back."""

    hpo_id: str
    status: str


class ScreenedRow(BaseModel):
    """The cells of an answer that drift compares."""

    risk: Annotated[float, Field(ge=0, le=1)]
    band: Band
    ood_score: FiniteFloat
    abstain: bool
    out_of_distribution: bool
    not_english: bool
    truncated: bool
    evidence: Annotated[list[ScreenedFinding], BeforeValidator(_parsed)]


def holds_answers(path: Path) -> bool:
    """Whether the first complete row of ``path`` is an answer.

    Raises:
        BadInputError: it is missing, empty, or can't be read at all.
    """
    if not path.exists():
        raise BadInputError(f"{path} is missing; name a file of visits or of answers.")
    if path.suffix.lower() not in ENDINGS:
        return False
    first = next((row for _, row in rows(path, no_tick) if not isinstance(row, str)), {})
    return {"risk", "band"} <= first.keys()


def read_answers(path: Path) -> Iterator[ScreenedRow]:
    """Every answer of ``path``, in order.

    Raises:
        BadInputError: a row is not an answer; the message names its number (a line of CSV or
            JSONL) and column.
    """
    for number, row in rows(path, no_tick):
        place = f"{path}, {'row' if path.suffix.lower() == '.parquet' else 'line'} {number}"
        if isinstance(row, str):
            raise BadInputError(f"{place}: {row}; screen the visits again.")
        yield _checked(place, row)


def _checked(place: str, row: Mapping[str, object]) -> ScreenedRow:
    try:
        return ScreenedRow.model_validate({key: row[key] for key in row if row[key] is not None})
    except ValidationError as error:
        # without the input, which could be a visit's words
        first = error.errors(include_input=False, include_url=False)[0]
        column, message = first["loc"][0], first["msg"].removeprefix("Value error, ")
        raise BadInputError(f"{place}: {column}: {message}. Screen the visits again.") from None
