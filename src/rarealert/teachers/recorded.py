"""Answers made elsewhere, read from ``data/<corpus>/teachers/*.jsonl.gz`` as published.

A row is ``{"case_id", "diagnoses": [...]}`` (CRAFT-MD) or ``{"case_id", "answer", "thinking"?}``
(MedR-Bench). A case without a row is missing: nobody asked that model.
"""

import gzip
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rarealert.cases.case import Case
from rarealert.errors import BadInputError
from rarealert.teachers.answer import Answer
from rarealert.teachers.teacher import Request, digest

Row = Mapping[str, object]
Mapper = Callable[[Row], Answer | None]

_FIELD = {"craftmd": "diagnoses", "medrbench": "answer"}
_TYPE = {"craftmd": list, "medrbench": str}


@dataclass(frozen=True)
class RecordedRow:
    """One row with the digest of the line it stood in."""

    digest: str
    row: Row


def read_rows(path: Path, corpus: str) -> dict[str, RecordedRow]:
    """The rows of a recorded file by case id.

    Raises:
        BadInputError: the file is missing or damaged, or a row is not in the published format.
    """
    try:
        with gzip.open(path, "rb") as stream:
            lines = stream.read().splitlines()
    except FileNotFoundError as error:
        raise BadInputError(
            f"{path} is missing, but the panel asks for it; import the corpus "
            f"(rarealert data import {corpus} PATH) or choose another teach.panel."
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise BadInputError(
            f"{path} is not a whole gzip file; copy it again from where it was published."
        ) from error
    rows: dict[str, RecordedRow] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            case_id, row = _parse(line, path, number, corpus)
            if case_id in rows:
                raise BadInputError(f"{path}, row {number}: case_id stands twice; keep one row.")
            rows[case_id] = RecordedRow(digest(line), row)
    return rows


def _parse(line: bytes, path: Path, number: int, corpus: str) -> tuple[str, Row]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise BadInputError(f"{path}, row {number} is not JSON; mend or delete the row.") from error
    name = _FIELD[corpus]
    if not isinstance(row, dict) or not isinstance(row.get("case_id"), str):
        raise BadInputError(f"{path}, row {number}: case_id is not a text; mend the row.")
    if not isinstance(row.get(name), _TYPE[corpus]):
        kind = "a list" if corpus == "craftmd" else "a text"
        raise BadInputError(f"{path}, row {number}: {name} is not {kind}; mend the row.")
    return row["case_id"], row


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

    def ask(self, case: Case) -> Answer | None:
        """What the row says, ``None`` where it says nothing usable."""
        return self.mapper(self.rows[case.case_id].row)
