"""Age and sex from the first sentences of a visit, and the age bands of reports."""

import re
from bisect import bisect_right

from rarealert.visits.case import Sex

AGE_EDGES = (2, 18, 40, 65)
"""Years at which the age bands of every report meet; each belongs to the older band."""

_MAX_AGE_YEARS = 120.0
_UNITS_A_YEAR = {
    "year": 1.0,
    "yr": 1.0,
    "y": 1.0,
    "month": 12.0,
    "mo": 12.0,
    "week": 365.25 / 7,
    "wk": 365.25 / 7,
    "day": 365.25,
    "hour": 24 * 365.25,
}
_ONES = (
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORDS = (
    {word: value for value, word in enumerate(_ONES, 1)}
    | {word: 10 * value for value, word in enumerate(_TENS, 2)}
    | {
        f"{ten}-{one}": 10 * value + unit
        for value, ten in enumerate(_TENS, 2)
        for unit, one in enumerate(_ONES[:9], 1)
    }
)
_IN_WORDS = rf"(?:{'|'.join(_TENS)})(?:[\s-](?:{'|'.join(_ONES[:9])}))?\b|(?:{'|'.join(_ONES)})\b"
_COUNT = rf"\d{{1,3}}(?:\.\d{{1,2}})?|{_IN_WORDS}"
_NUMBER = rf"(?P<number>{_COUNT})"
_ANY_UNIT = "|".join(_UNITS_A_YEAR)
_UNIT = rf"(?P<unit>{_ANY_UNIT})s?"
_LARGER = rf"(?P<larger>{_COUNT})[\s-]*(?P<larger_unit>{_ANY_UNIT})s?"
# "2-year and 3-month-old" is one age
_AMOUNT = rf"(?:{_LARGER}(?:,?[\s-]+)(?:and[\s-]+)?)?{_NUMBER}"
# an age has a word such as "old"; a bare "6 months" is a duration
_AGES = tuple(
    re.compile(pattern, re.I)
    for pattern in (
        rf"\b{_AMOUNT}[\s-]*{_UNIT}[\s-]*olds?\b",
        rf"\b{_NUMBER}[\s-]*(?P<unit>y)/?o\b",
        rf"\baged?:?\s+(?:of\s+)?{_LARGER}\s+(?:and\s+)?{_NUMBER}[\s-]*{_UNIT}(?=\s*(?:[.,;)]|$|old))",
        rf"\baged?:?\s+(?:of\s+)?{_NUMBER}(?:[\s-]*{_UNIT})?\b",
        rf"\b{_AMOUNT}[\s-]*{_UNIT}\s+of\s+age\b",
        rf"\b{_AMOUNT}[\s-]*(?P<unit>year|month)s?[\s-]+(?:(?:male|female|man|woman|boy|girl)\b)",
    )
)
# what precedes belongs to the age as well: "2 1/2-year-old", "one hundred and two years old"
_BEGUN = re.compile(
    rf"(?:\d|\b(?:{_IN_WORDS}|mid|half|hundred|(?:{_ANY_UNIT})s?))(?:[-/.]|\s+)(?:and\s+(?:a\s+)?)?$",
    re.I,
)
_SOMEBODY_ELSE = re.compile(
    r"\b(?:born|delivered|delivery|birth)\b[^.]{0,40}\b(?:to|by|of|from)\s+(?:an?|her|his|the)\s*"
    r"(?:[\w-]+\s+)?$|\b(?:mother|father|wife|husband|partner|brother|sister)"
    r"(?:,? who is|,|\s*\(| is)\s*(?:an?\s+)?(?:aged\s+)?$",
    re.I,
)
_NEWBORN = re.compile(r"\b(?:newborn|neonate)\b", re.I)
_DASHES = re.compile(r"[\u2010-\u2015\u2212]")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_FEMALE = r"woman|female|girl|lady|gravida|primigravida|nulligravida|primiparous|nulliparous"
_SEX = re.compile(
    rf"\b(?:(?P<female>{_FEMALE}|(?<=old )daughter)|"
    r"(?P<male>man|male|boy|gentleman|(?<=old )son))\b"
    r"(?!\s+(?:partner|sibling|child\s+of))",
    re.I,
)
_PRONOUN = re.compile(r"\b(?:(?P<female>she|her|herself)|(?P<male>he|his|him|himself))\b", re.I)
_UNSETTLED = re.compile(r"\btrans(?:gender|sexual)?\b|\bintersex\b", re.I)


def first_sentences(text: str, count: int = 2) -> str:
    """The first ``count`` sentences, with every kind of dash as a hyphen."""
    return " ".join(_SENTENCE_END.split(_DASHES.sub("-", text.strip()), maxsplit=count)[:count])


def parse_age(text: str) -> float | None:
    """Age in years in the first two sentences; a newborn without a number is 0.

    A decade ("in his 70s"), a band ("middle-aged"), and an age with an unknown beginning give
    ``None``.
    """
    opening = first_sentences(text)
    ages = [
        match
        for pattern in _AGES
        for match in pattern.finditer(opening)
        if not _SOMEBODY_ELSE.search(opening[: match.start()])
    ]
    if ages:
        first = min(ages, key=lambda match: match.start())  # of equal ones the earlier pattern
        years = None if _BEGUN.search(opening[: first.start()]) else _years(first)
        return years if years is not None and years <= _MAX_AGE_YEARS else None
    return 0.0 if _NEWBORN.search(first_sentences(text, 1)) else None


def _years(age: re.Match[str]) -> float | None:
    """The age in years; nothing if two units are not in descending order."""
    parts = age.groupdict()
    units_a_year = _UNITS_A_YEAR[(parts["unit"] or "year").lower()]
    years = _number(parts["number"]) / units_a_year
    if not parts.get("larger"):
        return years
    larger_units_a_year = _UNITS_A_YEAR[parts["larger_unit"].lower()]
    if larger_units_a_year >= units_a_year:
        return None
    return years + _number(parts["larger"]) / larger_units_a_year


def _number(text: str) -> float:
    return float(text) if text[0].isdecimal() else _WORDS["-".join(text.lower().split())]


def parse_sex(text: str) -> Sex | None:
    """Sex from a noun in the first sentence, else from pronouns that agree in the first two.

    A mentioned mother or son does not count; a transgender or intersex patient's sex is missing
    rather than guessed.
    """
    opening = first_sentences(text)
    if _UNSETTLED.search(opening):
        return None
    noun = _SEX.search(first_sentences(text, 1))
    if noun:
        return "female" if noun.group("female") else "male"
    pronouns: set[Sex] = {
        "female" if match.group("female") else "male" for match in _PRONOUN.finditer(opening)
    }
    return pronouns.pop() if len(pronouns) == 1 else None


def age_band(years: float) -> tuple[int, int]:
    """The age band of ``years``: its first year, and the first year of the next band."""
    bounds = (0, *AGE_EDGES, 121)
    at = bisect_right(AGE_EDGES, years)
    return bounds[at], bounds[at + 1]
