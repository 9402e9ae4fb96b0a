"""What a reasoner reads out of a visit's text: findings, age, sex, course and family history.

Everything comes from the rendered text, so that coded and free-text sources are read alike. Text
is data here: it is matched against dictionaries and patterns, and nothing in it is obeyed.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rarealert.knowledge.hpo import Ontology
from rarealert.knowledge.recognise import Mention, Recogniser

_FAMILY_LINE = "Family history:"
_DAYS = {"day": 1 / 365, "week": 7 / 365, "month": 1 / 12, "year": 1.0}
_UNIT = r"(day|week|month|year)s?"
_AGE = re.compile(
    rf"^Patient: (\d{{1,3}}) {_UNIT}|(\d{{1,3}})[- ]{_UNIT}[- ]old|aged? (\d{{1,3}}) {_UNIT}",
    re.M | re.I,
)
_NEWBORN = re.compile(r"\b(newborn|neonate)\b", re.I)
_MAX_AGE = 120
_SEX = (
    ("female", re.compile(r"\b(female|woman|girl|lady|she|her|mother)\b", re.I)),
    ("male", re.compile(r"\b(male|man|boy|gentleman|he|his|him)\b", re.I)),
)


@dataclass(frozen=True)
class Workup:
    """A visit as a reasoner sees it.

    ``present`` and ``excluded`` are HPO ids in order of mention, without the ancestors of other
    present terms; ``family`` those said of relatives; ``age_years`` is ``None`` where unsaid.
    """

    text: str
    present: tuple[str, ...]
    excluded: tuple[str, ...]
    family: tuple[str, ...]
    age_years: float | None
    sex: str | None


def work_up(text: str, recogniser: Recogniser, ontology: Ontology) -> Workup:
    """Read ``text``, a rendered case; any string is accepted."""
    present: dict[str, None] = {}
    excluded: dict[str, None] = {}
    family: dict[str, None] = {}
    for mention in _mentions(text, recogniser):
        if mention.family:
            if not mention.negated:
                family[mention.hpo_id] = None
        elif mention.negated:
            excluded[mention.hpo_id] = None
        else:
            present[mention.hpo_id] = None
    implied = set().union(*(ontology.ancestors(term) - {term} for term in present))
    told = set(present) | implied
    return Workup(
        text=text,
        present=tuple(term for term in present if term not in implied),
        excluded=tuple(term for term in excluded if term not in told),
        family=tuple(family),
        age_years=age_in(text),
        sex=_sex(text),
    )


def _mentions(text: str, recogniser: Recogniser) -> Iterator[Mention]:
    for line in text.split("\n"):
        yield from recogniser.mentions(line, family=line.startswith(_FAMILY_LINE))


def age_in(text: str) -> float | None:
    """The first age in years that the text states, ``None`` where it states none."""
    match = _AGE.search(text)
    if match is None:
        return 0.0 if _NEWBORN.search(text) else None
    number, unit = [group for group in match.groups() if group]
    years = int(number) * _DAYS[unit.lower()]
    return years if years <= _MAX_AGE else None


def _sex(text: str) -> str | None:
    """The sex whose word comes first, as in the renderer's first line or a vignette's opening."""
    found = [(match.start(), name) for name, words in _SEX if (match := words.search(text))]
    return min(found)[1] if found else None
