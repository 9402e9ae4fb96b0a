"""What of a visit can be read and told: words, fields of a bounded length, names of files.

Visits in a file of any kind that cases come from, one at a time.

None of them is held in memory: tables (JSONL, CSV, TSV, Parquet) go row by row, phenopackets packet
by packet, and FHIR resources are gathered by patient on disk.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from rarealert.errors import BadInputError
from rarealert.sources.files import documents, printable_name
from rarealert.visits.case import TEXT_FIELDS, Case

MAX_TEXT = 20_000
"""Characters of one field, as in ``Case``."""

_LETTER = re.compile(r"[^\W\d_]")

NO_WORD = "holds no word to read"
"""Why a visit without one is refused: digits and signs would get a risk out of nothing."""


def wordless_field(case: Case) -> str | None:
    """The first text field of a visit none of whose fields holds a letter, else ``None``."""
    told = {name: text for name in TEXT_FIELDS if (text := getattr(case, name))}
    if any(_LETTER.search(text) for text in told.values()):
        return None
    return next(iter(told))


SOURCE = "screening"
"""Source of a case that names none."""

Kind = Literal["lines", "table", "fhir", "phenopackets"]

_LINES = (".jsonl", ".ndjson")
_TABLES = (".csv", ".tsv", ".parquet")
_DOCUMENTS = (".json", ".zip")
_FHIR = re.compile(rb'"resourceType"\s*:')
_PEEKED_BYTES = 65_536  # the kind of a document stands among its first fields


@dataclass(frozen=True)
class Row:
    """One entry: a case, or the reason why it is none.

    ``number`` counts what was read (lines of JSONL, else entries) and ``end`` bytes, of which
    ``read_rows`` goes on. ``file`` and ``line`` say where a folder or a table holds the entry.
    """

    number: int
    end: int
    case: Case | None
    case_id: str | None
    reason: str | None
    file: str | None = None
    line: int | None = None

    def refusal(self) -> dict[str, object]:
        """What the file of refused rows says of it."""
        said: dict[str, object] = {
            "row": self.line or self.number,
            "case_id": self.case_id,
            "reason": self.reason,
        }
        return said | ({"file": printable_name(self.file)} if self.file else {})


def kind_of(path: Path) -> Kind:
    """What ``path`` holds, by its ending and, where that leaves a choice, its first bytes.

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
        with path.open("rb") as stream:
            held = stream.read(_PEEKED_BYTES)
        return bool(_FHIR.search(held.lstrip().split(b"\n")[0] if path.suffix != ".json" else held))
    if path.is_dir() and any(path.glob("*.ndjson")):
        return True
    first = next(documents(path, (".json", ".ndjson")))
    return bool(_FHIR.search(first.content[:_PEEKED_BYTES]))


def read_rows(path: Path, start: int = 0, number: int = 0) -> Iterator[Row]:
    """Every visit of ``path`` from the byte ``start`` on, after ``number`` entries.

    A visit without a word is refused like one that can't be read.

    Raises:
        BadInputError: the file can't be read, or is of no kind that can be screened.
    """
    kind = kind_of(path)
    if kind == "lines":
        return map(_with_words, read_lines(path, start, number))
    return map(_with_words, islice(_entries(path, kind), number, None))


def _with_words(row: Row) -> Row:
    field = wordless_field(row.case) if row.case else None
    return replace(row, case=None, reason=f"{field}: {NO_WORD}") if field else row


def _entries(path: Path, kind: Kind) -> Iterator[Row]:
    from rarealert.sources import fhir, phenopackets, table
    from rarealert.visits.refused import Refused

    readers = {"fhir": fhir.read_recorded, "phenopackets": phenopackets.read_recorded}
    reader = readers.get(kind, table.read_recorded)
    read = 0

    def tick(count: int) -> None:
        nonlocal read
        read += count

    for number, item in enumerate(reader(path, tick), start=1):
        if isinstance(item, Refused):
            reason = f"{item.field}: {item.reason}"
            yield Row(number, read, None, None, reason, item.file, item.row)
        else:
            place = item.place
            yield Row(number, read, item.case, item.case.case_id, None, place.file, place.row)


def read_lines(path: Path, start: int = 0, number: int = 0) -> Iterator[Row]:
    """Every line of JSONL that holds anything, from the byte ``start`` on, after ``number`` lines.

    A row without ``case_id`` is named by its number. Empty strings count as absent. The reason
    of a refusal names the field and never quotes the text.

    Raises:
        BadInputError: the file can't be read.
    """
    try:
        with path.open("rb") as stream:
            stream.seek(start)
            for line in stream:
                number += 1
                start += len(line)
                if line.strip():
                    yield _row(number, start, line)
    except OSError as error:
        raise BadInputError(f"{path} can't be read; name a JSONL file of visits.") from error


def _row(number: int, end: int, line: bytes) -> Row:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return Row(number, end, None, None, "the line is not valid JSON in UTF-8")
    if not isinstance(fields, dict):
        return Row(number, end, None, None, "the line is not a JSON object")
    held = {key: value for key, value in fields.items() if not _empty(value)}
    case_id = held.get("case_id", str(number))
    try:
        case = Case.model_validate({"source": SOURCE, **held, "case_id": case_id})
    except ValidationError as error:
        # an id that is none can't be written, or could be text gone astray
        named = not any(each["loc"][:1] == ("case_id",) for each in error.errors())
        return Row(number, end, None, case_id if named else None, _reason(error))
    return Row(number, end, case, case.case_id, None)


def _reason(error: ValidationError) -> str:
    parts = []
    for each in error.errors(include_input=False, include_url=False):
        known = [str(part) for part in each["loc"] if part in Case.model_fields]
        if each["type"] == "extra_forbidden":  # an unknown key could be text gone astray
            parts.append("an unknown field")
        else:
            told = each["msg"].removeprefix("Value error, ")
            parts.append(f"{known[0]}: {told}" if known else told)
    return "; ".join(dict.fromkeys(parts))


def _empty(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())
