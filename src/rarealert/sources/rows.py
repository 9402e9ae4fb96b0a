"""Rows of JSONL, CSV and Parquet files, one at a time: a damaged row costs itself alone."""

import csv
import io
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, AnyStr

from rarealert.errors import BadInputError
from rarealert.sources import published_files as files
from rarealert.sources.published_files import Tick, json_object, opened

KINDS = {
    ".jsonl": ".jsonl",
    ".ndjson": ".jsonl",
    ".csv": ".csv",
    ".tsv": ".tsv",
    ".parquet": ".parquet",
}
"""The ending under which ``data/table`` keeps a file of each ending that is read."""

Row = dict[str, object]
Numbered = tuple[int, Row | str]
"""Number of a row, and the row or the reason why it can't be read."""

_MAX_CELL = 1_000_000  # characters; csv's own limit of 131,072 would refuse a long discharge letter
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_BATCH_ROWS = 1024


def rows(path: Path, tick: Tick) -> Iterator[Numbered]:
    """Read every row with its number, or the reason why it can't be read.

    Numbers are from 1: a line of JSONL, the line on which a CSV record ends (the header is line 1),
    a row of Parquet. An empty cell of CSV is left out.

    Raises:
        BadInputError: the file can't be read at all: empty, not Parquet, UTF-16, no header.
    """
    ending = path.suffix.lower()
    if ending == ".parquet":
        return _parquet_rows(path, tick)
    return _jsonl_rows(path, tick) if KINDS.get(ending) == ".jsonl" else csv_records(path, tick)


@dataclass(frozen=True)
class JsonLine:
    """A line of JSONL or NDJSON.

    ``text`` is its beginning up to the limit of a record, ``content`` the object on it or the
    reason why there is none.
    """

    number: int
    text: bytes
    content: Row | str


def json_lines(stream: IO[bytes], tick: Tick) -> Iterator[JsonLine]:
    """Read every line that is not blank; a line above the limit is never held whole."""
    for number, (line, is_whole) in enumerate(_bounded_lines(stream, b"\n", tick), 1):
        if not is_whole:
            yield JsonLine(number, line, files.TOO_LONG)
        elif line.strip():
            yield JsonLine(number, line, json_object(line))


def _jsonl_rows(path: Path, tick: Tick) -> Iterator[Numbered]:
    is_empty = True
    with opened(path) as stream:
        for line in json_lines(stream, tick):
            is_empty = False
            yield line.number, line.content
    if is_empty:
        raise BadInputError(f"{path} is empty; import the source again.")


def _bounded_lines(stream: IO[AnyStr], end: AnyStr, tick: Tick) -> Iterator[tuple[AnyStr, bool]]:
    """Read lines; of one above the limit give its beginning and false, and skip the rest."""
    while line := stream.readline(files.MAX_RECORD_BYTES):
        tick(len(line))
        is_whole = len(line) < files.MAX_RECORD_BYTES or line.endswith(end)
        yield line, is_whole
        while not is_whole and (rest := stream.readline(files.MAX_RECORD_BYTES)):
            tick(len(rest))
            is_whole = rest.endswith(end)


def csv_records(path: Path, tick: Tick, needed: tuple[str, ...] = ()) -> Iterator[Numbered]:
    """Read CSV strictly by RFC 4180, each record with the number of the line on which it ends.

    A quote that is never closed swallows the lines behind it. They are read again one by one, and
    a line with as many cells as the header is a record. Lines that are not are reported by the
    first of them and their count. Each line is read at most three times.

    Args:
        path: the file; a tab separates cells in ``.tsv``, else comma or semicolon, whichever the
            header has more of.
        tick: called with the number of characters read.
        needed: columns that the header must name.

    Raises:
        BadInputError: the file is empty, UTF-16, without a header, or without a needed column.
    """
    csv.field_size_limit(_MAX_CELL)
    with opened(path) as raw:
        if raw.read(2) in _UTF16:
            raise BadInputError(f"{path} is UTF-16; save it as UTF-8 and import it again.")
        raw.seek(0)
        # bytes that are no UTF-8 become surrogates, so that only their own row is refused
        file = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")
        names, delimiter = _header(path, file.readline(files.MAX_RECORD_BYTES), tick)
        for missing in sorted(set(needed) - set(names)):
            raise BadInputError(f"{path} has no column {missing}; import the published file again.")
        yield from _CsvReader(file, tick, names, delimiter).records()


def _header(path: Path, line: str, tick: Tick) -> tuple[list[str], str]:
    """Return column names and delimiter."""
    tick(len(line))
    if not line.strip():
        raise BadInputError(f"{path}: line 1 is empty; put the column names there.")
    delimiter = "\t" if path.suffix == ".tsv" else ";" if line.count(";") > line.count(",") else ","
    try:
        names = [name.strip() for name in next(csv.reader([line], delimiter=delimiter))]
    except csv.Error as error:
        raise BadInputError(f"{path}: line 1 is not CSV; put the column names there.") from error
    if "" in names or len(set(names)) < len(names):
        raise BadInputError(f"{path}: line 1 has an empty or a repeated column name; correct it.")
    return names, delimiter


class _CsvReader:
    """Reads records from a queue of lines, to which swallowed lines return."""

    def __init__(self, file: IO[str], tick: Tick, names: list[str], delimiter: str) -> None:
        self._fresh = enumerate(_bounded_lines(file, "\n", tick), 2)
        self._swallowed: deque[tuple[int, tuple[str, bool]]] = deque()
        self._swallowed_until = 0
        self._names, self._delimiter = names, delimiter
        self._lost: list[int] = []

    def records(self) -> Iterator[Numbered]:
        while (first := self._next_line()) is not None:
            number, (line, is_whole) = first
            if not is_whole:
                yield from self._report_lost()
                yield number, files.TOO_LONG
                continue
            last, cells = self._record(number, line)
            if cells is None:
                self._lost.append(number)
            elif cells:
                yield from self._report_lost()
                yield last, _row(self._names, cells)
        yield from self._report_lost()

    def _next_line(self) -> tuple[int, tuple[str, bool]] | None:
        return self._swallowed.popleft() if self._swallowed else next(self._fresh, None)

    def _record(self, number: int, line: str) -> tuple[int, list[str] | None]:
        """Read the record that begins with ``line``: number of its last line, and its cells.

        Without such a record, cells are ``None`` and the lines behind the first are put back. Of
        those put back, only the last may begin a record of several lines: its quote closed the
        open one.
        """
        taken = [(number, (line, True))]
        may_go_on = number >= self._swallowed_until

        def lines() -> Iterator[str]:
            yield line
            held = len(line)
            while may_go_on and (more := self._next_line()) is not None:
                taken.append(more)
                held += len(more[1][0])
                if held >= files.MAX_RECORD_BYTES:
                    return
                yield more[1][0]

        try:
            cells = next(csv.reader(lines(), delimiter=self._delimiter, strict=True), [])
        except csv.Error:
            cells = None
        is_read_again = len(taken) > 1 or number <= self._swallowed_until
        fits = not cells or len(cells) == len(self._names)
        if cells is not None and (fits or not is_read_again):
            return taken[-1][0], cells
        self._swallowed.extendleft(reversed(taken[1:]))
        if len(taken) > 1:
            self._swallowed_until = taken[-1][0]
        return number, None

    def _report_lost(self) -> Iterator[Numbered]:
        if self._lost:
            count = len(self._lost)
            lines = "this line is" if count == 1 else f"{count:,} lines from here on are"
            yield self._lost[0], f"not CSV (is a quote open?); {lines} lost"
        self._lost.clear()


def _row(names: list[str], cells: list[str]) -> Row | str:
    if len(cells) != len(names):
        return f"{len(cells)} cells where the header names {len(names)} columns"
    text = "".join(cells)
    if any("\udc80" <= char <= "\udcff" for char in text):
        return "not UTF-8"
    if "\x00" in text:
        return "a NUL character"
    return {name: cell for name, cell in zip(names, cells, strict=True) if cell.strip()}


def _parquet_rows(path: Path, tick: Tick) -> Iterator[Numbered]:
    """Read by row group: damage costs the rows behind it in its group."""
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


def _row_group(file: Any, group: int, count: int) -> Iterator[Numbered]:
    """Rows of one group by their number in it; one refusal for all that can't be read."""
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
        yield from enumerate(_batch_rows(batch), done + 1)
        done += batch.num_rows
    if done < count:
        lost = count - done
        rows_are = "this row is" if lost == 1 else f"{lost:,} rows from here on are"
        yield done + 1, f"a damaged block; {rows_are} lost"


def _batch_rows(batch: Any) -> list[Row | str]:
    """Rows as objects; a row with a text that is not UTF-8 is refused alone."""
    try:
        found: list[Row | str] = batch.to_pylist()
    except (UnicodeDecodeError, ValueError):
        if batch.num_rows == 1:
            return ["not UTF-8"]
        return [row for at in range(batch.num_rows) for row in _batch_rows(batch.slice(at, 1))]
    return found
