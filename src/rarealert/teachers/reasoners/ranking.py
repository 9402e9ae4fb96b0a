"""Reasoners that rank diseases: likelihood ratio, naive Bayes, ontology and text similarity."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rarealert.knowledge.profiles import DiseaseProfile, ProfileTable, Vector
from rarealert.language.sentences import embed_sentences
from rarealert.teachers.reasoners.compose import Point, Squash, compose, percent
from rarealert.teachers.reasoners.engine import Engine, Workup, load_engine
from rarealert.teachers.teacher_answer import TeacherAnswer

_LN10 = float(np.log(10))
_LIKELIHOOD = Squash(0.42, 0.4)
_SIMILARITY = Squash(0.0, 0.41)
_BAYES = Squash(0.23, 0.89)
_RETRIEVAL = Squash(3.55, 3.26)
_SHARPNESS = 30.0  # of the vote: a profile 0.1 of cosine nearer counts e^3 = 20 times as much
_CACHED_TERMS = 8192


@dataclass(frozen=True)
class Ranked:
    """Scores of both tables and the row and profile of each table's highest score."""

    rare: Vector
    common: Vector
    best_rare: DiseaseProfile
    best_common: DiseaseProfile
    rare_row: int
    common_row: int


def rank(engine: Engine, rare: Vector, common: Vector) -> Ranked:
    """The leading disease of each table by score; the lower row wins a tie."""
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
    log10 LR of the best rare disease less that of the best common one, divided by the root of the
    number of findings, so that long texts do not score higher for their length.
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
    points = [_ratio_point(engine, term, ranked, work) for term in (*work.present, *work.excluded)]
    return compose(
        engine, work, points, leaders(engine, ranked), _LIKELIHOOD.risk(score), reasoning
    )


def _base_share(engine: Engine, term: str) -> float:
    """P(term) in a disease drawn half from the rare, half from the common ones."""
    rare = engine.average_share(engine.rare, term)
    return (rare + engine.average_share(engine.common, term)) / 2


def _background(engine: Engine, work: Workup) -> float:
    present = sum(np.log(_base_share(engine, term)) for term in work.present)
    return float(present + sum(np.log1p(-_base_share(engine, term)) for term in work.excluded))


def _ratio_point(engine: Engine, term: str, ranked: Ranked, work: Workup) -> Point:
    share = float(np.exp(engine.log_likelihoods(engine.rare, term)[ranked.rare_row]))
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


def naive_bayes(engine: Engine, work: Workup) -> TeacherAnswer:
    """Naive Bayes over all diseases with their prevalence, or share of visits, as prior.

    Findings independent given the disease (Warner et al. 1961, JAMA 177:177; as in BOQA without
    its noise layer, Bauer et al. 2012, Bioinformatics 28:2502). The score is the posterior log
    odds of all rare against all common diseases, divided by the root of the number of findings,
    because findings are not independent.
    """
    ranked = rank(
        engine,
        engine.joint_log_likelihood(engine.rare, work) + engine.rare.prior,
        engine.joint_log_likelihood(engine.common, work) + engine.common.prior,
    )
    odds = _log_odds(ranked.rare, ranked.common)
    prior = _log_odds(engine.rare.prior, engine.common.prior)
    score = (odds - prior) / np.sqrt(max(1, len(work.present)))
    points = [_odds_point(engine, term, work) for term in (*work.present, *work.excluded)]
    reasoning = (
        f"Against prior odds of 1 to {np.exp(-prior):.0f}, the findings change the odds of a rare "
        f"disease by a factor of 10^{(odds - prior) / _LN10:.1f}; the likeliest rare one is "
        f"{ranked.best_rare.name}, the likeliest common one {ranked.best_common.name}."
    )
    return compose(engine, work, points, leaders(engine, ranked), _BAYES.risk(score), reasoning)


def _log_odds(rare: Vector, common: Vector) -> float:
    return float(np.logaddexp.reduce(rare) - np.logaddexp.reduce(common))


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
    """Similarity of ``work`` and each disease, in nats, shape ``(n_diseases,)``."""
    if not work.present:
        return np.zeros(table.n_diseases)
    forward = np.mean([engine.shared_content(table, term) for term in work.present], axis=0)
    covered = np.zeros(len(engine.index))
    for term in work.present:
        columns = engine.known_ancestors(term)
        covered[columns] = engine.content[columns]
    closure = engine.closure
    best = np.maximum.reduceat(covered[closure.indices], closure.indptr[:-1])
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


class Space:
    """The names of all findings of all profiles as unit vectors; build with ``load_space``.

    Resnik's similarity relates two findings only where HPO files them together. Names relate
    "Gait disturbance" and "Unsteady walking" in whatever branch they are.
    """

    def __init__(self, engine: Engine):
        tables = (engine.rare, engine.common)
        columns = np.unique(np.concatenate([table.own.indices for table in tables]))
        terms = sorted(engine.index, key=engine.index.__getitem__)
        self._names = [engine.ontology.name(terms[column]) for column in columns]
        self._row = {terms[column]: row for row, column in enumerate(columns)}
        self._vectors = embed_sentences(self._names)
        self._own = {id(table): np.searchsorted(columns, table.own.indices) for table in tables}
        self.nearness = lru_cache(maxsize=_CACHED_TERMS)(self._nearness)

    def known(self, terms: Sequence[str]) -> list[str]:
        """Those of ``terms`` that some profile holds."""
        return [term for term in terms if term in self._row]

    def _cosines(self, term: str) -> NDArray[np.float32]:
        near: NDArray[np.float32] = self._vectors @ self._vectors[self._row[term]]
        return near

    def _nearness(self, table: ProfileTable, term: str) -> NDArray[np.float32]:
        """The cosine of ``term`` and the nearest finding of each disease, ``(n_diseases,)``."""
        near: NDArray[np.float32] = np.maximum.reduceat(
            self._cosines(term)[self._own[id(table)]], table.own.indptr[:-1]
        )
        return near

    def nearest(self, table: ProfileTable, term: str, row: int) -> tuple[str, float]:
        """The finding of disease ``row`` that is nearest to ``term`` by name, and its cosine."""
        own = self._own[id(table)][table.own.indptr[row] : table.own.indptr[row + 1]]
        near = self._cosines(term)[own]
        best = int(np.argmax(near))
        return self._names[own[best]], float(near[best])


@lru_cache(maxsize=1)
def load_space() -> Space:
    """The space over the packaged knowledge, built once a process; vectors are cached on disk."""
    return Space(load_engine())


def retrieval(engine: Engine, work: Workup) -> TeacherAnswer:
    """Retrieval over the profiles' texts with MiniLM sentence embeddings.

    Late interaction as in ColBERT (Khattab & Zaharia 2020, SIGIR 2020:39): a profile's text is the
    list of its findings' names, each finding of the visit is matched with the nearest of them by
    cosine (MiniLM, Wang et al. 2020, NeurIPS 33:5776), and the profile's score is the mean. The
    risk comes from a distance-weighted vote of all profiles (Dudani 1976, IEEE Trans Syst Man
    Cybern 6:325): rare against common, on a log scale. Excluded findings are not used.
    """
    space = load_space()
    terms = space.known(work.present)
    if not terms:
        reasoning = "No profile holds any of it, so there is nothing to search."
        return compose(engine, work, [], [], _RETRIEVAL.risk(_RETRIEVAL.centre), reasoning)
    ranked = rank(engine, *(_scores(space, table, terms) for table in (engine.rare, engine.common)))
    vote = _vote(ranked.rare) - _vote(ranked.common)
    points = [_match_point(engine, space, term, ranked) for term in terms]
    reasoning = (
        f"The nearest rare profile is {ranked.best_rare.name} with a mean cosine of "
        f"{ranked.rare.max():.2f}, the nearest common one {ranked.best_common.name} with "
        f"{ranked.common.max():.2f}."
    )
    return compose(engine, work, points, leaders(engine, ranked), _RETRIEVAL.risk(vote), reasoning)


def _scores(space: Space, table: ProfileTable, terms: Sequence[str]) -> Vector:
    total: Vector = np.zeros(table.n_diseases)
    for term in terms:
        total += space.nearness(table, term)
    return total / len(terms)


def _vote(scores: Vector) -> float:
    """The log of the profiles' summed weights."""
    return float(np.logaddexp.reduce(_SHARPNESS * scores))


def _match_point(engine: Engine, space: Space, term: str, ranked: Ranked) -> Point:
    name, near = space.nearest(engine.rare, term, ranked.rare_row)
    rival, rival_near = space.nearest(engine.common, term, ranked.common_row)
    why = (
        f"Nearest in {ranked.best_rare.name} is {name} (cosine {near:.2f}), in the common "
        f"{ranked.best_common.name} {rival} ({rival_near:.2f})."
    )
    return Point(engine.ontology.name(term), abs(near - rival_near) + 0.01, why)
