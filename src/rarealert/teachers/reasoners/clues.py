"""Reasoners on clinical clues: the red flags of primary care; onset, course and family history."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from rarealert.teachers.reasoners.compose import Point, Squash, age_words, compose, listed
from rarealert.teachers.reasoners.engine import Engine, Workup
from rarealert.teachers.teacher_answer import TeacherAnswer

_FLAGS = Squash(1.0, 0.55)
_COURSE = Squash(0.0, 0.5)

_SHAPED_BEFORE_BIRTH = frozenset(
    (
        "HP:0001999",  # Abnormal facial shape
        "HP:0002813",  # Abnormal limb bone morphology
        "HP:0011297",  # Abnormal digit morphology
        "HP:0001627",  # Abnormal heart morphology
        "HP:0000202",  # Orofacial cleft
        "HP:0002011",  # Morphological central nervous system abnormality
        "HP:0000924",  # Abnormality of the skeletal system
        "HP:0000316",  # Hypertelorism
        "HP:0000252",  # Microcephaly
        "HP:0000256",  # Macrocephaly
    )
)
_BRAIN = frozenset(
    (
        "HP:0012758",  # Neurodevelopmental delay
        "HP:0002376",  # Developmental regression
        "HP:0100543",  # Cognitive impairment
        "HP:0001250",  # Seizure
        "HP:0001252",  # Hypotonia
        "HP:0002180",  # Neurodegeneration
        "HP:0001251",  # Ataxia
        "HP:0002333",  # Motor deterioration
        "HP:0100022",  # Abnormality of movement
        "HP:0009830",  # Peripheral neuropathy
        "HP:0001324",  # Muscle weakness
    )
)
_PATHOLOGY = frozenset(
    (
        "HP:0002664",  # Neoplasm
        "HP:0001638",  # Cardiomyopathy
        "HP:0001699",  # Sudden death
        "HP:0001744",  # Splenomegaly
        "HP:0002240",  # Hepatomegaly
        "HP:0001382",  # Joint hypermobility
        "HP:0000974",  # Hyperextensible skin
    )
)
_LABORATORY = frozenset(
    (
        "HP:0001939",  # Abnormality of metabolism/homeostasis
        "HP:0001928",  # Abnormality of coagulation
        "HP:0001871",  # Abnormality of blood and blood-forming tissues
    )
)
_CHILDHOOD = frozenset(
    (
        "HP:0001507",  # Growth abnormality
        "HP:0000365",  # Hearing impairment
        "HP:0000505",  # Visual impairment
        "HP:0002719",  # Recurrent infections
    )
)


def _any(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.I)


_KINSHIP = _any(r"\bconsanguin\w*|\b(first|second)[- ]cousins?\b|\bparents are (cousins|related)\b")
_KIN_ALIKE = _any(
    r"\b(brother|sister|sibling|mother|father|cousin|uncle|aunt|grand\w+|relative)s?\b[^.\n]{0,60}"
    r"\b(similar|same|also|died (young|suddenly|at)|sudden)"
)
_EXTREME = _any(
    r"\b(refractory|despite|unresponsive|did not respond|no response|worsen\w+|debilitating|"
    r"unexplained|unusual|extensive|disseminated|multiple|bilateral)\b"
)
_CONGENITAL = _any(
    r"\bsince (birth|infancy|(early )?childhood)|\bcongenital|\bat birth\b|\bborn with"
)
_PROGRESSIVE = _any(r"\bprogress(ive|ively|ed|ing)\b|\bgradual(ly)?\b|\binsidious\w*|\bworsen\w*")
_RECURRENT = _any(r"\brecurr\w+|\bepisod\w+|\brelaps\w+|\bintermittent\w*|\brepeated(ly)?\b")
_SUDDEN = _any(r"\bsudden(ly)?\b|\bacute(ly)?\b|\babrupt\w*|\b(today|yesterday|this morning)\b")
_DURATION = _any(
    r"\b(\d{1,3}|an?|one|two|three|four|five|six|seven|eight|nine|ten|several|few|many)[- ]"
    r"(hour|day|week|month|year)s?\b(?![- ]old)(?! of age)"
)
_COUNTED = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_WORD_NUMBERS = {
    **{word: number for number, word in enumerate(_COUNTED, start=1)},
    "a": 1,
    "an": 1,
    "few": 3,
    "several": 4,
    "many": 5,
}
_YEARS = {"hour": 1 / 8766, "day": 1 / 365, "week": 7 / 365, "month": 1 / 12, "year": 1.0}
_ACUTE_YEARS = 14 / 365


@dataclass(frozen=True)
class Clue:
    """A clue and its weight in log-odds; guidance gives an order, not a number.

    ``read`` returns in words what in the visit shows the clue, or an empty string.
    """

    name: str
    weight: float
    read: Callable[[Engine, Workup], str]


def _below(*roots: frozenset[str]) -> Callable[[Engine, Workup], str]:
    wanted = frozenset().union(*roots)
    return lambda engine, work: listed(engine, _under(engine, work, wanted))


def _under(engine: Engine, work: Workup, roots: frozenset[str]) -> list[str]:
    return [term for term in work.present if engine.ontology.ancestors(term) & roots]


def _family(engine: Engine, work: Workup) -> str:
    if _KINSHIP.search(work.text):
        return "the parents are related"
    if _KIN_ALIKE.search(work.text):
        return "a relative is affected alike or died early"
    return _alike_in_relatives(engine, work)


def _alike_in_relatives(engine: Engine, work: Workup) -> str:
    """Findings of relatives in an organ system in which the patient has a finding too."""
    own = {engine.ontology.organ_system(term) for term in work.present}
    alike = [term for term in work.relatives if engine.ontology.organ_system(term) in own]
    return f"a relative has {listed(engine, alike)}" if alike else ""


def _anomalies(engine: Engine, work: Workup) -> str:
    found = _under(engine, work, _SHAPED_BEFORE_BIRTH)
    return listed(engine, found) if len(found) > 1 else ""


def _extreme(_: Engine, work: Workup) -> str:
    words = sorted({match.group().lower() for match in _EXTREME.finditer(work.text)})
    return f"the text says {', '.join(words[:3])}" if words else ""


def _early(engine: Engine, work: Workup) -> str:
    found = _under(engine, work, _PATHOLOGY | _LABORATORY)
    young = work.age_years is not None and work.age_years < 40  # before the common ageing causes
    return f"{listed(engine, found)} in a patient {age_words(work)}" if young and found else ""


RED_FLAGS = (
    Clue("Family: several affected or related parents", 1.2, _family),
    Clue("Group of congenital anomalies", 1.5, _anomalies),
    Clue("Extreme or exceptional presentation", 0.4, _extreme),
    Clue("Exceptionally early disease", 0.5, _early),
    Clue("Neurodevelopmental delay or degeneration", 1.0, _below(_BRAIN)),
    Clue("Extreme or exceptional pathology", 0.8, _below(_PATHOLOGY)),
    Clue("Surprising laboratory value", 0.5, _below(_LABORATORY)),
    Clue("Growth, senses or defence", 0.6, _below(_CHILDHOOD)),
)
"""Family GENES (Whelan et al. 2004, Arch Pathol Lab Med 128:1), with two that primary-care guidance
adds: exceptionally early disease, and trouble with growth, senses or recurrent infections."""


def red_flags(engine: Engine, work: Workup) -> TeacherAnswer:
    """Genetic red flags of primary care, ``RED_FLAGS``; the score is the sum of their weights."""
    return _by_clues(engine, work, RED_FLAGS, _FLAGS, "red flags of primary care")


def _duration(work: Workup) -> float | None:
    """The longest duration in the text, in years; ages are no durations."""
    return max(
        (
            _count(match.group(1)) * _YEARS[match.group(2).lower()]
            for match in _DURATION.finditer(work.text)
        ),
        default=None,
    )


def _count(word: str) -> int:
    return int(word) if word.isdigit() else _WORD_NUMBERS[word.lower()]


def _matching(pattern: re.Pattern[str]) -> Callable[[Engine, Workup], str]:
    def read(_: Engine, work: Workup) -> str:
        match = pattern.search(work.text)
        return f'the text says "{match.group().lower()}"' if match else ""

    return read


def _aged(low: float, high: float) -> Callable[[Engine, Workup], str]:
    def read(_: Engine, work: Workup) -> str:
        within = work.age_years is not None and low <= work.age_years < high
        return f"the patient is {age_words(work)}" if within else ""

    return read


def _lasting(low: float, high: float) -> Callable[[Engine, Workup], str]:
    def read(_: Engine, work: Workup) -> str:
        years = _duration(work)
        if years is None or not low <= years < high:
            return ""
        return f"the longest time told is about {_span(years)}"

    return read


def _span(years: float) -> str:
    for unit, size in sorted(_YEARS.items(), key=lambda item: -item[1]):
        if years >= size:
            return f"{round(years / size)} {unit}{'s' if round(years / size) != 1 else ''}"
    return "an hour"


COURSE = (
    Clue("Onset in infancy", 0.9, _aged(0, 2)),
    Clue("Onset in childhood", 0.6, _aged(2, 18)),
    Clue("Late in life", -0.4, _aged(60, 200)),
    Clue("Present since birth or childhood", 1.2, _matching(_CONGENITAL)),
    Clue("Progressive course", 0.5, _matching(_PROGRESSIVE)),
    Clue("Recurrent course", 0.3, _matching(_RECURRENT)),
    Clue("Sudden onset", -0.4, _matching(_SUDDEN)),
    Clue("Acute course", -0.6, _lasting(0, _ACUTE_YEARS)),
    Clue("Family history", 1.0, _family),
)
"""Onset, course and family: 70 % of rare diseases begin in childhood and 72 % are genetic
(Nguengang Wakap et al. 2020, Eur J Hum Genet 28:165), while a sudden, short, late illness is what
common disease looks like. A long course has no weight: long-term conditions are half of all
consultations in general practice (Department of Health 2012, Long Term Conditions Compendium)."""


def onset_course_family(engine: Engine, work: Workup) -> TeacherAnswer:
    """Onset, course and family history, ``COURSE``; the score is the sum of their log-odds.

    It uses no disease profiles, so its errors differ from those of reasoners that rank diseases.
    """
    return _by_clues(engine, work, COURSE, _COURSE, "clues of onset, course and family")


def _by_clues(
    engine: Engine, work: Workup, clues: tuple[Clue, ...], squash: Squash, kind: str
) -> TeacherAnswer:
    seen = [(clue, text) for clue in clues if (text := clue.read(engine, work))]
    points = [
        Point(clue.name, abs(clue.weight), f"{_verdict(clue)}: {text}.") for clue, text in seen
    ]
    names = [clue.name.lower() for clue, _ in sorted(seen, key=lambda item: -item[0].weight)]
    reasoning = (
        f"Of {len(clues)} {kind}, {len(seen)} are there: {'; '.join(names)}."
        if names
        else f"None of {len(clues)} {kind} is there."
    )
    risk = squash.risk(sum(clue.weight for clue, _ in seen))
    return compose(engine, work, points, [], risk, reasoning)


def _verdict(clue: Clue) -> str:
    return "Speaks for a rare disease" if clue.weight > 0 else "Speaks against a rare disease"
