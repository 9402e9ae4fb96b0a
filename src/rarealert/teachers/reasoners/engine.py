"""A visit as the reasoners see it, and the vector computations on disease profiles they share."""

from collections.abc import Mapping, Sequence
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
    log_demographics,
    log_likelihoods,
    rare_table,
)
from rarealert.visits.demographics import parse_age, parse_sex
from rarealert.visits.reading import Reading

_CACHED_TERMS = 8192
_MONTHS_BELOW = 2  # years; younger patients have their age in months, as in the rendered visit
_OPENINGS = ("chief_complaint", "history_of_present_illness")


@dataclass(frozen=True)
class Workup:
    """What the reasoners use of a reading.

    ``text`` is the rendered visit without its patient line. ``present`` and ``excluded`` are the
    patient's HPO ids in order of mention; ancestors of a present finding are left out of both.
    ``relatives`` are the findings of relatives. ``age_years`` is in completed years, below two in
    completed months, and ``None`` where neither record nor text gives it.
    """

    text: str
    present: tuple[str, ...]
    excluded: tuple[str, ...]
    relatives: tuple[str, ...]
    age_years: float | None
    sex: str | None


def work_up(reading: Reading, ontology: Ontology) -> Workup:
    """The workup of ``reading``, from its text alone: coded findings are not used.

    Sources that code findings and sources that do not are then judged alike. Age and sex are the
    recorded ones, else those that open the complaint or the history.
    """
    person = reading.lines.get("patient")
    implied = set().union(*(ontology.ancestors(term) - {term} for term in reading.affirmed))
    known = implied.union(reading.affirmed)
    return Workup(
        text=reading.text[person.end :] if person else reading.text,
        present=tuple(term for term in reading.affirmed if term not in implied),
        excluded=tuple(term for term in reading.denied if term not in known),
        relatives=reading.relatives,
        age_years=_completed(_age(reading)),
        sex=_sex(reading),
    )


def _age(reading: Reading) -> float | None:
    if reading.case.age_years is not None:
        return reading.case.age_years
    ages = (parse_age(getattr(reading.case, name) or "") for name in _OPENINGS)
    return next((age for age in ages if age is not None), None)


def _sex(reading: Reading) -> str | None:
    texts = (getattr(reading.case, name) or "" for name in _OPENINGS)
    return reading.case.sex or next((sex for text in texts if (sex := parse_sex(text))), None)


def _completed(years: float | None) -> float | None:
    if years is None:
        return None
    return int(years * 12) / 12 if years < _MONTHS_BELOW else float(int(years))


class Engine:
    """Disease profiles as matrices; build one with ``load_engine``."""

    def __init__(
        self,
        ontology: Ontology,
        rare: Sequence[DiseaseProfile],
        conditions: Sequence[CommonCondition],
        content: Mapping[str, float],
    ):
        self.ontology = ontology
        common = [condition.profile for condition in conditions]
        columns = Columns(ontology, (*rare, *common), content)
        self.index, self.content, self.closure = columns.index, columns.content, columns.closure
        self.known_ancestors = columns.known_ancestors
        self.rare = rare_table(columns, rare)
        self.common = common_table(columns, conditions)
        self.average_share = lru_cache(maxsize=_CACHED_TERMS)(self._average_share)
        self.log_likelihoods = lru_cache(maxsize=_CACHED_TERMS)(self._log_likelihoods)
        self.shared_content = lru_cache(maxsize=_CACHED_TERMS)(self._shared_content)

    def content_of(self, term: str) -> float:
        """Information content in nats; for a term in no profile, that of its nearest ancestor."""
        columns = self.known_ancestors(term)
        return float(self.content[columns].max()) if columns else 0.0

    def _log_likelihoods(self, table: ProfileTable, term: str) -> Vector:
        """Ln P(term present | disease), shape ``(n_diseases,)``."""
        return log_likelihoods(table.shares, self.known_ancestors(term), self.content)

    def _average_share(self, table: ProfileTable, term: str) -> float:
        """P(term present) in a patient of a disease drawn evenly from ``table``."""
        return float(np.exp(self.log_likelihoods(table, term)).mean())

    def _shared_content(self, table: ProfileTable, term: str) -> Vector:
        """Resnik similarity of ``term`` and each disease, in nats, shape ``(n_diseases,)``."""
        best = np.zeros(table.n_diseases)
        matrix = table.shares
        for column in self.known_ancestors(term):
            rows = matrix.indices[matrix.indptr[column] : matrix.indptr[column + 1]]
            best[rows] = np.maximum(best[rows], self.content[column])
        return best

    def joint_log_likelihood(self, table: ProfileTable, work: Workup) -> Vector:
        """Ln P(findings, age, sex | disease), shape ``(n_diseases,)``, findings independent.

        Excluded findings count with the complement of their share.
        """
        total = np.zeros(table.n_diseases)
        for term in work.present:
            total += self.log_likelihoods(table, term)
        for term in work.excluded:
            total += np.log1p(-np.exp(self.log_likelihoods(table, term)))
        return total + self.demographic_log_likelihood(table, work)

    def demographic_log_likelihood(self, table: ProfileTable, work: Workup) -> Vector:
        """Ln of how much less likely each disease is at this age and sex, ``(n_diseases,)``."""
        limits = (table.only_sex, table.age_min, table.age_max)
        return log_demographics(*limits, work.sex, work.age_years)


@lru_cache(maxsize=1)
def load_engine() -> Engine:
    """The engine over the packaged knowledge, built once a process (a few seconds)."""
    return Engine(
        load_ontology(),
        load_rare_profiles(),
        load_common_conditions(),
        load_information_content(),
    )
