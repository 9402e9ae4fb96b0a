"""Reasoners that rank diseases: likelihood ratio, naive Bayes, ontology similarity."""

from dataclasses import dataclass

import numpy as np

from rarealert.knowledge.profiles import DiseaseProfile, ProfileTable, Vector
from rarealert.teachers.answer import TeacherAnswer
from rarealert.teachers.reasoners.engine import Engine, Point, Squash, Workup, compose, percent

_LN10 = float(np.log(10))
_LIKELIHOOD = Squash(0.42, 0.4)
_SIMILARITY = Squash(0.0, 0.41)
_BAYES = Squash(0.23, 0.89)


@dataclass(frozen=True)
class Ranked:
    """Scores of both tables and the leading disease of each."""

    rare: Vector
    common: Vector
    best_rare: DiseaseProfile
    best_common: DiseaseProfile
    rare_row: int
    common_row: int


def rank(engine: Engine, rare: Vector, common: Vector) -> Ranked:
    """The leaders by score; the lower row wins a tie."""
    rare_row, common_row = int(np.argmax(rare)), int(np.argmax(common))
    return Ranked(
        rare,
        common,
        engine.rare.profiles[rare_row],
        engine.common.profiles[common_row],
        rare_row,
        common_row,
    )


def leaders(engine: Engine, ranked: Ranked, count: int = 5) -> list[DiseaseProfile]:
    """The ``count`` diseases with the highest scores of both tables, best first."""
    found = top(engine.rare, ranked.rare, count) + top(engine.common, ranked.common, count)
    return [profile for _, profile in sorted(found, key=lambda item: -item[0])[:count]]


def top(table: ProfileTable, scores: Vector, count: int = 5) -> list[tuple[float, DiseaseProfile]]:
    """The ``count`` best rows of one table with their scores, best first, ties by row."""
    rows = np.argsort(-scores, kind="stable")[:count]
    return [(float(scores[row]), table.profiles[row]) for row in rows]


def likelihood_ratio(engine: Engine, work: Workup) -> TeacherAnswer:
    """Composite likelihood ratios over disease profiles.

    LIRICAL (Robinson et al. 2020, Am J Hum Genet 107:403): each finding contributes
    P(finding | disease) / P(finding | any disease), imprecise findings through the ontology,
    excluded ones with their complements, all diseases with equal pretest odds. The score is the
    log10 LR of the best rare disease less that of the best common one, per root of the number
    of findings, so that a long text is not a risk in itself.
    """
    base = _background(engine, work)
    ranked = rank(
        engine,
        (engine.joint_log_likelihood(engine.rare, work) - base) / _LN10,
        (engine.joint_log_likelihood(engine.common, work) - base) / _LN10,
    )
    margin = float(ranked.rare.max() - ranked.common.max())
    score = margin / np.sqrt(max(1, len(work.present) + len(work.excluded)))
    best, rival = ranked.best_rare, ranked.best_common
    reasoning = (
        f"The composite likelihood ratio of {best.name} is 10^{ranked.rare.max():.1f}, against "
        f"10^{ranked.common.max():.1f} for the common {rival.name}."
    )
    points = [_ratio_point(engine, term, ranked, work) for term in _weighed(work)]
    risk = _LIKELIHOOD.risk(score)
    return compose(engine, work, points, leaders(engine, ranked), risk, reasoning)


def _weighed(work: Workup) -> tuple[str, ...]:
    return (*work.present, *work.excluded)


def _base_share(engine: Engine, term: str) -> float:
    """P(term) in a disease drawn half from the rare, half from the common ones."""
    rare = engine.average_share(engine.rare, term)
    common = engine.average_share(engine.common, term)
    return (rare + common) / 2


def _background(engine: Engine, work: Workup) -> float:
    present = sum(np.log(_base_share(engine, term)) for term in work.present)
    return float(present + sum(np.log1p(-_base_share(engine, term)) for term in work.excluded))


def _ratio_point(engine: Engine, term: str, ranked: Ranked, work: Workup) -> Point:
    share = _share(engine.rare, engine, term, ranked.rare_row)
    base = _base_share(engine, term)
    absent = term in work.excluded
    ratio = (1 - share) / (1 - base) if absent else share / base
    name = engine.ontology.name(term)
    why = (
        f"{'Denied; expected' if absent else 'Expected'} in {percent(share)} of patients with "
        f"{ranked.best_rare.name} and {percent(base)} of all diseases: likelihood ratio "
        f"{ratio:.2g}."
    )
    return Point(f"No {name}" if absent else name, abs(float(np.log(ratio))), why)


def _share(table: ProfileTable, engine: Engine, term: str, row: int) -> float:
    return float(np.exp(engine.log_likelihoods(table, term)[row]))


def naive_bayes(engine: Engine, work: Workup) -> TeacherAnswer:
    """Naive Bayes over all diseases with their prevalence, or share of visits, as prior.

    Findings independent given the disease (Warner et al. 1961, JAMA 177:177; as in BOQA without
    its noise layer, Bauer et al. 2012, Bioinformatics 28:2502). The score is the posterior log
    odds of all rare against all common diseases, so many middling matches count as one good one;
    it is tempered by the number of findings, because findings are not independent.
    """
    ranked = rank(
        engine,
        engine.joint_log_likelihood(engine.rare, work) + engine.rare.prior,
        engine.joint_log_likelihood(engine.common, work) + engine.common.prior,
    )
    odds = _log_odds(ranked.rare, ranked.common)
    prior = _log_odds(engine.rare.prior, engine.common.prior)
    score = (odds - prior) / np.sqrt(max(1, len(work.present)))
    points = [_odds_point(engine, term, work) for term in _weighed(work)]
    reasoning = (
        f"Against prior odds of 1 to {np.exp(-prior):.0f}, the findings change the odds of a rare "
        f"disease by a factor of {_factor(odds - prior)}; the likeliest rare one is "
        f"{ranked.best_rare.name}, the likeliest common one {ranked.best_common.name}."
    )
    risk = _BAYES.risk(score)
    return compose(engine, work, points, leaders(engine, ranked), risk, reasoning)


def _log_odds(rare: Vector, common: Vector) -> float:
    return float(np.logaddexp.reduce(rare) - np.logaddexp.reduce(common))


def _factor(log_odds: float) -> str:
    return f"10^{log_odds / _LN10:.1f}"


def _odds_point(engine: Engine, term: str, work: Workup) -> Point:
    """How one finding alone moves the odds of rare against common."""
    absent = term in work.excluded
    rare = engine.average_share(engine.rare, term)
    common = engine.average_share(engine.common, term)
    ratio = (1 - rare) / (1 - common) if absent else rare / common
    name = engine.ontology.name(term)
    why = (
        f"{'Denied; on' if absent else 'On'} average in {percent(rare)} of patients of a rare "
        f"disease and {percent(common)} of a common one: factor {ratio:.2g}."
    )
    return Point(f"No {name}" if absent else name, abs(float(np.log(ratio))), why)


def ontology_similarity(engine: Engine, work: Workup) -> TeacherAnswer:
    """Semantic similarity between the visit and each profile.

    Phenomizer (Koehler et al. 2009, Am J Hum Genet 85:457): Resnik's similarity of two terms is
    the information content of their most informative common ancestor; two sets are compared by
    the best-match average in both directions. The score is the similarity of the best rare
    profile less that of the best common one.
    """
    rare, common = (_best_match_average(engine, t, work) for t in (engine.rare, engine.common))
    ranked = rank(engine, rare, common)
    points = [_shared_point(engine, term, ranked) for term in work.present]
    reasoning = (
        f"The best-matching rare profile is {ranked.best_rare.name} with a similarity of "
        f"{rare.max():.2f} nats, against {common.max():.2f} for the common "
        f"{ranked.best_common.name}."
    )
    risk = _SIMILARITY.risk(float(rare.max() - common.max()))
    return compose(engine, work, points, leaders(engine, ranked), risk, reasoning)


def _best_match_average(engine: Engine, table: ProfileTable, work: Workup) -> Vector:
    if not work.present:
        return np.zeros(table.n_diseases)
    forward = np.mean([engine.shared_content(table, term) for term in work.present], axis=0)
    seen = np.zeros(len(engine.index))
    for term in work.present:
        columns = engine.known_ancestors(term)
        seen[columns] = engine.content[columns]
    closure = engine.closure
    best = np.maximum.reduceat(seen[closure.indices], closure.indptr[:-1])
    backward: Vector = table.own @ best
    average: Vector = (forward + backward) / 2
    return average


def _shared_point(engine: Engine, term: str, ranked: Ranked) -> Point:
    shared = float(engine.shared_content(engine.rare, term)[ranked.rare_row])
    rival = float(engine.shared_content(engine.common, term)[ranked.common_row])
    why = (
        f"Shares {shared:.1f} nats of information with the findings of {ranked.best_rare.name}, "
        f"{rival:.1f} with those of {ranked.best_common.name}."
    )
    return Point(engine.ontology.name(term), shared, why)
