"""The disease knowledge as sparse matrices, shared by all reasoners of a process.

Terms are columns, diseases rows. The true-path rule holds throughout: a disease with a finding
has every ancestor of it, at least as often.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from rarealert.knowledge.hpo import PHENOTYPIC_ABNORMALITY, Ontology, load_ontology
from rarealert.knowledge.information import load_information_content
from rarealert.knowledge.profiles import (
    CommonCondition,
    DiseaseProfile,
    load_common_conditions,
    load_rare_profiles,
)
from rarealert.knowledge.recognise import Recogniser, load_recogniser
from rarealert.teachers.reasoners.workup import Workup, work_up

Vector = NDArray[np.float64]
Indices = NDArray[np.int64]

_UNRELATED = 0.002  # chance of a finding that neither the disease nor a kin of it explains
_CERTAIN = 0.995  # an obligate finding can still be missed at a first visit
_WRONG_SEX = np.log(0.01)
_WRONG_AGE = np.log(0.1)  # common conditions have soft age limits
_AGES = (0.0, 120.0)
_RARE_PREVALENCE = 1e-5  # the commonest class of Orphanet's point prevalences, 1-9 / 1 000 000
_CACHED_TERMS = 8192
_CACHED_VISITS = 1024  # above the chunk of cases that all teachers judge in turn


@dataclass(frozen=True, eq=False)
class ProfileTable:
    """Diseases by terms: ``shares[d, t]`` is the share of patients of ``d`` with ``t`` or below.

    ``own`` holds 1 where the disease is annotated with the term itself, rows divided by their
    sum, so that a product with a term vector is the mean over a disease's own findings.
    ``age_min`` and ``age_max`` are in years, ``prior`` is the ln of the chance that a visit is
    for the disease; all three have shape ``(n_diseases,)``.
    """

    profiles: tuple[DiseaseProfile, ...]
    shares: sp.csc_matrix
    own: sp.csr_matrix
    only_sex: NDArray[np.str_]
    age_min: Vector
    age_max: Vector
    prior: Vector

    @property
    def n_diseases(self) -> int:
        """Number of rows."""
        return len(self.profiles)


class Engine:
    """Knowledge and the vector computations on it; build one with ``load_engine``."""

    def __init__(
        self,
        ontology: Ontology,
        recogniser: Recogniser,
        rare: Sequence[DiseaseProfile],
        conditions: Sequence[CommonCondition],
        content: dict[str, float],
    ):
        self.ontology = ontology
        self._recogniser = recogniser
        common = [condition.profile for condition in conditions]
        used = {
            finding.hpo_id
            for profile in (*rare, *common)
            for finding in profile.findings
            if not finding.excluded
        }
        terms = sorted(_phenotypes(ontology, used))
        self.index = {term: column for column, term in enumerate(terms)}
        highest = max(content.values())
        self.content: Vector = np.array([content.get(term, highest) for term in terms])
        self.closure = self._closure(terms)
        self.rare = self._table(
            rare, [_AGES] * len(rare), [float(np.log(_RARE_PREVALENCE))] * len(rare)
        )
        self.common = self._table(
            common,
            [(condition.age_min, condition.age_max) for condition in conditions],
            [float(np.log(condition.visits_per_1000 / 1000)) for condition in conditions],
        )
        self.average_share = lru_cache(maxsize=_CACHED_TERMS)(self._average_share)
        self.work_up = lru_cache(maxsize=_CACHED_VISITS)(self._work_up)
        self.log_likelihoods = lru_cache(maxsize=_CACHED_TERMS)(self._log_likelihoods)
        self.shared_content = lru_cache(maxsize=_CACHED_TERMS)(self._shared_content)

    def _work_up(self, text: str) -> Workup:
        return work_up(text, self._recogniser, self.ontology)

    def known_ancestors(self, term: str) -> list[int]:
        """Columns of ``term`` and its ancestors that any profile has."""
        above = self.ontology.ancestors(term)
        return [self.index[name] for name in above if name in self.index]

    def content_of(self, term: str) -> float:
        """Information content in nats; a term no profile has counts as its nearest known kin."""
        columns = self.known_ancestors(term)
        return float(self.content[columns].max()) if columns else 0.0

    def _log_likelihoods(self, table: ProfileTable, term: str) -> Vector:
        """Ln P(term present | disease), shape ``(n_diseases,)``.

        An annotated term or an ancestor of one: its share. Below an annotated term ``a``: that
        share times exp(IC(a) - IC(term)), the part of ``a``'s diseases that have the term.
        """
        own = self.content_of(term)
        chance = np.full(table.n_diseases, _UNRELATED)
        matrix = table.shares
        for column in self.known_ancestors(term):
            part = np.exp(min(0.0, self.content[column] - own))
            span = slice(matrix.indptr[column], matrix.indptr[column + 1])
            rows = matrix.indices[span]
            chance[rows] = np.maximum(chance[rows], matrix.data[span] * part)
        logs: Vector = np.log(np.clip(chance, _UNRELATED, _CERTAIN))
        return logs

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
        total = np.zeros(table.n_diseases)
        if work.sex is not None:
            total += np.where((table.only_sex != "") & (table.only_sex != work.sex), _WRONG_SEX, 0)
        if work.age_years is not None:
            outside = (work.age_years < table.age_min) | (work.age_years > table.age_max)
            total += np.where(outside, _WRONG_AGE, 0)
        return total

    def _closure(self, terms: list[str]) -> sp.csr_matrix:
        rows, columns = [], []
        for row, term in enumerate(terms):
            above = self.known_ancestors(term)
            rows.extend([row] * len(above))
            columns.extend(above)
        shape = (len(terms), len(terms))
        return sp.csr_matrix((np.ones(len(rows), dtype=bool), (rows, columns)), shape=shape)

    def _table(
        self,
        profiles: Sequence[DiseaseProfile],
        ages: Sequence[tuple[float, float]],
        priors: Sequence[float],
    ) -> ProfileTable:
        rows, columns, shares = (
            np.array(values)
            for values in zip(
                *(
                    (row, self.index[finding.hpo_id], finding.frequency)
                    for row, profile in enumerate(profiles)
                    for finding in profile.findings
                    if not finding.excluded
                ),
                strict=True,
            )
        )
        shape = (len(profiles), len(self.index))
        weights = 1.0 / np.bincount(rows, minlength=len(profiles))[rows]
        return ProfileTable(
            profiles=tuple(profiles),
            shares=self._propagated(rows, columns, shares, shape),
            own=sp.csr_matrix((weights, (rows, columns)), shape),
            only_sex=np.array([profile.sex or "" for profile in profiles]),
            age_min=np.array([low for low, _ in ages]),
            age_max=np.array([high for _, high in ages]),
            prior=np.array(priors),
        )

    def _propagated(
        self, rows: Indices, columns: Indices, shares: Vector, shape: tuple[int, int]
    ) -> sp.csc_matrix:
        """The true-path rule: every ancestor gets the highest share of what lies below it."""
        starts = self.closure.indptr[columns]
        counts = self.closure.indptr[columns + 1] - starts
        ends = np.cumsum(counts)
        within = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
        above = self.closure.indices[np.repeat(starts, counts) + within]
        cells = above * np.int64(shape[0]) + np.repeat(rows, counts)
        values = np.repeat(shares, counts)
        order = np.lexsort((-values, cells))
        cells, first = np.unique(cells[order], return_index=True)
        place = (cells % shape[0], cells // shape[0])
        return sp.csc_matrix((values[order][first], place), shape)


def _phenotypes(ontology: Ontology, used: set[str]) -> set[str]:
    above = {term for name in used for term in ontology.ancestors(name)}
    return {term for term in above if PHENOTYPIC_ABNORMALITY in ontology.ancestors(term)}


@lru_cache(maxsize=1)
def load_engine() -> Engine:
    """The engine over the packaged knowledge, built once a process (a few seconds)."""
    return Engine(
        load_ontology(),
        load_recogniser(),
        load_rare_profiles(),
        load_common_conditions(),
        dict(load_information_content()),
    )
