"""Diseases by terms: how often patients of each disease have each finding, as sparse matrices.

Terms are columns, diseases rows. The true-path rule holds throughout: a disease with a finding has
every ancestor of it, at least as often.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from rarealert.knowledge.hpo import PHENOTYPIC_ABNORMALITY, Ontology
from rarealert.knowledge.profiles import CommonCondition, DiseaseProfile

Vector = NDArray[np.float64]
Indices = NDArray[np.int64]

_UNRELATED = 0.002  # chance of a finding that neither the disease nor a kin of it explains
_CERTAIN = 0.995  # an obligate finding can still be missed at a first visit
_WRONG_SEX = np.log(0.01)
_WRONG_AGE = np.log(0.1)  # common conditions have soft age limits
_AGES = (0.0, 120.0)
_RARE_PREVALENCE = 1e-5  # the commonest class of Orphanet's point prevalences, 1-9 / 1 000 000


class Columns:
    """The terms that any of ``profiles`` has or implies, in ascending order of their ids.

    ``content`` is their information content in nats, shape ``(n_terms,)``; a term that no disease
    behind it has counts as the highest. ``closure`` holds for each term its ancestors and itself.
    """

    def __init__(
        self,
        ontology: Ontology,
        profiles: Iterable[DiseaseProfile],
        content: Mapping[str, float],
    ) -> None:
        used = {
            finding.hpo_id
            for profile in profiles
            for finding in profile.findings
            if not finding.excluded
        }
        above = {term for name in used for term in ontology.ancestors(name)}
        self.terms = sorted(
            term for term in above if PHENOTYPIC_ABNORMALITY in ontology.ancestors(term)
        )
        self.index = {term: column for column, term in enumerate(self.terms)}
        highest = max(content.values())
        self.content: Vector = np.array([content.get(term, highest) for term in self.terms])
        self._ontology = ontology

    def known_ancestors(self, term: str) -> list[int]:
        """Columns of ``term`` and its ancestors that any profile has."""
        above = self._ontology.ancestors(term)
        return [self.index[name] for name in above if name in self.index]

    @cached_property
    def closure(self) -> sp.csr_matrix:
        """Terms by terms: True where the column is the row or above it."""
        rows, columns = [], []
        for row, term in enumerate(self.terms):
            above = self.known_ancestors(term)
            rows.extend([row] * len(above))
            columns.extend(above)
        shape = (len(self.terms), len(self.terms))
        return sp.csr_matrix((np.ones(len(rows), dtype=bool), (rows, columns)), shape=shape)


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


def rare_table(columns: Columns, profiles: Sequence[DiseaseProfile]) -> ProfileTable:
    """Rare diseases, at any age and of one prevalence."""
    prior = float(np.log(_RARE_PREVALENCE))
    return _table(columns, profiles, [_AGES] * len(profiles), [prior] * len(profiles))


def common_table(columns: Columns, conditions: Sequence[CommonCondition]) -> ProfileTable:
    """Common conditions, with the ages and the share of visits that their table states."""
    return _table(
        columns,
        [condition.profile for condition in conditions],
        [(condition.age_min, condition.age_max) for condition in conditions],
        [float(np.log(condition.visits_per_1000 / 1000)) for condition in conditions],
    )


def log_likelihoods(shares: sp.csc_matrix, known: Sequence[int], content: Vector) -> Vector:
    """Ln P(term present | disease), shape ``(n_diseases,)``; ``known`` are columns of the term.

    They are those of the term itself, where a profile has it, and of its ancestors. An annotated
    term or an ancestor of one: its share. Below an annotated term ``a``: that share times
    exp(IC(a) - IC(term)), the part of ``a``'s diseases that have the term; a term that no profile
    has counts as its nearest known kin. After LIRICAL (Robinson et al. 2020, Am J Hum Genet
    107:403).
    """
    own = max((float(content[column]) for column in known), default=0.0)
    chance = np.full(shares.shape[0], _UNRELATED)
    for column in known:
        part = np.exp(min(0.0, float(content[column]) - own))
        span = slice(shares.indptr[column], shares.indptr[column + 1])
        rows = shares.indices[span]
        chance[rows] = np.maximum(chance[rows], shares.data[span] * part)
    logs: Vector = np.log(np.clip(chance, _UNRELATED, _CERTAIN))
    return logs


def log_who_comes(
    only_sex: NDArray[np.str_],
    age_min: Vector,
    age_max: Vector,
    sex: str | None,
    age_years: float | None,
) -> Vector:
    """Ln of how much less likely each disease is at this sex and age, ``(n_diseases,)``.

    A disease of the other sex is a hundred times less likely, a common condition of another age
    ten times; what is not known excludes nothing.
    """
    total = np.zeros(len(only_sex))
    if sex is not None:
        total += np.where((only_sex != "") & (only_sex != sex), _WRONG_SEX, 0)
    if age_years is not None:
        total += np.where((age_years < age_min) | (age_years > age_max), _WRONG_AGE, 0)
    return total


def _table(
    columns: Columns,
    profiles: Sequence[DiseaseProfile],
    ages: Sequence[tuple[float, float]],
    priors: Sequence[float],
) -> ProfileTable:
    rows, terms, shares = (
        np.array(values)
        for values in zip(
            *(
                (row, columns.index[finding.hpo_id], finding.frequency)
                for row, profile in enumerate(profiles)
                for finding in profile.findings
                if not finding.excluded
            ),
            strict=True,
        )
    )
    shape = (len(profiles), len(columns.terms))
    weights = 1.0 / np.bincount(rows, minlength=len(profiles))[rows]
    return ProfileTable(
        profiles=tuple(profiles),
        shares=_propagated(columns.closure, rows, terms, shares, shape),
        own=sp.csr_matrix((weights, (rows, terms)), shape),
        only_sex=np.array([profile.sex or "" for profile in profiles]),
        age_min=np.array([low for low, _ in ages]),
        age_max=np.array([high for _, high in ages]),
        prior=np.array(priors),
    )


def _propagated(
    closure: sp.csr_matrix, rows: Indices, columns: Indices, shares: Vector, shape: tuple[int, int]
) -> sp.csc_matrix:
    """The true-path rule: every ancestor gets the highest share of what lies below it."""
    starts = closure.indptr[columns]
    counts = closure.indptr[columns + 1] - starts
    ends = np.cumsum(counts)
    within = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
    above = closure.indices[np.repeat(starts, counts) + within]
    cells = above * np.int64(shape[0]) + np.repeat(rows, counts)
    values = np.repeat(shares, counts)
    order = np.lexsort((-values, cells))
    cells, first = np.unique(cells[order], return_index=True)
    place = (cells % shape[0], cells // shape[0])
    return sp.csc_matrix((values[order][first], place), shape)
