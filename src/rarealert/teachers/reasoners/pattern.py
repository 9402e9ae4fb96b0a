"""Reasoners on the findings as a whole: how specific, how broad, how well a common disease fits."""

import numpy as np

from rarealert.teachers.reasoners.compose import (
    Point,
    Squash,
    compose,
    listed,
    organ_systems,
    percent,
)
from rarealert.teachers.reasoners.engine import Engine, Workup
from rarealert.teachers.reasoners.ranking import top
from rarealert.teachers.teacher_answer import TeacherAnswer

_CONTENT = Squash(2.31, 0.41)
_BREADTH = Squash(1.22, 0.78)
_UNEXPLAINED = Squash(1.97, 0.66)
_TELLING = 3  # findings in the mean: more would dilute it with common symptoms
_CONSTITUTIONAL = frozenset(("HP:0025142",))  # pain, fever, fatigue belong to every system
_NEVER = 0.01  # share of patients with a finding that their profile lacks
_EXPLAINED = (
    0.3  # share of patients from which a finding is "frequent" in HPO and counts as explained
)


def information_content(engine: Engine, work: Workup) -> TeacherAnswer:
    """How specific the findings are: their information content, corrected for common conditions.

    Information content after Resnik 1995 (IJCAI 95:448) over the rare profiles, less how often
    the common conditions show the finding. The score is the mean over the three findings with the
    most.
    """
    surprise = {term: _surprise(engine, term) for term in work.present}
    most = sorted(surprise.values(), reverse=True)[:_TELLING]
    score = float(np.mean(most)) if most else 0.0
    points = [
        Point(
            engine.ontology.name(term),
            max(0.0, value),
            f"Information content {engine.content_of(term):.1f} nats; "
            f"{percent(engine.average_share(engine.common, term))} of patients with a common "
            "condition have it.",
        )
        for term, value in surprise.items()
    ]
    reasoning = (
        f"The {len(most)} most telling findings carry {score:.1f} nats on average once their place "
        "in common conditions is taken off."
    )
    return compose(engine, work, points, [], _CONTENT.risk(score), reasoning)


def _surprise(engine: Engine, term: str) -> float:
    """Information content plus the log ratio of the average rare and common shares, nats."""
    rare = engine.average_share(engine.rare, term)
    return engine.content_of(term) / 2 + float(
        np.log(rare / engine.average_share(engine.common, term))
    )


def multi_system(engine: Engine, work: Workup) -> TeacherAnswer:
    """How many organ systems are involved at once.

    Involvement of several systems is the most common hint at a rare disease in primary care
    (Evans & Rafi 2016, Br J Gen Pract 66:550). Breadth is the exponential of the entropy of
    findings over HPO's systems (Hill 1973, Ecology 54:427), constitutional symptoms left out;
    the score compares it with the breadth that as many findings would have in one system only.
    """
    specific = [
        term for term in work.present if engine.ontology.organ_system(term) not in _CONSTITUTIONAL
    ]
    counts: dict[str, list[str]] = {}
    for term in specific:
        system = engine.ontology.organ_system(term)
        if system is not None:
            counts.setdefault(system, []).append(term)
    breadth = _effective_number([len(terms) for terms in counts.values()])
    points = [
        Point(
            engine.ontology.name(system),
            len(counts[system]) / max(1, len(specific)),
            f"Involved through {listed(engine, counts[system])}.",
        )
        for system in organ_systems(engine, specific)
    ]
    score = breadth - float(np.log1p(len(work.present)))
    reasoning = (
        f"They fall into {len(counts)} organ systems (effective number {breadth:.1f}); one common "
        "condition seldom reaches so many."
        if len(counts) > 2  # two systems meet in many an everyday complaint
        else f"They fall into {len(counts)} organ systems, as in an everyday complaint."
    )
    return compose(engine, work, points, [], _BREADTH.risk(score), reasoning)


def _effective_number(counts: list[int]) -> float:
    if not counts:
        return 0.0
    shares = np.array(counts) / sum(counts)
    return float(np.exp(-(shares * np.log(shares)).sum()))


def common_explainer(engine: Engine, work: Workup) -> TeacherAnswer:
    """How well the best common disease explains the case.

    Abduction to the best explanation (Reggia et al. 1983, Int J Man-Mach Stud 19:437, with the
    likelihood cover of Peng & Reggia 1987, IEEE Trans Syst Man Cybern 17:146): the score is the
    surprise that the best common condition leaves, the mean negative log share of its patients
    who have each finding, at this age and sex. A finding that it never shows surprises by 4.6
    nats and no more, so that one stray word doesn't outweigh the rest.
    """
    shares = {term: np.exp(engine.log_likelihoods(engine.common, term)) for term in work.present}
    fit = engine.demographic_log_likelihood(engine.common, work)
    for share in shares.values():
        fit += np.log(np.maximum(share, _NEVER))
    fit /= max(1, len(shares))
    row = int(np.argmax(fit))
    best = engine.common.profiles[row]
    points = [
        _cover_point(engine, term, float(share[row]), best.name) for term, share in shares.items()
    ]
    unexplained = listed(engine, [term for term in shares if shares[term][row] < _EXPLAINED])
    reasoning = (
        f"The best common explanation, {best.name}, leaves a surprise of {-fit[row]:.1f} nats a "
        "finding"
    )
    reasoning += f", above all {unexplained}." if unexplained else "."
    differential = [profile for _, profile in top(engine.common, fit)] if shares else []
    risk = _UNEXPLAINED.risk(-float(fit[row]) if shares else _UNEXPLAINED.centre)
    return compose(engine, work, points, differential, risk, reasoning)


def _cover_point(engine: Engine, term: str, share: float, disease: str) -> Point:
    verdict = "explained" if share >= _EXPLAINED else "left open"
    why = f"{verdict.capitalize()} by {disease}: {percent(share)} of its patients have it."
    distance = float(abs(np.log(max(share, _NEVER) / _EXPLAINED)))
    return Point(engine.ontology.name(term), distance, why)
