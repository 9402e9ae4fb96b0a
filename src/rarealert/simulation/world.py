"""The diseases that simulated visits are drawn from, restricted to findings of a first visit."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from rarealert.knowledge.heads import HEADS, load_derived_heads
from rarealert.knowledge.hpo import load_ontology
from rarealert.knowledge.names import name_words
from rarealert.knowledge.profiles import (
    CommonCondition,
    DiseaseProfile,
    load_common_conditions,
    load_common_profiles,
    load_rare_profiles,
)
from rarealert.knowledge.rare_diseases import load_prevalences, load_rare_facts
from rarealert.simulation.phrases import Sex
from rarealert.simulation.vocabulary import VisitFinding, load_vocabulary
from rarealert.visits.diagnosis import wordings

MIN_FINDINGS = 6
"""Findings possible at a visit that a rare disease needs to be drawn."""

_HEADINGS = frozenset(("HP:0011458",))  # Abdominal symptom: no patient tells it
_UNSEEN_WEIGHT = 0.1  # diseases; the weight of a finding that no disease is annotated with

_EARLIEST_YEARS = {"HP:0003581": 16, "HP:0011462": 16, "HP:0003596": 40, "HP:0003584": 60}
_DEVELOPMENTAL = frozenset(("HP:0012758", "HP:0001249", "HP:0001508", "HP:0000252"))
_DEVELOPMENTAL_LATEST = 30  # years; a developmental disease is diagnosed by then
_MALFORMATION = HEADS["ORPHA:93890"]
_ONSET_IN_NAME = {  # ages in years at the first visit for a disease with the word in its name
    "neonatal": (0, 2),
    "infantile": (0, 8),
    "congenital": (0, 30),
    "childhood": (1, 18),
    "juvenile": (1, 25),
    "pediatric": (0, 18),
    "adult": (16, 120),
    "senile": (60, 120),
}
_TYPICAL = 0.5  # share of patients from which a finding makes the disease developmental
_LATEST_YEARS = {"HP:0003577": 25, "HP:0003623": 25, "HP:0003593": 30, "HP:0011463": 40}


@dataclass(frozen=True, slots=True)
class SimulatedDisease:
    """A disease with the findings possible at a first visit, and a weight for each."""

    profile: DiseaseProfile
    findings: tuple[VisitFinding, ...]
    weights: tuple[float, ...]
    developmental: bool
    revealing: frozenset[str]
    """HPO ids with a wording that reveals the diagnosis."""
    never: frozenset[str]
    """HPO ids that exclude the disease; so does any finding below them."""
    always: frozenset[str]
    """HPO ids of obligate findings: every patient has them."""
    head: str | None
    """Orphanet head, derived from MONDO and HPO; ``None`` for a common condition."""


@dataclass(frozen=True, slots=True)
class World:
    """Everything that is drawn from; ``condition_weights`` has the order of ``conditions``."""

    vocabulary: Mapping[str, VisitFinding]
    parents: Mapping[str, tuple[str, ...]]
    siblings: Mapping[str, tuple[str, ...]]
    """Per HPO id, the other children of its parents that a first visit can have."""
    sibling_weights: Mapping[str, tuple[float, ...]]
    """In the order of ``siblings``: the number of diseases with each, weighted by frequency."""
    conditions: tuple[CommonCondition, ...]
    common: Mapping[str, SimulatedDisease]
    condition_weights: tuple[float, ...]
    rare: tuple[SimulatedDisease, ...]
    rare_weights: tuple[float, ...]
    rare_by_id: Mapping[str, SimulatedDisease]


@lru_cache(maxsize=1)
def load_world() -> World:
    """The world of the installed knowledge, made once a process."""
    vocabulary, ontology = load_vocabulary(), load_ontology()
    conditions = load_common_conditions()
    rare = [_disease(profile, vocabulary) for profile in load_rare_profiles()]
    usable = tuple(disease for disease in rare if len(disease.findings) >= MIN_FINDINGS)
    parents = {
        hpo_id: tuple(
            p for p in ontology.terms[hpo_id].parents if p in vocabulary and p not in _HEADINGS
        )
        for hpo_id in vocabulary
    }
    siblings = _siblings(parents)
    return World(
        vocabulary=vocabulary,
        parents=parents,
        siblings=siblings,
        sibling_weights=_sibling_weights(siblings),
        conditions=conditions,
        common={c.profile.disease_id: _disease(c.profile, vocabulary) for c in conditions},
        # The square root keeps the order of prevalences and leaves no condition above 3 %.
        condition_weights=tuple(c.visits_per_1000**0.5 for c in conditions),
        rare=usable,
        rare_weights=tuple(itertools.accumulate(_commonness(usable))),
        rare_by_id={disease.profile.disease_id: disease for disease in usable},
    )


def _commonness(diseases: Iterable[SimulatedDisease]) -> Iterator[float]:
    """The root of each disease's prevalence.

    The square root keeps the rarest diseases in the corpus, as for common conditions.
    """
    prevalences = load_prevalences()
    for disease in diseases:
        yield prevalences.of(disease.profile.disease_id) ** 0.5


def _siblings(parents: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    children: dict[str, list[str]] = {}
    for hpo_id in sorted(parents):
        for parent in parents[hpo_id]:
            children.setdefault(parent, []).append(hpo_id)
    kin = {h: {k for p in above for k in children[p]} - {h} for h, above in parents.items()}
    return {hpo_id: tuple(sorted(others)) for hpo_id, others in kin.items()}


def _sibling_weights(
    siblings: Mapping[str, tuple[str, ...]],
) -> dict[str, tuple[float, ...]]:
    counts = dict.fromkeys(siblings, _UNSEEN_WEIGHT)
    for profile in (*load_rare_profiles(), *load_common_profiles()):
        for finding in profile.findings:
            if finding.hpo_id in counts:
                counts[finding.hpo_id] += finding.frequency
    return {h: tuple(counts[other] for other in others) for h, others in siblings.items()}


def _disease(profile: DiseaseProfile, vocabulary: Mapping[str, VisitFinding]) -> SimulatedDisease:
    revealing = frozenset().union(*map(_terms_naming, wordings(profile.name)))
    kept = [
        (vocabulary[finding.hpo_id], finding.frequency)
        for finding in profile.findings
        if finding.hpo_id in vocabulary
        and not finding.excluded
        and finding.hpo_id not in revealing | _HEADINGS
    ]
    head = load_derived_heads().get(profile.disease_id)
    developmental = head == _MALFORMATION or any(
        share >= _TYPICAL and _DEVELOPMENTAL & finding.ancestors for finding, share in kept
    )
    return SimulatedDisease(
        profile,
        findings=tuple(finding for finding, _ in kept),
        weights=tuple(share for _, share in kept),
        developmental=developmental,
        revealing=revealing,
        never=frozenset(finding.hpo_id for finding in profile.findings if finding.excluded),
        always=frozenset(finding.hpo_id for finding, share in kept if share >= 1),
        head=head,
    )


def fits(disease: SimulatedDisease, age: float, sex: Sex) -> bool:
    """Whether a patient of this age and sex can have a first visit for the disease."""
    earliest, latest = _first_seen(disease)
    if not earliest <= age <= latest or disease.profile.sex not in (None, sex):
        return False
    usable = sum(finding.possible(age, sex) for finding in disease.findings)
    return usable >= MIN_FINDINGS


def _first_seen(disease: SimulatedDisease) -> tuple[float, float]:
    """Ages in years at the first visit: known, else from onset, else the name, else the kind."""
    if fact := load_rare_facts().get(disease.profile.disease_id):
        return fact.age_min, fact.age_max
    if onset := disease.profile.onset:
        earliest = min(_EARLIEST_YEARS.get(term, 0) for term in onset)
        return earliest, max(_LATEST_YEARS.get(term, 120) for term in onset)
    words = name_words(disease.profile.name)
    named = [_ONSET_IN_NAME[word] for word in words if word in _ONSET_IN_NAME]
    if named:
        return min(low for low, _ in named), max(high for _, high in named)
    return 0, _DEVELOPMENTAL_LATEST if disease.developmental else 120


@lru_cache(maxsize=1)
def _wordings_by_word() -> Mapping[str, tuple[tuple[str, str], ...]]:
    """Per word, every wording of the vocabulary with that word, normalised, with its HPO id."""
    table: dict[str, list[tuple[str, str]]] = {}
    for finding in load_vocabulary().values():
        for text in (*finding.lay, *finding.clinical):
            words = name_words(text)
            for word in dict.fromkeys(words):
                table.setdefault(word, []).append((" ".join(words), finding.hpo_id))
    return {word: tuple(rows) for word, rows in table.items()}


def _terms_naming(name_of_disease: str) -> frozenset[str]:
    """HPO ids of the vocabulary with a wording that contains the name."""
    words = name_words(name_of_disease)
    rows = _wordings_by_word().get(words[0], ()) if words else ()
    name = f" {' '.join(words)} "
    return frozenset(hpo_id for wording, hpo_id in rows if name in f" {wording} ")
