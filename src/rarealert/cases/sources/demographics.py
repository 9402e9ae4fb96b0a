"""Age and sex from the first sentences of a visit; what they don't say stays missing."""

import re

from rarealert.cases.case import Sex

_MAX_AGE_YEARS = 120.0
_UNITS_A_YEAR = {
    "year": 1.0,
    "yr": 1.0,
    "y": 1.0,
    "month": 12.0,
    "week": 365.25 / 7,
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
_NUMBER = r"(?P<number>\d{1,3}(?:\.\d{1,2})?|[a-z]+(?:-[a-z]+)?)"
_UNIT = rf"(?P<unit>{'|'.join(_UNITS_A_YEAR)})s?"
# an age says that somebody is old; a bare "6 months" is a duration
_AGES = tuple(
    re.compile(pattern, re.I)
    for pattern in (
        rf"\b{_NUMBER}[\s-]*{_UNIT}[\s-]*olds?\b",
        rf"\b{_NUMBER}[\s-]*(?P<unit>y)/?o\b",
        rf"\baged?:?\s+(?:of\s+)?{_NUMBER}(?:[\s-]*{_UNIT})?\b",
        rf"\b{_NUMBER}[\s-]*{_UNIT}\s+of\s+age\b",
        rf"\b{_NUMBER}[\s-]*(?P<unit>year|month)s?[\s-]+(?:(?:male|female|man|woman|boy|girl)\b)",
    )
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
    """Age in years said in the first two sentences; a newborn without a number is 0.

    A decade ("in his 70s") or a band ("middle-aged") is no age and stays missing.
    """
    opening = first_sentences(text)
    said = [
        (match.start(), value, match.group("unit"))
        for pattern in _AGES
        for match in pattern.finditer(opening)
        if (value := _number(match.group("number"))) is not None
        and not _SOMEBODY_ELSE.search(opening[: match.start()])
    ]
    if said:
        _, value, unit = min(said, key=lambda item: item[0])
        years = value / _UNITS_A_YEAR[(unit or "year").lower()]
        return years if years <= _MAX_AGE_YEARS else None
    return 0.0 if _NEWBORN.search(first_sentences(text, 1)) else None


def _number(text: str) -> float | None:
    return float(text) if text[0].isdecimal() else _WORDS.get(text.lower())


def parse_sex(text: str) -> Sex | None:
    """Sex said in the first sentence by a noun, else by pronouns that all agree in the first two.

    A mother or a son who is mentioned says nothing about the patient; a transgender or intersex
    patient's sex stays missing rather than guessed.
    """
    opening = first_sentences(text)
    if _UNSETTLED.search(opening):
        return None
    noun = _SEX.search(first_sentences(text, 1))
    if noun:
        return "female" if noun.group("female") else "male"
    said: set[Sex] = {
        "female" if match.group("female") else "male" for match in _PRONOUN.finditer(opening)
    }
    return said.pop() if len(said) == 1 else None
