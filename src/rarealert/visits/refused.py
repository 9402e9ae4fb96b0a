"""Rows that can't become a case: where each is, why, and the file that lists them.

A refusal never quotes the row, which may contain a patient's text.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from rarealert.errors import BadInputError
from rarealert.files import write_text
from rarealert.visits.case import Case, Label, LabelledCase

RefusalKind = Literal["invalid", "excluded", "diagnosis_in_text", "out_of_scope", "unlabelled"]
"""Why a row is left out.

``invalid``: the row is broken; many of them suggest a broken export. ``excluded``: the diagnosis
is neither rare nor nonrare by the reference labels. ``diagnosis_in_text``: the visit names its own
diagnosis. ``out_of_scope``: several patients, no human patient, or no first visit. ``unlabelled``:
no diagnosis; the visit can be screened but not used for training.
"""

_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")


@dataclass(frozen=True)
class Refused:
    """A row left out. ``row`` is from 1: a line of JSONL or CSV, else the n-th entry."""

    source: str
    file: str
    row: int
    field: str
    reason: str
    kind: RefusalKind = "invalid"

    def as_dict(self) -> dict[str, str | int]:
        """Return the record that ``refused.jsonl`` contains."""
        return asdict(self)


@dataclass(frozen=True)
class Place:
    """Where a row is in its source."""

    source: str
    file: str
    row: int

    def refuse(self, field: str, reason: str, kind: RefusalKind = "invalid") -> Refused:
        """Refuse this row for ``reason``."""
        return Refused(self.source, self.file, self.row, field, reason, kind)


def build_case(place: Place, fields: Mapping[str, object]) -> Case | Refused:
    """Build a case, or refuse the row for the first field that breaks the contract."""
    try:
        return Case.model_validate(dict(fields))
    except ValidationError as error:
        return _refused(place, "case", error)


def build_labelled(
    place: Place, case: Case | Refused, label: Mapping[str, object]
) -> LabelledCase | Refused:
    """Add a label to ``case``, or refuse the row for the first field that breaks the contract."""
    if isinstance(case, Refused):
        return case
    try:
        return LabelledCase(case=case, label=Label.model_validate(dict(label)))
    except ValidationError as error:
        return _refused(place, "label", error)


def _refused(place: Place, part: str, error: ValidationError) -> Refused:
    # include_input would quote the patient's text
    first = error.errors(include_input=False, include_url=False)[0]
    field = ".".join([part, *(safe_name(name) for name in first["loc"])])
    if first["type"] == "extra_forbidden":
        return place.refuse(field, "unknown field")
    return place.refuse(field, first["msg"].removeprefix("Value error, "))


def safe_name(name: object) -> str:
    """Return ``name`` if it looks like a field name; anything else could be a patient's text."""
    text = str(name)
    return text if isinstance(name, int) or _FIELD_NAME.fullmatch(text) else "(unnamed)"


def write_refused(path: Path, refused: Iterable[Refused]) -> None:
    """Write one JSON object per refused row; the file appears only once it is complete."""
    write_text(path, "".join(json.dumps(item.as_dict(), sort_keys=True) + "\n" for item in refused))


def read_refused(path: Path) -> list[Refused]:
    """Read the rows that ``write_refused`` wrote.

    Raises:
        BadInputError: the file is missing or damaged.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [Refused(**json.loads(line)) for line in lines]
    except FileNotFoundError as error:
        raise BadInputError(f"{path} is missing; run dvc repro ingest.") from error
    except (ValueError, TypeError) as error:
        raise BadInputError(f"{path} is damaged; delete it and run dvc repro ingest.") from error
