"""Answers as a table that other programs open: CSV for a spreadsheet, Parquet for an engine."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rarealert.errors import BadInputError
from rarealert.screening.saying import SAID

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
    return (*SAID, *(("rationale",) if rationale else ()), NOTES, *MARKS)


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
    return pa.schema([(name, kinds[SAID.get(name, "string")]) for name in names])
