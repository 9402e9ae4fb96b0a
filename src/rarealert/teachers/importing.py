"""Take answers made elsewhere into ``data/``: checked row by row, laid where a panel finds them."""

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from rarealert.errors import BadInputError
from rarealert.teachers.recorded import Row, answer_of_row, parse_row
from rarealert.teachers.shards import disk_full

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SOURCE = re.compile(r"[a-z][a-z0-9_]*")


def import_answers(path: Path, teacher: str, source: str, data: Path) -> str:
    """Copy the answers of ``teacher`` in ``path`` to ``data/<source>/teachers``; one sentence.

    ``path`` is JSON Lines, gzipped or not, in a shape that ``recorded`` describes; rows whose field
    ``teacher`` names somebody else are left out. Every row is mapped once, so that the sentence can
    say how many state nothing usable: these stay missing.

    Raises:
        BadInputError: ``path`` is missing or damaged, a row is in no known shape, a case stands
            twice, no row is left, or a name is not one.
        RareAlertError: the disk is full; nothing was changed.
    """
    _check_names(teacher, source, data)
    kept: dict[str, bytes] = {}
    others = silent = 0
    for number, line in _rows(path):
        case_id, row = parse_row(line, path, number)
        if row.get("teacher", teacher) != teacher:
            others += 1
            continue
        if case_id in kept:
            raise BadInputError(f"{path}, row {number}: case_id stands twice; keep one row.")
        kept[case_id] = line
        silent += _is_silent(row, data, path, number)
    if not kept:
        raise BadInputError(f"{path} holds no answer of {teacher}; check the file and --teacher.")
    out = data / source / "teachers" / f"{teacher}.jsonl.gz"
    _write(out, kept)
    left = f", {others:,} of other teachers left out" if others else ""
    return (
        f"{out}: {len(kept) - silent:,} answers, {silent:,} that state nothing usable and stay "
        f"missing{left}. Next: name it in a panel as {{id: {teacher}, kind: recorded, corpus: "
        f"{source}, file: {out.name}}}, then dvc add data."
    )


def _check_names(teacher: str, source: str, data: Path) -> None:
    if not _NAME.fullmatch(teacher):
        raise BadInputError(
            f"--teacher {teacher!r} is no name; use lower-case letters, digits, dots and dashes."
        )
    if not _SOURCE.fullmatch(source) or not (data / source).is_dir():
        raise BadInputError(
            f"--source {source!r}: {data / source} is missing; name the source of the cases that "
            "were judged (a folder of data/)."
        )


def _rows(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        raw = path.read_bytes()
        lines = (gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw).splitlines()
    except (OSError, EOFError, zlib.error) as error:
        raise BadInputError(f"{path} can't be read; name a JSON Lines file.") from error
    return ((number, line) for number, line in enumerate(lines, start=1) if line.strip())


def _is_silent(row: Row, data: Path, path: Path, number: int) -> bool:
    try:
        return answer_of_row(row, data) is None
    except ValueError as error:  # of pydantic: free text that makes no valid answer
        raise BadInputError(f"{path}, row {number} can't be read; delete the row.") from error


def _write(out: Path, rows: dict[str, bytes]) -> None:
    """The same rows give the same bytes, in whatever order they came."""
    partial = out.with_suffix(".partial")
    body = b"".join(rows[case_id] + b"\n" for case_id in sorted(rows))
    with disk_full(out.parent.parent):
        out.parent.mkdir(exist_ok=True)
        try:
            partial.write_bytes(gzip.compress(body, mtime=0))
            partial.replace(out)
        finally:
            partial.unlink(missing_ok=True)
