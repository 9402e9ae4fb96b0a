"""What a reasoner reads out of a visit's text: findings, age, sex, course and family history.

Everything comes from the rendered text, so that coded and free-text sources are read alike. Text
is data here: it is matched against dictionaries and patterns, and nothing in it is obeyed.

The disease knowledge and the vector computations on it, shared by all reasoners of a process.

From what a reasoner found to a valid answer: five weighted insights, risk, explanation.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rarealert.knowledge.hpo import Ontology, load_ontology
from rarealert.knowledge.profiles import (
    Columns,
    CommonCondition,
    DiseaseProfile,
    ProfileTable,
    Vector,
    common_table,
    load_common_conditions,
    load_information_content,
    load_rare_profiles,
    log_likelihoods,
    log_who_comes,
    rare_table,
)
from rarealert.knowledge.recognise import Mention, Recogniser, load_recogniser
from rarealert.teachers.answer import Differential, Insight, TeacherAnswer

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


_CACHED_TERMS = 8192
_CACHED_VISITS = 1024  # above the chunk of cases that all teachers judge in turn


class Engine:
    """Knowledge and the vector computations on it; build one with ``load_engine``."""

    def __init__(
        self,
        ontology: Ontology,
        recogniser: Recogniser,
        rare: Sequence[DiseaseProfile],
        conditions: Sequence[CommonCondition],
        content: Mapping[str, float],
    ):
        self.ontology = ontology
        self._recogniser = recogniser
        common = [condition.profile for condition in conditions]
        columns = Columns(ontology, (*rare, *common), content)
        self.index, self.content, self.closure = columns.index, columns.content, columns.closure
        self.known_ancestors = columns.known_ancestors
        self.rare = rare_table(columns, rare)
        self.common = common_table(columns, conditions)
        self.average_share = lru_cache(maxsize=_CACHED_TERMS)(self._average_share)
        self.work_up = lru_cache(maxsize=_CACHED_VISITS)(self._work_up)
        self.log_likelihoods = lru_cache(maxsize=_CACHED_TERMS)(self._log_likelihoods)
        self.shared_content = lru_cache(maxsize=_CACHED_TERMS)(self._shared_content)

    def _work_up(self, text: str) -> Workup:
        return work_up(text, self._recogniser, self.ontology)

    def content_of(self, term: str) -> float:
        """Information content in nats; a term no profile has counts as its nearest known kin."""
        columns = self.known_ancestors(term)
        return float(self.content[columns].max()) if columns else 0.0

    def _log_likelihoods(self, table: ProfileTable, term: str) -> Vector:
        """Ln P(term present | disease), shape ``(n_diseases,)``."""
        return log_likelihoods(table.shares, self.known_ancestors(term), self.content)

    def _average_share(self, table: ProfileTable, term: str) -> float:
        """P(term present) in a patient of a disease drawn evenly from ``table``."""
        return float(np.exp(self.log_likelihoods(table, term)).mean())

    def _shared_content(self, table: ProfileTable, term: str) -> Vector:
        """IC of the most informative term that ``term`` and each disease share (Resnik)."""
        best = np.zeros(table.n_diseases)
        matrix = table.shares
        for column in self.known_ancestors(term):
            rows = matrix.indices[matrix.indptr[column] : matrix.indptr[column + 1]]
            best[rows] = np.maximum(best[rows], self.content[column])
        return best

    def joint_log_likelihood(self, table: ProfileTable, work: Workup) -> Vector:
        """Ln P(findings | disease) with findings independent, shape ``(n_diseases,)``.

        Excluded findings count as absent; a disease of the other sex is a hundred times less
        likely, a common condition of another age ten times.
        """
        total = np.zeros(table.n_diseases)
        for term in work.present:
            total += self.log_likelihoods(table, term)
        for term in work.excluded:
            total += np.log1p(-np.exp(self.log_likelihoods(table, term)))
        return total + self.who_comes(table, work)

    def who_comes(self, table: ProfileTable, work: Workup) -> Vector:
        """Ln of how much less likely each disease is at this sex and age, ``(n_diseases,)``."""
        limits = (table.only_sex, table.age_min, table.age_max)
        return log_who_comes(*limits, work.sex, work.age_years)


@lru_cache(maxsize=1)
def load_engine() -> Engine:
    """The engine over the packaged knowledge, built once a process (a few seconds)."""
    return Engine(
        load_ontology(),
        load_recogniser(),
        load_rare_profiles(),
        load_common_conditions(),
        load_information_content(),
    )


_INSIGHTS = 5
_CONTEXT_STRENGTH = 0.05  # context fills the five places but never outweighs a finding
_DIGITS = 4
_NAMED = 4


@dataclass(frozen=True)
class Point:
    """One thing a reasoner leaned on; ``strength`` is relative and never negative."""

    name: str
    strength: float
    why: str


@dataclass(frozen=True)
class Squash:
    """The monotone map from a score to a risk: ``centre`` is 50 %, ``scale`` a log-odd a unit.

    Centre and scale are about the median and half the interquartile range of the scores of the
    embedded corpus without its labels: they spread the answers over 0 to 100 and claim no
    calibration, which is alignment's.
    """

    centre: float
    scale: float

    def risk(self, score: float) -> int:
        """``score`` as a whole percentage, 1 to 99."""
        odds = max(-30.0, min(30.0, (score - self.centre) / self.scale))
        return max(1, min(99, round(100 / (1 + math.exp(-odds)))))


def compose(
    engine: Engine,
    work: Workup,
    points: Sequence[Point],
    differential: Sequence[DiseaseProfile],
    risk: int,
    reasoning: str,
) -> TeacherAnswer:
    """The answer; ``reasoning`` is one or two sentences that say how the risk came about."""
    ranked = sorted(points, key=lambda point: (-point.strength, point.name))[:_INSIGHTS]
    smallest = min([point.strength for point in ranked if point.strength > 0], default=1.0)
    fill = smallest * _CONTEXT_STRENGTH
    taken = {point.name for point in ranked}
    context = [point for point in _context(engine, work, fill) if point.name not in taken]
    chosen = (ranked + context)[:_INSIGHTS]
    return TeacherAnswer(
        insights=_weigh(chosen),
        differential=tuple(
            Differential(name=profile.name, orpha_code=profile.orpha_code)
            for profile in differential[:_INSIGHTS]
        ),
        risk=risk,
        explanation=f"{_findings_sentence(engine, work)} {reasoning}",
    )


def _weigh(points: Sequence[Point]) -> tuple[Insight, ...]:
    total = sum(point.strength for point in points)
    share = [point.strength / total if total else 1 / len(points) for point in points]
    rounded = [round(value, _DIGITS) for value in share]
    rounded[0] = round(rounded[0] + 1 - sum(rounded), _DIGITS)
    return tuple(
        Insight(name=point.name, weight=weight, explanation=point.why)
        for point, weight in zip(points, rounded, strict=True)
    )


def _context(engine: Engine, work: Workup, strength: float) -> list[Point]:
    """What frames the judgement of any visit, for visits with fewer than five telling findings."""
    age = "no age is stated" if work.age_years is None else f"the patient is {age_words(work)}"
    systems = organ_systems(engine, work.present)
    relatives = listed(engine, work.family) or "nothing of relatives"
    denied = listed(engine, work.excluded) or "no finding"
    return [
        Point("Number of findings", strength, f"The text names {len(work.present)} findings."),
        Point("Breadth", strength, f"They touch {len(systems)} organ systems."),
        Point("Age", strength, f"For the time of onset: {age}."),
        Point("Relatives", strength, f"The text tells {relatives}."),
        Point("Negative findings", strength, f"The text denies {denied}."),
    ]


def _findings_sentence(engine: Engine, work: Workup) -> str:
    named = listed(engine, work.present, _NAMED)
    if not named:
        return "The text names no finding that HPO knows."
    more = len(work.present) - _NAMED
    return f"The visit shows {named}" + (f" and {more} more findings." if more > 0 else ".")


def listed(engine: Engine, terms: Sequence[str], most: int = 3) -> str:
    """HPO names of ``terms``, the most informative first, joined by commas."""
    ranked = sorted(terms, key=lambda term: (-engine.content_of(term), term))[:most]
    return ", ".join(engine.ontology.name(term) for term in ranked)


def organ_systems(engine: Engine, terms: Sequence[str]) -> list[str]:
    """Ids of the organ systems of ``terms``, each term in its nearest one, most frequent first."""
    counts: dict[str, int] = {}
    for term in terms:
        system = engine.ontology.organ_system(term)
        if system is not None:
            counts[system] = counts.get(system, 0) + 1
    return sorted(counts, key=lambda system: (-counts[system], system))


def age_words(work: Workup) -> str:
    """The age as a clinician says it; an unstated age is said to be unstated."""
    if work.age_years is None:
        return "of unstated age"
    if work.age_years < 2:  # the renderer's own limit for months
        return f"{round(work.age_years * 12)} months old"
    return f"{int(work.age_years)} years old"


def percent(share: float) -> str:
    """A share as a percentage with two significant digits, such as ``55 %`` or ``0.4 %``."""
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"
