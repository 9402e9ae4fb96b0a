"""Visits in a JSONL file: one flat object a line, read without holding the file in memory."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from rarealert.cases.case import Case
from rarealert.errors import BadInputError

SOURCE = "screening"
"""Source of a case that names none."""


@dataclass(frozen=True)
class Row:
    """One line of the file: a case, or the reason why it is none. ``end`` is in bytes."""

    number: int
    end: int
    case: Case | None
    case_id: str | None
    reason: str | None


def read_rows(path: Path, start: int = 0, number: int = 0) -> Iterator[Row]:
    """Every line that holds anything, from the byte ``start`` on, after ``number`` lines.

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
    named = case_id if isinstance(case_id, str) else None
    try:
        case = Case.model_validate({"source": SOURCE, **held, "case_id": case_id})
    except ValidationError as error:
        return Row(number, end, None, named, _reason(error))
    return Row(number, end, case, case.case_id, None)


def _reason(error: ValidationError) -> str:
    parts = []
    for each in error.errors(include_input=False, include_url=False):
        known = [str(part) for part in each["loc"] if part in Case.model_fields]
        if each["type"] == "extra_forbidden":  # an unknown key could be text gone astray
            parts.append("an unknown field")
        else:
            parts.append(f"{known[0]}: {each['msg']}" if known else each["msg"])
    return "; ".join(dict.fromkeys(parts))


def _empty(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())
