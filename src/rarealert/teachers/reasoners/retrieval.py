"""A reasoner that retrieves profiles by the meaning of their findings' names, not by the ontology.

Resnik's similarity knows two findings as kin only where HPO files them together; a sentence
encoder also knows wordings: "Gait disturbance" and "Unsteady walking" are near in any branch.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rarealert.knowledge.profiles import ProfileTable, Vector
from rarealert.language.sentences import embed_sentences
from rarealert.teachers.answer import TeacherAnswer
from rarealert.teachers.reasoners.engine import Engine, Point, Squash, Workup, compose, load_engine
from rarealert.teachers.reasoners.ranking import Ranked, leaders, rank

_RETRIEVAL = Squash(3.55, 3.26)
_SHARPNESS = 30.0  # of the vote: a profile 0.1 of cosine nearer counts e^3 = 20 times as much
_CACHED_TERMS = 8192


class Space:
    """The names of all findings of all profiles as unit vectors; build with ``load_space``."""

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
    """The space over the packaged knowledge, built once a process and kept once a machine."""
    return Space(load_engine())


def retrieval(engine: Engine, work: Workup) -> TeacherAnswer:
    """Retrieval over the profiles' texts with MiniLM sentence embeddings.

    Late interaction as in ColBERT (Khattab & Zaharia 2020, SIGIR 2020:39): a profile's text is the
    list of its findings' names, each finding of the visit is matched with the nearest of them by
    cosine (MiniLM, Wang et al. 2020, NeurIPS 33:5776), and the profile's score is the mean. The
    risk comes from a distance-weighted vote of all profiles (Dudani 1976, IEEE Trans Syst Man
    Cybern 6:325): rare against common, on a log scale. Denied findings are not searched for.
    """
    space = load_space()
    told = space.known(work.present)
    ranked = rank(engine, *(_scores(space, table, told) for table in (engine.rare, engine.common)))
    vote = _vote(ranked.rare) - _vote(ranked.common)
    points = [_match_point(engine, space, term, ranked) for term in told]
    if told:
        reasoning = (
            f"The nearest rare profile is {ranked.best_rare.name} with a mean cosine of "
            f"{ranked.rare.max():.2f}, the nearest common one {ranked.best_common.name} with "
            f"{ranked.common.max():.2f}."
        )
        differential = leaders(engine, ranked)
    else:
        reasoning, differential = "No profile holds any of it, so there is nothing to search.", []
    risk = _RETRIEVAL.risk(vote if told else _RETRIEVAL.centre)
    return compose(engine, work, points, differential, risk, reasoning)


def _scores(space: Space, table: ProfileTable, told: Sequence[str]) -> Vector:
    total: Vector = np.zeros(table.n_diseases)
    for term in told:
        total += space.nearness(table, term)
    return total / max(1, len(told))


def _vote(scores: Vector) -> float:
    """The log of the profiles' summed weights."""
    return float(np.logaddexp.reduce(_SHARPNESS * scores))


def _match_point(engine: Engine, space: Space, term: str, ranked: Ranked) -> Point:
    name, near = space.nearest(engine.rare, term, ranked.rare_row)
    rival, beside = space.nearest(engine.common, term, ranked.common_row)
    why = (
        f"Nearest in {ranked.best_rare.name} is {name} (cosine {near:.2f}), in the common "
        f"{ranked.best_common.name} {rival} ({beside:.2f})."
    )
    return Point(engine.ontology.name(term), abs(near - beside) + 0.01, why)
