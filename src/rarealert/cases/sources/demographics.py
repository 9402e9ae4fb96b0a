"""Age and sex from the first sentences of a visit; what they don't say stays missing."""

import re

from rarealert.cases.case import Sex

_MAX_AGE_YEARS = 120.0
_YEARS_A_UNIT = {
    "year": 1.0,
    "yr": 1.0,
    "month": 1 / 12,
    "week": 7 / 365.25,
    "day": 1 / 365.25,
    "hour": 1 / (24 * 365.25),
}
_ONES = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_WORDS = (
    {word: value for value, word in enumerate(_ONES, 1)}
    | {word: 10 * value for value, word in enumerate(_TENS, 2)}
    | {
        f"{ten}-{one}": 10 * value + unit
        for value, ten in enumerate(_TENS, 2)
        for unit, one in enumerate(_ONES[:9], 1)
    }
)
_NUMBER = rf"(?P<number>\d{{1,3}}(?:\.\d+)?|{'|'.join(sorted(_WORDS, key=len, reverse=True))})"
_UNIT = rf"(?P<unit>{'|'.join(_YEARS_A_UNIT)})s?"
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
_NEWBORN = re.compile(r"\b(?:newborn|neonate)\b", re.I)
_DASHES = re.compile(r"[\u2010-\u2015\u2212]")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_FEMALE = r"woman|female|girl|lady|gravida|primigravida|nulligravida|primiparous|nulliparous"
_SEX = re.compile(
    rf"\b(?:(?P<female>{_FEMALE})|(?P<male>man|male|boy|gentleman))\b"
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
    matches = [match for pattern in _AGES if (match := pattern.search(opening))]
    if matches:
        first = min(matches, key=lambda match: match.start())
        years = _years(first.group("number"), first.group("unit"))
        return years if years <= _MAX_AGE_YEARS else None
    return 0.0 if _NEWBORN.search(first_sentences(text, 1)) else None


def _years(number: str, unit: str | None) -> float:
    value = float(_WORDS[number.lower()] if number.lower() in _WORDS else number)
    return round(value * _YEARS_A_UNIT.get((unit or "year").lower(), 1.0), 4)


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
