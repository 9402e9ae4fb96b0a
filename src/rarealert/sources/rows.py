"""The records of a CSV file, where a broken quote costs its own record and not those behind it.

RFC 4180, read strictly. A quote that is never closed swallows line after line. What it swallowed
is read again line by line, and a line that has as many cells as the header is a record.

The rows of a JSONL, CSV or Parquet file as plain objects, one at a time.
"""

import csv
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from rarealert.errors import BadInputError
from rarealert.sources import files
from rarealert.sources.files import TOO_LONG, Tick, json_lines

Record = dict[str, object] | str
"""Cells by column, those that are empty left out; or what is wrong with the record."""

_MAX_CELL = 1_000_000  # characters; csv's own limit of 131,072 would refuse a long discharge letter
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_Cells = list[str]


def csv_records(
    path: Path, tick: Tick, needed: tuple[str, ...] = ()
) -> Iterator[tuple[int, Record]]:
    """Number of the line on which every record ends, with its cells or what is wrong with it.

    The header is line 1. A damaged record is numbered by the line on which it begins, and says
    how many lines are lost with it. The work is linear in the size of the file, whatever it holds.

    Raises:
        BadInputError: the file can't be read at all: empty, UTF-16, without a header, or one
            without a column that is ``needed``.
    """
    csv.field_size_limit(_MAX_CELL)
    try:
        with path.open("rb") as raw:
            if raw.read(2) in _UTF16:
                raise BadInputError(f"{path} is UTF-16; save it as UTF-8 and import it again.")
        # bytes that are no UTF-8 become surrogates, so that only their own row is refused
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            names, delimiter = _header(path, file.readline(files.MAX_RECORD_BYTES), tick)
            for missing in sorted(set(needed) - set(names)):
                raise BadInputError(
                    f"{path} has no column {missing}; import the published file again."
                )
            yield from _Records(file, tick, names, delimiter).read()
    except OSError as error:
        raise BadInputError(
            f"{path} can't be read ({error.strerror}); import the source again."
        ) from error


def _header(path: Path, line: str, tick: Tick) -> tuple[list[str], str]:
    """Column names and delimiter: tab for .tsv, else the more frequent of comma and semicolon."""
    tick(len(line))
    if not line.strip():
        raise BadInputError(f"{path} is empty or its first line is; put the column names there.")
    delimiter = "\t" if path.suffix == ".tsv" else ";" if line.count(";") > line.count(",") else ","
    try:
        names = [name.strip() for name in next(csv.reader([line], delimiter=delimiter))]
    except csv.Error as error:
        raise BadInputError(f"{path}: line 1 names no columns; mend it.") from error
    if "" in names or len(set(names)) < len(names):
        raise BadInputError(f"{path}: a column has no name, or two have the same; mend line 1.")
    return names, delimiter


class _Records:
    """Reads records off a queue of lines, onto which a swallowed line can be put back."""

    def __init__(self, file: IO[str], tick: Tick, names: list[str], delimiter: str) -> None:
        self._lines = _numbered(file, tick)
        self._names, self._delimiter = names, delimiter
        self._again: deque[tuple[int, str]] = deque()
        self._swallowed_until = 0
        self._lost: list[int] = []

    def read(self) -> Iterator[tuple[int, Record]]:
        while (first := self._next()) is not None:
            number, line = first
            if len(line) >= files.MAX_RECORD_BYTES:
                yield from self._lost_so_far()
                yield number, TOO_LONG
                continue
            taken, cells = self._attempt(number, line)
            if cells is None:
                self._lost.append(number)
            elif cells:
                yield from self._lost_so_far()
                yield taken, _record(self._names, cells)
        yield from self._lost_so_far()

    def _next(self) -> tuple[int, str] | None:
        return self._again.popleft() if self._again else next(self._lines, None)

    def _attempt(self, number: int, line: str) -> tuple[int, _Cells | None]:
        """Number of the last line of the record that begins here, with its cells.

        ``None`` for cells if there is no such record. The lines that it swallowed are then read
        again, each alone but the last, where the open quote met another: a record of several
        lines may begin there. So no line is read more than three times.
        """
        taken = [(number, line)]
        alone = number < self._swallowed_until

        def lines() -> Iterator[str]:
            yield line
            held = len(line)
            while not alone and (more := self._next()) is not None:
                taken.append(more)
                held += len(more[1])
                if held >= files.MAX_RECORD_BYTES:
                    return
                yield more[1]

        try:
            cells = next(csv.reader(lines(), delimiter=self._delimiter, strict=True), [])
        except csv.Error:
            cells = None
        several = len(taken) > 1
        amiss = bool(cells) and len(cells or ()) != len(self._names)
        if cells is not None and not (amiss and (several or number <= self._swallowed_until)):
            return taken[-1][0], cells
        self._again.extendleft(reversed(taken[1:]))
        if several:
            self._swallowed_until = taken[-1][0]
        return number, None

    def _lost_so_far(self) -> Iterator[tuple[int, Record]]:
        if self._lost:
            count = len(self._lost)
            lines = "this line is" if count == 1 else f"{count:,} lines from here on are"
            yield self._lost[0], f"not CSV (is a quote open?); {lines} lost"
        self._lost.clear()


def _numbered(file: IO[str], tick: Tick) -> Iterator[tuple[int, str]]:
    """Lines from the second on; of one that is too long the first part stands for it."""
    number = 1
    while line := file.readline(files.MAX_RECORD_BYTES):
        number += 1
        tick(len(line))
        yield number, line
        whole = len(line) < files.MAX_RECORD_BYTES or line.endswith("\n")
        while not whole and (rest := file.readline(files.MAX_RECORD_BYTES)):
            tick(len(rest))
            whole = rest.endswith("\n")


def _record(names: list[str], cells: _Cells) -> Record:
    if len(cells) != len(names):
        return f"{len(cells)} cells where the header names {len(names)} columns"
    text = "".join(cells)
    if any("\udc80" <= char <= "\udcff" for char in text):
        return "not UTF-8"
    if "\x00" in text:
        return "a NUL character"
    return {name: cell for name, cell in zip(names, cells, strict=True) if cell.strip()}


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


def rows(path: Path, tick: Tick) -> Iterator[tuple[int, Row | str]]:
    """Number of every row with its object, or what is wrong with it.

    The number counts from 1: a line of JSONL, the line on which a CSV record ends (the header is
    line 1), a row of Parquet. In CSV, where nothing can be but text, an empty cell is absent.

    Raises:
        BadInputError: the file can't be read at all: empty, not Parquet, UTF-16, no header.
    """
    if path.suffix == ".parquet":
        return _parquet(path, tick)
    return json_lines(path, tick) if path.suffix == ".jsonl" else csv_records(path, tick)


def _parquet(path: Path, tick: Tick) -> Iterator[tuple[int, Row | str]]:
    """Rows by row group: damage in one ends that group alone."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadInputError(f"{path} is truncated or no Parquet file; copy it again.") from error
    share = path.stat().st_size / max(file.metadata.num_rows, 1)
    before = 0
    with file:
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            for number, row in _row_group(file, group, count):
                yield before + number, row
            before += count
            tick(round(share * count))
    if not before:
        raise BadInputError(f"{path} has no row; import the source again.")


def _row_group(file: Any, group: int, count: int) -> Iterator[tuple[int, Row | str]]:
    """Rows of one group by their number in it; the first that can't be read names the rest."""
    import pyarrow as pa

    done = 0
    batches = file.iter_batches(_BATCH_ROWS, row_groups=[group])
    while True:
        try:
            batch = next(batches, None)
        except (pa.ArrowException, OSError, ValueError):
            batch = None
        if batch is None:
            break
        yield from enumerate(_plain(batch), done + 1)
        done += batch.num_rows
    if done < count:
        lost = count - done
        rows_are = "this row is" if lost == 1 else f"{lost:,} rows from here on are"
        yield done + 1, f"a damaged block; {rows_are} lost"


def _plain(batch: Any) -> list[Row | str]:
    """The rows of a batch as objects; one that holds a text which is not UTF-8 is told alone."""
    try:
        found: list[Row | str] = batch.to_pylist()
    except (UnicodeDecodeError, ValueError):
        if batch.num_rows == 1:
            return ["not UTF-8"]
        return [row for at in range(batch.num_rows) for row in _plain(batch.slice(at, 1))]
    return found
