"""Answers made elsewhere, read from ``data/<corpus>/teachers/*.jsonl.gz``.

A row is ``{"case_id", "diagnoses": [...]}`` (free-text diagnoses of several trials, as CRAFT-MD
publishes them), ``{"case_id", "answer", "thinking"?}`` (free-text reasoning, as MedR-Bench does)
or ``{"case_id", "answer": {...}}`` (a ``TeacherAnswer``, as ``rarealert cache export`` writes it).
A case without a row is missing: nobody asked that model.

From a recorded row, whatever its shape, to an answer.
"""

import gzip
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from rarealert.errors import BadInputError
from rarealert.teachers.answer import TeacherAnswer
from rarealert.teachers.teacher import Request, digest
from rarealert.visits.case import Case

Row = Mapping[str, object]
Mapper = Callable[[Row], TeacherAnswer | None]


@dataclass(frozen=True)
class RecordedRow:
    """One row with the digest of the line it stood in."""

    digest: str
    row: Row


def read_rows(path: Path, corpus: str) -> dict[str, RecordedRow]:
    """The rows of a recorded file by case id.

    Raises:
        BadInputError: the file is missing or damaged, or a row is in no shape that we read.
    """
    rows: dict[str, RecordedRow] = {}
    for number, line in enumerate(_lines(path, corpus), start=1):
        if line.strip():
            case_id, row = parse_row(line, path, number)
            if case_id in rows:
                raise BadInputError(f"{path}, row {number}: case_id stands twice; keep one row.")
            rows[case_id] = RecordedRow(digest(line), row)
    return rows


def _lines(path: Path, corpus: str) -> list[bytes]:
    try:
        with gzip.open(path, "rb") as stream:
            return stream.read().splitlines()
    except FileNotFoundError as error:
        raise BadInputError(
            f"{path} is missing, but the panel asks for it; import the corpus "
            f"(rarealert data import {corpus} PATH) or the answers (rarealert teach import), or "
            "choose another teach.panel."
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise BadInputError(
            f"{path} is not a whole gzip file; copy it again from where it was published."
        ) from error


def parse_row(line: bytes, path: Path, number: int) -> tuple[str, Row]:
    """Case id and row of one line in any of the three shapes.

    Raises:
        BadInputError: it is in none; the sentence names file, row and field, and quotes nothing.
    """
    try:
        row = json.loads(line)
    except ValueError as error:
        raise BadInputError(f"{path}, row {number} is not JSON; mend or delete the row.") from error
    wrong = _wrong(row)
    if wrong:
        raise BadInputError(f"{path}, row {number}: {wrong}; mend the row.")
    return row["case_id"], row


def _wrong(row: object) -> str:
    if not isinstance(row, dict) or not isinstance(row.get("case_id"), str):
        return "case_id is not a text"
    if "diagnoses" in row:
        return "" if isinstance(row["diagnoses"], list) else "diagnoses is not a list"
    if isinstance(row.get("answer"), dict):
        try:
            TeacherAnswer.model_validate(row["answer"])
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(("answer", *(str(part) for part in first["loc"])))
            return f"{place}: {first['msg']}"
        return ""
    return "" if isinstance(row.get("answer"), str) else "answer is not a text"


@dataclass(frozen=True)
class RecordedTeacher:
    """A model of one corpus whose answers are in a file.

    ``method`` is the version of the mapping from its rows to answers; ``mapper`` is that mapping.
    """

    id: str
    corpus: str
    rows: Mapping[str, RecordedRow]
    method: str
    mapper: Mapper = field(repr=False)

    @property
    def sources(self) -> frozenset[str]:
        """The one corpus whose cases it was asked about."""
        return frozenset((self.corpus,))

    def request(self, case: Case) -> Request | None:
        """The recorded row by digest, ``None`` where there is none for ``case``."""
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

    def ask(self, case: Case) -> TeacherAnswer | None:
        """What the row says, ``None`` where it says nothing usable."""
        return self.mapper(self.rows[case.case_id].row)


def answer_of_row(row: Row, data: Path) -> TeacherAnswer | None:
    """The answer, ``None`` where the row states nothing usable.

    Free text is read with Orphanet's names: the tables in ``data``, else the installed ones.
    """
    said = row.get("answer")
    if isinstance(said, dict):
        return TeacherAnswer.model_validate(said)
    from rarealert.teachers.recorded_corpora import (
        answer_of_reasoning,
        answer_of_trials,
        load_readers,
    )

    readers = load_readers(data)
    if "diagnoses" in row:
        trials = row["diagnoses"]
        assert isinstance(trials, list)  # parse_row has checked it
        return answer_of_trials(trials, readers.resolve)
    thinking = row.get("thinking")
    return answer_of_reasoning(str(said), thinking if isinstance(thinking, str) else "", readers)
