"""The rows of a JSONL, CSV or Parquet file as plain objects, one at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rarealert.cases.sources.csv_rows import csv_records
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
