"""The disease knowledge and the vector computations on it, shared by all reasoners of a process."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from rarealert.knowledge.hpo import Ontology, load_ontology
from rarealert.knowledge.information import load_information_content
from rarealert.knowledge.profile_table import (
    Columns,
    ProfileTable,
    Vector,
    common_table,
    log_likelihoods,
    log_who_comes,
    rare_table,
)
from rarealert.knowledge.profiles import (
    CommonCondition,
    DiseaseProfile,
    load_common_conditions,
    load_rare_profiles,
)
from rarealert.knowledge.recognise import Recogniser, load_recogniser
from rarealert.teachers.reasoners.workup import Workup, work_up

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
