"""Which findings of a visit the risk rests on, and which way each moves it.

The readout is linear in means over positions, so a visit's log-odds are the mean of the log-odds
of its tokens. A finding's share is therefore exact and costs no further pass. The state of a token
depends on the text before it, so the share is that of the finding in its context.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from rarealert.knowledge.hpo import load_ontology
from rarealert.visits.reading import Finding, Reading, Span

TOP = 8
"""Findings listed; a reader of a three-minute visit looks at no more."""

Direction = Literal["raises", "lowers", "not read"]
Status = Literal["present", "excluded", "uncertain", "past", "relative"]


class Evidence(BaseModel):
    """A finding that the risk rests on: ``case.<field>[start:end]`` is ``words``."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    hpo_id: str
    """HPO term."""
    label: str
    """Its name."""
    words: str
    """How the visit words it."""
    field: str
    """Field of the visit that names it."""
    start: int
    """First character in the field."""
    end: int
    """The character after its last."""
    status: Status
    """Whether the visit affirms it, denies it, or reports it of a relative."""
    direction: Direction
    """Whether it raises or lowers the risk; "not read" where the visit was cut before it."""
    weight: float
    """Its share of the visit's log-odds, in nats, relative to neutral words; 0 if not read."""


@dataclass(frozen=True, eq=False)
class TokenLogits:
    """The log-odds of each visit token alone.

    ``reading`` is the visit as read, without the fields that were left out; ``spans`` are the
    characters of its text that each token covers, shape ``(tokens, 2)``. ``logits`` has shape
    ``(tokens,)``; the visit's logit is the mean over these and the frame's tokens, ``length`` in
    all.
    """

    reading: Reading
    spans: NDArray[np.int64]
    logits: NDArray[np.float64]
    length: int

    def weight(self, place: Span, neutral: float) -> float | None:
        """Share of the log-odds of the characters ``place``, ``None`` if they were not read."""
        touched = (self.spans[:, 0] < place.end) & (self.spans[:, 1] > place.start)
        if not touched.any():
            return None
        return float((self.logits[touched] - neutral).sum() / self.length)


def find_evidence(
    reading: Reading, tokens: TokenLogits, neutral: float, top: int = TOP
) -> list[Evidence]:
    """At most ``top`` findings of ``reading``, those with the largest weight first.

    Each HPO term is listed once. ``tokens`` are those of the same visit; ``neutral`` is the
    log-odds of a token that moves the risk neither way.
    """
    names = load_ontology().terms
    read = {(finding.field, finding.span): finding.place for finding in tokens.reading.findings}
    largest: dict[str, Evidence] = {}
    for finding in reading.findings:
        place = read.get((finding.field, finding.span))
        weight = None if place is None else tokens.weight(place, neutral)
        item = Evidence(
            hpo_id=finding.hpo_id,
            label=names[finding.hpo_id].name if finding.hpo_id in names else finding.hpo_id,
            words=reading.words(finding),
            field=finding.field,
            start=finding.span.start,
            end=finding.span.end,
            status=_status(finding),
            direction=_direction(weight),
            weight=round(weight or 0.0, 4),
        )
        held = largest.get(finding.hpo_id)
        if held is None or abs(item.weight) > abs(held.weight):
            largest[finding.hpo_id] = item
    return sorted(largest.values(), key=lambda item: (-abs(item.weight), item.hpo_id))[:top]


def _status(finding: Finding) -> Status:
    return "relative" if finding.holder == "relative" else finding.state


def _direction(weight: float | None) -> Direction:
    if weight is None:
        return "not read"
    return "raises" if weight > 0 else "lowers"
