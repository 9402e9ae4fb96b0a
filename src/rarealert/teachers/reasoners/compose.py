"""From what a reasoner found to an answer: five weighted insights, a risk, an explanation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rarealert.knowledge.profiles import DiseaseProfile
from rarealert.teachers.reasoners.engine import Engine, Workup
from rarealert.teachers.teacher_answer import Differential, Insight, TeacherAnswer

_INSIGHTS = 5
_CONTEXT_STRENGTH = 0.05  # context fills the five places but never outweighs a finding
_DIGITS = 4
_NAMED = 4


@dataclass(frozen=True)
class Point:
    """One thing that moved the risk; ``strength`` is relative and never negative."""

    name: str
    strength: float
    why: str


@dataclass(frozen=True)
class Squash:
    """A logistic map from score to risk: 50 % at ``centre``, one log-odds unit a ``scale``.

    Centre and scale are about the median and half the interquartile range of the scores on the
    embedded corpus, without its labels. They spread the answers over 0 to 100; calibrating them is
    the ensemble's task.
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
    """An answer from ``points``; ``reasoning`` explains the risk in one or two sentences."""
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
    """Points that every visit has, to fill the five insights where findings are few."""
    age = "no age is stated" if work.age_years is None else f"the patient is {age_words(work)}"
    systems = organ_systems(engine, work.present)
    relatives = listed(engine, work.relatives) or "nothing of relatives"
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
    """The age in words, in months below two years."""
    if work.age_years is None:
        return "of unstated age"
    if work.age_years < 2:  # the renderer's own limit for months
        return f"{round(work.age_years * 12)} months old"
    return f"{int(work.age_years)} years old"


def percent(share: float) -> str:
    """A share as a percentage with two significant digits, such as ``55 %`` or ``0.4 %``."""
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"
