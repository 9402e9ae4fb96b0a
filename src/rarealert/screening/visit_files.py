"""Read the visits of a file or folder of any kind that cases come from, one at a time.

Tables (JSONL, CSV, TSV, Parquet) are read row by row, phenopackets packet by packet, and FHIR
resources are gathered by patient on disk, so memory does not grow with the file.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from rarealert.errors import BadInputError
from rarealert.sources.published_files import documents, opened, printable_name
from rarealert.visits.case import TEXT_FIELDS, Case

NO_WORD = "holds no word to read"
"""Why a visit without a letter is refused: digits and signs would get a risk out of nothing."""

Kind = Literal["lines", "table", "fhir", "phenopackets"]

_LETTER = re.compile(r"[^\W\d_]")
_SOURCE = "screening"  # of a case without a source
_LINES = (".jsonl", ".ndjson")
_TABLES = (".csv", ".tsv", ".parquet")
_DOCUMENTS = (".json", ".zip")
_FHIR = re.compile(rb'"resourceType"\s*:')
_PEEKED_BYTES = 65_536  # the kind of a document is among its first fields


@dataclass(frozen=True)
class VisitRow:
    """One entry: a case, or the reason why it is not one.

    ``number`` counts entries (lines of JSONL) and ``end`` the bytes read so far. ``file`` and
    ``line`` are the place of an entry in a folder or a table.
    """

    number: int
    end: int
    case: Case | None
    case_id: str | None = None
    reason: str | None = None
    file: str | None = None
    line: int | None = None

    def refusal(self) -> dict[str, object]:
        """The row's object in the file of refused rows."""
        place = {"file": printable_name(self.file)} if self.file else {}
        row = self.line or self.number
        return {"row": row, "case_id": self.case_id, "reason": self.reason, **place}


def wordless_field(case: Case) -> str | None:
    """The first text field of a visit without a letter in any field, else ``None``."""
    texts = {name: text for name in TEXT_FIELDS if (text := getattr(case, name))}
    return None if any(map(_LETTER.search, texts.values())) else next(iter(texts))


def kind_of(path: Path) -> Kind:
    """The kind of ``path``, by its ending and, where that leaves a choice, its first bytes.

    Raises:
        BadInputError: it is missing, or of no kind that can be screened.
    """
    if not path.exists():
        raise BadInputError(f"{path} is missing; name a file of visits.")
    ending = path.suffix.lower()
    if ending in _TABLES:
        return "table"
    if ending in _LINES:
        return "fhir" if _is_fhir(path) else "lines"
    if path.is_dir() or ending in _DOCUMENTS:
        return "fhir" if _is_fhir(path) else "phenopackets"
    known = ", ".join((*_LINES, *_TABLES, *_DOCUMENTS))
    raise BadInputError(f"{path} ends in none of {known}; see docs/screening.md.")


def _is_fhir(path: Path) -> bool:
    if path.is_file() and path.suffix.lower() != ".zip":
        with opened(path) as stream:
            start = stream.read(_PEEKED_BYTES)
        return bool(
            _FHIR.search(start if path.suffix == ".json" else start.lstrip().split(b"\n")[0])
        )
    if path.is_dir() and any(path.glob("*.ndjson")):
        return True
    first = next(documents(path, (".json", ".ndjson")))
    return bool(_FHIR.search(first.content[:_PEEKED_BYTES]))


def read_rows(path: Path, after: int = 0) -> Iterator[VisitRow]:
    """Every visit of ``path`` with a number above ``after``.

    A visit without a word is refused like one that can't be read.

    Raises:
        BadInputError: the file can't be read, or is of no kind that can be screened.
    """
    kind = kind_of(path)
    rows = _lines(path) if kind == "lines" else _entries(path, kind)
    return (_with_words(row) for row in rows if row.number > after)


def _with_words(row: VisitRow) -> VisitRow:
    field = wordless_field(row.case) if row.case else None
    return replace(row, case=None, reason=f"{field}: {NO_WORD}") if field else row


def _entries(path: Path, kind: Kind) -> Iterator[VisitRow]:
    from rarealert.sources import fhir, phenopackets, table
    from rarealert.visits.refused import Refused

    readers = {"fhir": fhir.read_recorded, "phenopackets": phenopackets.read_recorded}
    reader = readers.get(kind, table.read_recorded)
    count = _ByteCount()
    for number, item in enumerate(reader(path, count.add), start=1):
        if isinstance(item, Refused):
            reason = f"{item.field}: {item.reason}"
            yield VisitRow(number, count.total, None, None, reason, item.file, item.row)
        else:
            place, case = item.place, item.case
            yield VisitRow(number, count.total, case, case.case_id, None, place.file, place.row)


def _lines(path: Path) -> Iterator[VisitRow]:
    """Every line of JSONL that is not blank."""
    from rarealert.sources.rows import json_lines

    count = _ByteCount()
    with opened(path) as stream:
        for line in json_lines(stream, count.add):
            if isinstance(line.content, str):
                reason = f"the line is {line.content}"
                yield VisitRow(line.number, count.total, None, reason=reason)
            else:
                yield _of_line(line.number, count.total, line.content)


class _ByteCount:
    total = 0

    def add(self, count: int) -> None:
        self.total += count


def _of_line(number: int, end: int, fields: Mapping[str, object]) -> VisitRow:
    """The case of a line, named by its number if it has no ``case_id``; empty strings are absent.

    The reason of a refusal names the field and never quotes the text.
    """
    given = {key: value for key, value in fields.items() if not _is_empty(value)}
    case_id = given.get("case_id", str(number))
    try:
        case = Case.model_validate({"source": _SOURCE, **given, "case_id": case_id})
    except ValidationError as error:
        # a value that is not an id can't be written, or could be misplaced text
        is_named = not any(each["loc"][:1] == ("case_id",) for each in error.errors())
        name = str(case_id) if is_named else None
        return VisitRow(number, end, None, name, _reason(error))
    return VisitRow(number, end, case, case.case_id)


def _reason(error: ValidationError) -> str:
    parts = []
    for each in error.errors(include_input=False, include_url=False):
        known = [str(part) for part in each["loc"] if part in Case.model_fields]
        if each["type"] == "extra_forbidden":  # an unknown key could be misplaced text
            parts.append("an unknown field")
        else:
            message = each["msg"].removeprefix("Value error, ")
            parts.append(f"{known[0]}: {message}" if known else message)
    return "; ".join(dict.fromkeys(parts))


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())
