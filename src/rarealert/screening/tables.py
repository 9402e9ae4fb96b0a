"""Answers as a table that other programs open: CSV for a spreadsheet, Parquet for an engine.

The answers of a screened file read back, each checked: what is amiss is told by row and column.

A file that was opened in a spreadsheet, cut, or written by an earlier version holds cells where
they don't belong. They may be a visit's words, so nothing that stands in a cell is ever told.
"""

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from rarealert.calibration.bands import Band
from rarealert.errors import BadInputError
from rarealert.screening.answer import COLUMNS, Answer
from rarealert.screening.champion import ScreeningModel
from rarealert.sources.files import no_tick
from rarealert.sources.rows import rows

if TYPE_CHECKING:
    import pyarrow as pa

MARKS = ("model_version", "model_digest")
"""What every answer is marked with."""

NOTES = "notes"
"""What a reader of the answer must know, in words."""

ENDINGS = (".jsonl", ".csv", ".parquet")
"""Endings of ``--out``."""

_ROWS = 10_000  # a row group; larger ones compress no better and hold more in memory
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def check_ending(out: Path) -> None:
    """Refuse an ``out`` of no kind that can be written.

    Raises:
        BadInputError: its ending is not one of ``ENDINGS``.
    """
    if out.suffix.lower() not in ENDINGS:
        raise BadInputError(f"{out} ends in none of {', '.join(ENDINGS)}; name another --out.")


def check_out(source: Path, out: Path) -> None:
    """Refuse an ``out`` that can't be written, or that the next run would read as visits.

    Raises:
        BadInputError: its ending is none of ``ENDINGS``, it is a folder or below a file, or it is
            ``source`` or lies in it.
    """
    check_ending(out)
    if source.resolve() == out.resolve():
        raise BadInputError(f"{out} is the file of visits itself; name another file for --out.")
    if out.is_dir():
        raise BadInputError(f"{out} is a folder; name a file for --out.")
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise BadInputError(f"{out} lies in the folder of visits; name a file elsewhere for --out.")
    for above in out.parents:
        if above.exists() and not above.is_dir():
            raise BadInputError(f"{above} is no folder; name another --out than {out}.")


def columns(rationale: bool) -> tuple[str, ...]:
    """Columns of the answers, in order."""
    return (*COLUMNS, *(("rationale",) if rationale else ()), NOTES, *MARKS)


def answer_row(answer: Answer, model: ScreeningModel, rationale: bool) -> dict[str, Any]:
    """The cells of one answer, in the order of ``columns``."""
    notes = " ".join(note.message for note in answer.notes) or None
    given = {"rationale": answer.rationale} if rationale else {}
    marks = {"model_version": model.version, "model_digest": model.digest}
    return {**answer.row(), **given, "notes": notes, **marks}


def write_table(lines: Path, out: Path, rationale: bool) -> None:
    """Turn the JSONL of answers at ``lines`` into the kind that ``out`` ends in.

    Row by row, so memory does not grow with it; ``out`` appears when it is whole.
    """
    partial = out.with_name(f"{out.name}.writing")
    with lines.open(encoding="utf-8") as stream:
        rows: Iterator[dict[str, Any]] = (json.loads(line) for line in stream)
        if out.suffix.lower() == ".csv":
            _write_csv(rows, partial, columns(rationale))
        else:
            _write_parquet(rows, partial, columns(rationale))
    partial.replace(out)


def harmless(value: object) -> object:
    """A cell that no spreadsheet takes for a formula: such a text gets an apostrophe in front.

    OWASP, CSV injection: a visit could otherwise run a command on the machine that opens it.
    """
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


def _write_csv(rows: Iterable[Mapping[str, Any]], path: Path, names: tuple[str, ...]) -> None:
    # Excel takes a file without the mark for the machine's own code page and breaks every umlaut.
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
        while held := list(islice(rows, _ROWS)):
            writer.write_table(pa.Table.from_pylist(held, schema=schema))


def _schema(names: tuple[str, ...]) -> "pa.Schema":
    import pyarrow as pa

    kinds = {"string": pa.string(), "double": pa.float64(), "boolean": pa.bool_()}
    return pa.schema([(name, kinds[COLUMNS.get(name, "string")]) for name in names])


FLAGS: Final = ("abstain", "out_of_distribution", "not_english", "truncated")
"""Columns that are true or false."""

_ENDINGS = (".jsonl", ".csv", ".parquet")
_OF_FINDING = ("hpo_id", "status")
_TRUTH = {"true": True, "false": False}


@dataclass(frozen=True)
class SaidRow:
    """What one answer says; ``distance`` is its ``ood_score``, ``flags`` are those of ``FLAGS``."""

    risk: float
    band: str
    distance: float
    evidence: list[Mapping[str, Any]]
    flags: Mapping[str, bool]


def holds_answers(path: Path) -> bool:
    """Whether the first whole row of ``path`` is an answer.

    Raises:
        BadInputError: it is missing, empty, or can't be read at all.
    """
    if not path.exists():
        raise BadInputError(f"{path} is missing; name a file of visits or of answers.")
    if path.suffix.lower() not in _ENDINGS:
        return False
    first = next((row for _, row in rows(path, no_tick) if not isinstance(row, str)), {})
    return {"risk", "band"} <= first.keys()


def read_answers(path: Path) -> Iterator[SaidRow]:
    """Every answer of ``path``, in order.

    Raises:
        BadInputError: a row is none; the sentence names its number (a line of CSV or JSONL) and
            column.
    """
    for number, row in rows(path, no_tick):
        place = f"{path}, {'row' if path.suffix.lower() == '.parquet' else 'line'} {number}"
        if isinstance(row, str):
            raise BadInputError(f"{place}: {row}; screen the visits again.")
        yield _Checked(place, row).said()


@dataclass(frozen=True)
class _Checked:
    """One row and where it stands; a cell is given only as what its column has to hold."""

    place: str
    row: Mapping[str, Any]

    def said(self) -> SaidRow:
        band = self._cell("band")
        if band not in get_args(Band):
            raise self._amiss("band", f"none of {', '.join(get_args(Band))}")
        risk = self._number("risk")
        if not 0 <= risk <= 1:
            raise self._amiss("risk", "not from 0 to 1")
        flags = {name: self._truth(name) for name in FLAGS}
        return SaidRow(risk, band, self._number("ood_score"), self._evidence(), flags)

    def _cell(self, name: str) -> Any:
        value = self.row.get(name)
        if value is None:
            raise self._amiss(name, "missing; an earlier RareAlert or another program wrote it")
        return value

    def _number(self, name: str) -> float:
        try:
            value = float(self._cell(name))
        except (TypeError, ValueError, OverflowError):
            raise self._amiss(name, "not a number") from None
        if not math.isfinite(value):
            raise self._amiss(name, "not a finite number")
        return value

    def _truth(self, name: str) -> bool:
        said = _TRUTH.get(str(self._cell(name)).lower())
        if said is None:
            raise self._amiss(name, "neither true nor false")
        return said

    def _evidence(self) -> list[Mapping[str, Any]]:
        told = self._cell("evidence")
        try:
            found = json.loads(str(told).removeprefix("'"))
            whole = all(isinstance(each[key], str) for each in found for key in _OF_FINDING)
        except (ValueError, TypeError, KeyError, RecursionError):
            whole = False
        if not whole or not isinstance(found, list):
            raise self._amiss("evidence", "not the list of findings that screening writes")
        return found

    def _amiss(self, name: str, reason: str) -> BadInputError:
        return BadInputError(f"{self.place}: {name} is {reason}. Screen the visits again.")
