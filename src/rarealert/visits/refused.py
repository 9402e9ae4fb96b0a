"""What a reader says of a row that can't become a case: where and why, never the text itself."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from rarealert.sources.files import Tick
from rarealert.visits.case import Case, Label, LabelledCase

RefusalKind = Literal["invalid", "excluded", "diagnosis_in_text", "out_of_scope", "unlabelled"]
"""Why a row is left out.

``invalid``: the row is broken; many of them point at a broken export. ``excluded``: the reference
labels call the diagnosis neither rare nor non-rare. ``diagnosis_in_text``: the visit names its own
diagnosis. ``out_of_scope``: several patients, no human one, or no first visit to read.
``unlabelled``: the record gives no diagnosis, so it can be screened but not learnt from.
"""

_HARMLESS_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")


@dataclass(frozen=True)
class Refused:
    """A row left out. ``row`` counts from 1: a line of JSONL or CSV, else the nth entry."""

    source: str
    file: str
    row: int
    field: str
    reason: str
    kind: RefusalKind = "invalid"

    def as_dict(self) -> dict[str, str | int]:
        """The record that ``refused.jsonl`` holds."""
        return asdict(self)


Read = LabelledCase | Refused
Reader = Callable[[Path, Tick], Iterator[Read]]
"""Reads a folder of ``data/``, telling as it goes how many bytes it has read."""


@dataclass(frozen=True)
class Place:
    """Where a row stands: it makes the refusals of that row."""

    source: str
    file: str
    row: int

    def refuse(self, field: str, reason: str, kind: RefusalKind = "invalid") -> Refused:
        """This row refused for ``reason``."""
        return Refused(self.source, self.file, self.row, field, reason, kind)


def build_visit(place: Place, case: Mapping[str, object]) -> Case | Refused:
    """The visit, or the first reason why ``case`` breaks the contract."""
    try:
        return Case.model_validate(dict(case))
    except ValidationError as error:
        return _refused(place, "case", error)


def build_label(place: Place, visit: Case, label: Mapping[str, object]) -> Read:
    """The labelled case, or the first reason why ``label`` breaks the contract."""
    try:
        return LabelledCase(case=visit, label=Label.model_validate(dict(label)))
    except ValidationError as error:
        return _refused(place, "label", error)


def build_case(place: Place, case: Mapping[str, object], label: Mapping[str, object]) -> Read:
    """The labelled case, or the first reason why ``case`` or ``label`` breaks the contract."""
    visit = build_visit(place, case)
    return visit if isinstance(visit, Refused) else build_label(place, visit, label)


def _refused(place: Place, field: str, error: ValidationError) -> Refused:
    # include_input would put the patient's text into the sentence
    first = error.errors(include_input=False, include_url=False)[0]
    where = [field, *(harmless(part) for part in first["loc"])]
    return place.refuse(".".join(where), _reason(first["type"], first["msg"]))


def harmless(name: object) -> str:
    """``name`` if it looks like a field name; a text that stands where a name should is hidden."""
    text = str(name)
    return text if isinstance(name, int) or _HARMLESS_NAME.fullmatch(text) else "(unnamed)"


def _reason(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "unknown field"
    return message.removeprefix("Value error, ")
