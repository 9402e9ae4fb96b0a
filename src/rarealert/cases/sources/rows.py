"""The rows of a JSONL, CSV or Parquet file as plain objects, one at a time."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rarealert.cases.sources.files import Tick, json_lines
from rarealert.errors import BadInputError

KINDS = {
    ".jsonl": ".jsonl",
    ".ndjson": ".jsonl",
    ".csv": ".csv",
    ".tsv": ".tsv",
    ".parquet": ".parquet",
}
"""The ending under which ``data/table`` keeps a file of each ending that is read."""

Row = dict[str, object]
_BATCH_ROWS = 1024
_MAX_CELL = 1_000_000  # characters; csv's own limit of 131,072 would end the whole file
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def rows(path: Path, tick: Tick) -> Iterator[tuple[int, Row | str]]:
    """Number of every row with its object, or what is wrong with it.

    The number counts from 1: a line of JSONL, the line on which a CSV record ends (the header is
    line 1), a row of Parquet. In CSV, where nothing can be but text, an empty cell is absent.

    Raises:
        BadInputError: the file can't be read at all: empty, not Parquet, UTF-16, no header.
    """
    if path.suffix == ".parquet":
        return _parquet(path, tick)
    return json_lines(path, tick) if path.suffix == ".jsonl" else _csv(path, tick)


def _csv(path: Path, tick: Tick) -> Iterator[tuple[int, Row | str]]:
    csv.field_size_limit(_MAX_CELL)
    try:
        with path.open("rb") as raw:
            if raw.read(2) in _UTF16:
                raise BadInputError(f"{path} is UTF-16; save it as UTF-8 and import it again.")
        # bytes that are no UTF-8 become surrogates, so that only their own row is refused
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            lines = _told(file, tick)
            header_line = next(lines, "")
            names, delimiter = _header(path, header_line)
            yield from _records(csv.reader(lines, delimiter=delimiter, strict=True), names)
    except OSError as error:
        raise BadInputError(
            f"{path} can't be read ({error.strerror}); import the source again."
        ) from error


def _told(lines: Iterator[str], tick: Tick) -> Iterator[str]:
    for line in lines:
        tick(len(line))
        yield line


def _header(path: Path, line: str) -> tuple[list[str], str]:
    """Column names and delimiter: tab for .tsv, else the more frequent of comma and semicolon."""
    if not line.strip():
        raise BadInputError(f"{path} is empty or its first line is; put the column names there.")
    delimiter = "\t" if path.suffix == ".tsv" else ";" if line.count(";") > line.count(",") else ","
    names = [name.strip() for name in next(csv.reader([line], delimiter=delimiter))]
    if "" in names or len(set(names)) < len(names):
        raise BadInputError(f"{path}: a column has no name, or two have the same; mend line 1.")
    return names, delimiter


def _records(reader: Any, names: list[str]) -> Iterator[tuple[int, Row | str]]:
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:
            # after a broken quote nobody can say where the next record begins
            yield (
                reader.line_num + 1,
                "not CSV from here on (a quote is open); the rest is not read",
            )
            return
        if cells:
            yield reader.line_num + 1, _record(names, cells)


def _record(names: list[str], cells: list[str]) -> Row | str:
    if len(cells) != len(names):
        return f"{len(cells)} cells where the header names {len(names)} columns"
    text = "".join(cells)
    if any("\udc80" <= char <= "\udcff" for char in text):
        return "not UTF-8"
    if "\x00" in text:
        return "a NUL character"
    return {name: cell for name, cell in zip(names, cells, strict=True) if cell.strip()}


def _parquet(path: Path, tick: Tick) -> Iterator[tuple[int, Row | str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise BadInputError(f"{path} is truncated or no Parquet file; copy it again.") from error
    share = path.stat().st_size / max(file.metadata.num_rows, 1)
    with file:
        batches = file.iter_batches(_BATCH_ROWS)
        while True:
            try:
                batch = next(batches, None)
                found = [] if batch is None else batch.to_pylist()
            except (pa.ArrowException, OSError, UnicodeDecodeError, ValueError):
                yield number + 1, "damaged from here on; the rest is not read"
                return
            if batch is None:
                break
            for row in found:
                number += 1
                yield number, row
            tick(round(share * len(found)))
    if not number:
        raise BadInputError(f"{path} has no row; import the source again.")
