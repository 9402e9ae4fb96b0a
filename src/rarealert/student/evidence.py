"""Which findings of a visit the risk rests on, where they stand, and which way they pull.

The readout is linear in means over positions, so a visit's log-odds are the mean of what it gives
each position alone: a finding's share is exact and costs no further pass. A position's state has
read what stands before it, so a finding is credited with what it meant in its place.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rarealert.knowledge.hpo import load_ontology
from rarealert.knowledge.recognise import load_recogniser
from rarealert.visits.case import TEXT_FIELDS, Case

TOP = 8
"""Findings listed; a reader of a three-minute visit looks at no more."""

Direction = Literal["raises", "lowers", "not read"]
Status = Literal["present", "excluded", "relative"]


@dataclass(frozen=True)
class Evidence:
    """One finding: ``case.<field>[start:end]`` is ``words``, in characters.

    ``weight`` is its share of the visit's log-odds, in nats, against words that speak neither way
    (above 0 raises the risk); 0 and "not read" where the visit was cut before it.
    """

    hpo_id: str
    label: str
    words: str
    field: str
    start: int
    end: int
    status: Status
    direction: Direction
    weight: float

    def as_dict(self) -> dict[str, str | int | float]:
        """The object that an answer's JSON list holds."""
        return asdict(self)


@dataclass(frozen=True)
class ReadText:
    """What the student read: the rendered text, and the characters and log-odds of its tokens.

    ``starts``, ``ends`` and ``logits`` have shape ``(tokens,)``; ``logits`` is what the head says
    of each token alone, and the visit's logit is their mean with the frame's, ``length`` in all.
    """

    text: str
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    logits: NDArray[np.float64]
    length: int

    def weight(self, start: int, end: int, neutral: float) -> float | None:
        """Share of the log-odds that ``text[start:end]`` brings, ``None`` if it was not read."""
        touched = (self.starts < end) & (self.ends > start)
        if not touched.any():
            return None
        return float((self.logits[touched] - neutral).sum() / self.length)


def find_evidence(case: Case, read: ReadText, neutral: float, top: int = TOP) -> list[Evidence]:
    """At most ``top`` findings of ``case``, the weightiest first, each HPO term once.

    ``neutral`` is the log-odds of a token that speaks neither way.
    """
    names = load_ontology().terms
    found: dict[str, Evidence] = {}
    for field in TEXT_FIELDS:
        text = getattr(case, field) or ""
        places = _places(read.text, field, text)
        for mention in load_recogniser().mentions(text, family=field == "family_history"):
            place = places.get(mention.start), places.get(mention.end - 1)
            weight = None
            if place[0] is not None and place[1] is not None:
                weight = read.weight(place[0], place[1] + 1, neutral)
            item = Evidence(
                hpo_id=mention.hpo_id,
                label=names[mention.hpo_id].name if mention.hpo_id in names else mention.hpo_id,
                words=text[mention.start : mention.end],
                field=field,
                start=mention.start,
                end=mention.end,
                status=_status(mention.negated, mention.family),
                direction=_direction(weight),
                weight=round(weight or 0.0, 4),
            )
            held = found.get(mention.hpo_id)
            if held is None or abs(item.weight) > abs(held.weight):
                found[mention.hpo_id] = item
    return sorted(found.values(), key=lambda item: (-abs(item.weight), item.hpo_id))[:top]


def _places(rendered: str, field: str, text: str) -> Mapping[int, int]:
    """Character of ``text`` → character of ``rendered``, where white space was made one space."""
    heading = f"{field.replace('_', ' ').capitalize()}: "
    begins = 0 if rendered.startswith(heading) else rendered.find("\n" + heading) + 1
    if not text or (begins == 0 and not rendered.startswith(heading)):
        return {}
    places: dict[int, int] = {}
    at = begins + len(heading)
    after_space = True
    for index, character in enumerate(text):
        if not character.isspace():
            places[index] = at
            at, after_space = at + 1, False
        elif not after_space:
            at, after_space = at + 1, True
    return places


def _status(negated: bool, family: bool) -> Status:
    if family:
        return "relative"
    return "excluded" if negated else "present"


def _direction(weight: float | None) -> Direction:
    if weight is None:
        return "not read"
    return "raises" if weight > 0 else "lowers"
