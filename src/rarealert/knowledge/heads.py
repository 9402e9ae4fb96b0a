"""Orphanet's 33 classification heads, and a head for each packaged rare disease.

Orphanet publishes the heads of diseases in its linearisation table only (Orphadata product 7,
2025-06-24, "Preferential parent"). Without that table a disease gets the head of the first rule in
``head_rules.tsv`` whose MONDO term is above it. The order of rules follows Orphanet's practice:
malformation syndromes first, then metabolism, then the organ. If no rule applies, the organ system
with the most of the disease's HPO findings decides. ``docs/results.md`` gives the agreement with
the published heads.
"""

from collections.abc import Mapping
from functools import lru_cache

from rarealert.knowledge import packaged_rows
from rarealert.knowledge.hpo import Ontology, load_ontology
from rarealert.knowledge.mondo import Mondo, load_mondo
from rarealert.knowledge.profiles import DiseaseProfile, load_rare_profiles

HEADS: Mapping[str, str] = {row["orpha_code"]: row["name"] for row in packaged_rows("heads.tsv")}
"""Name of each head by its ORPHA code."""


@lru_cache(maxsize=1)
def _rules() -> tuple[tuple[str, str], ...]:
    rows = packaged_rows("head_rules.tsv")
    return tuple((row["mondo_id"], HEADS[row["head_code"]]) for row in rows)


@lru_cache(maxsize=1)
def _head_of_system() -> Mapping[str, str]:
    rows = packaged_rows("head_of_system.tsv")
    return {row["hpo_id"]: HEADS[row["head_code"]] for row in rows}


@lru_cache(maxsize=1)
def load_derived_heads() -> Mapping[str, str]:
    """Head by ORPHA code for every disease of ``load_rare_profiles`` that a rule reaches.

    Raises:
        BadInputError: an installed data file is missing or damaged.
    """
    ontology, mondo = load_ontology(), load_mondo()
    by_code = mondo.by_code("Orphanet")
    heads: dict[str, str] = {}
    for profile in load_rare_profiles():
        terms = by_code.get(profile.disease_id.removeprefix("ORPHA:"), ())
        head = head_above(terms, mondo) or _head_of_findings(profile, ontology)
        if head is not None:
            heads[profile.disease_id] = head
    return heads


def heads_of_finding(hpo_id: str) -> tuple[str, ...]:
    """The heads of the organ systems of an HPO term, by system id; none for an unknown term."""
    ontology = load_ontology()
    living = ontology.resolve(hpo_id)
    systems = sorted(ontology.organ_systems(living)) if living else ()
    return tuple(_head_of_system()[system] for system in systems if system in _head_of_system())


def head_above(mondo_ids: tuple[str, ...], mondo: Mondo) -> str | None:
    """The head of the first rule whose term is one of ``mondo_ids`` or above one."""
    above = frozenset[str]().union(*(mondo.ancestors(term) for term in mondo_ids))
    return next((head for term, head in _rules() if term in above), None)


def _head_of_findings(profile: DiseaseProfile, ontology: Ontology) -> str | None:
    weight: dict[str, float] = {}
    for finding in profile.findings:
        for system in ontology.organ_systems(finding.hpo_id) & _head_of_system().keys():
            weight[system] = weight.get(system, 0.0) + finding.frequency
    if not weight:
        return None
    return _head_of_system()[max(sorted(weight), key=weight.__getitem__)]
