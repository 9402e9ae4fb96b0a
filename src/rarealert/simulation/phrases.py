"""The tables of words for simulated visits: sentences by register and slot, durations, relatives.

A sentence holds places in braces: ``{f}`` findings, ``{d}`` a duration, ``{c}`` chronic conditions,
``{m}`` medication, ``{r...}`` a relative, the others the patient ("{He}", "{age}", "{child}").
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from rarealert.knowledge import packaged_rows

Register = Literal["note", "letter", "vignette", "patient", "parent"]
Course = Literal["acute", "subacute", "chronic"]
Sex = Literal["female", "male"]

_PACKAGE = "rarealert.simulation"
_ADULT_YEARS, _TEENAGE_YEARS = 18, 13
_VOWEL_SOUND = ("A 8", "A 11-", "A 18-")  # numbers that begin with a vowel sound


@dataclass(frozen=True, slots=True)
class Template:
    """A sentence with places, for patients of ``age_min`` to ``age_max`` years.

    A visit has one sentence of a topic, and none that a finding below ``not_with`` contradicts.
    """

    text: str
    age_min: float
    age_max: float
    topic: str
    not_with: frozenset[str]


@dataclass(frozen=True, slots=True)
class ChronicCondition:
    """A known condition beside the complaint, with its wordings and its usual medicine."""

    plain: str
    note: str
    lay: str
    hpo_id: str
    age_min: float
    age_max: float
    sex: str
    weight: float
    medication: str
    medication_note: str


@lru_cache(maxsize=1)
def load_sentences() -> Mapping[tuple[str, str], tuple[Template, ...]]:
    """The sentences by register and slot, in the order of their files."""
    table: dict[tuple[str, str], list[Template]] = {}
    for row in packaged_rows("sentences", _PACKAGE):
        low, _, high = (row["ages"] or "0-120").partition("-")
        sentence = Template(
            text=row["text"],
            age_min=float(low),
            age_max=float(high) + 0.99,
            topic=row["topic"],
            not_with=frozenset(row["not_with"].split()),
        )
        table.setdefault((row["register"], row["slot"]), []).append(sentence)
    return {key: tuple(held) for key, held in table.items()}


@lru_cache(maxsize=1)
def load_chronic_conditions() -> tuple[ChronicCondition, ...]:
    """The chronic conditions that patients of general practice bring along."""
    return tuple(
        ChronicCondition(
            plain=row["plain"],
            note=row["note"],
            lay=row["lay"],
            hpo_id=row["hpo_id"],
            age_min=float(row["age_min"]),
            age_max=float(row["age_max"]),
            sex=row["sex"],
            weight=float(row["weight"]),
            medication=row["medication"],
            medication_note=row["medication_note"],
        )
        for row in packaged_rows("chronic_conditions.tsv", _PACKAGE)
    )


@lru_cache(maxsize=1)
def _durations() -> tuple[tuple[str, float, dict[str, str]], ...]:
    rows = packaged_rows("durations.tsv", _PACKAGE)
    return tuple((row["course"], float(row["from_years"]), row) for row in rows)


@lru_cache(maxsize=1)
def _relatives() -> tuple[dict[str, str], ...]:
    return tuple(packaged_rows("relatives.tsv", _PACKAGE))


def duration(course: Course, age_years: float, register: Register, rng: random.Random) -> str:
    """How long it has been so, within the patient's life, in the words of the register."""
    column = {"note": "note", "patient": "lay", "parent": "lay"}.get(register, "plain")
    lived = [row for name, years, row in _durations() if name == course and years <= age_years]
    lived = lived or [row for _, years, row in _durations() if years <= age_years]
    return rng.choice(lived)[column]


def relative(pronouns: Mapping[str, str], rng: random.Random) -> dict[str, str]:
    """One relative under the names of the places, for each speaker."""
    row = rng.choice(_relatives())
    return {
        "r": row["plain"],
        "r_small": row["within"],
        "r_my": row["lay"],
        "r_child": row["of_child"].format(**pronouns),
    }


def patient_words(
    age_years: float, sex: Sex, register: Register, rng: random.Random
) -> dict[str, str]:
    """The patient's age, pronouns and names in the words of the register."""
    female = sex == "female"
    kid = "daughter" if female else "son"
    child = rng.choice((f"my {kid}", f"our {kid}", f"my little {'girl' if female else 'boy'}"))
    if age_years >= _TEENAGE_YEARS:
        child = f"my {kid}"
    grown = ("woman", "man") if age_years >= _ADULT_YEARS else ("girl", "boy")
    words = {
        "he": "she" if female else "he",
        "him": "her" if female else "him",
        "his": "her" if female else "his",
        "person": grown[0] if female else grown[1],
        "kid": kid,
        "child": child,
        "age": _age(age_years, register),
        "sx": "F" if female else "M",
    }
    capital = ("he", "his", "child", "age")
    return words | {name.capitalize(): _capital(words[name]) for name in capital}


def with_article(text: str) -> str:
    """The text with "An" before numbers that begin with a vowel sound."""
    return f"An{text[1:]}" if text.startswith(_VOWEL_SOUND) else text


def listed(words: Sequence[str], link: str, register: Register) -> str:
    """The words as a list: "a, b and c"; notes also take "a + b"."""
    if register == "note" and link == "and":
        return ", ".join(words[:-1]) + f" + {words[-1]}" if len(words) > 1 else words[0]
    head = ", ".join(words[:-1])
    return f"{head} {link} {words[-1]}" if head else words[-1]


def _age(years: float, register: Register) -> str:
    months = round(years * 12)
    if years >= 2:
        return f"{years:.0f}" if register == "note" else f"{years:.0f}-year-old"
    if register == "note":
        return f"{months}/12 " if months else f"{max(1, round(years * 52))}/52 "
    return f"{months}-month-old" if months else f"{max(1, round(years * 52))}-week-old"


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"
