"""The 33 heads of Orphanet's classifications, by ORPHA code.

Codes and names are the targets of "Preferential parent" in Orphadata's linearisation table
(product 7, 2025-06-24), and the two heads of it that no active disorder points to.

A classification head for each packaged Orphanet disease, where no Orphadata table gives one.

Orphanet publishes its heads in the linearisation table only. Here a disease gets the head of the
first rule of ``head_rules.tsv`` whose MONDO term stands above it; the order follows Orphanet's own
practice: malformation syndromes first, then metabolism, then the organ. Where MONDO is silent, the
organ system that carries most of the disease's HPO findings decides. ``docs/results.md`` gives the
agreement with the published heads.
"""

from collections.abc import Mapping
from functools import lru_cache

from rarealert.knowledge.hpo import Ontology, load_ontology
from rarealert.knowledge.mondo import Mondo, load_mondo
from rarealert.knowledge.profiles import DiseaseProfile, load_rare_profiles, packaged_rows

HEADS: Mapping[str, str] = {
    "ORPHA:57146": "Rare hepatic disease",
    "ORPHA:68329": "Rare maxillo-facial surgical disease",
    "ORPHA:68367": "Rare inborn errors of metabolism",
    "ORPHA:68416": "Rare infectious disease",
    "ORPHA:89826": "Rare skin disease",
    "ORPHA:93419": "Rare bone disease",
    "ORPHA:93626": "Rare renal disease",
    "ORPHA:93890": "Rare developmental defect during embryogenesis",
    "ORPHA:96344": "Rare gynecologic or obstetric disease",
    "ORPHA:97929": "Rare cardiac disease",
    "ORPHA:97935": "Rare gastroenterologic disease",
    "ORPHA:97955": "Rare respiratory disease",
    "ORPHA:97962": "Rare surgical thoracic disease",
    "ORPHA:97965": "Rare surgical cardiac disease",
    "ORPHA:97966": "Rare ophthalmic disorder",
    "ORPHA:97978": "Rare endocrine disease",
    "ORPHA:97992": "Rare hematologic disease",
    "ORPHA:98004": "Rare immune disease",
    "ORPHA:98006": "Rare neurologic disease",
    "ORPHA:98023": "Rare systemic or rheumatologic disease",
    "ORPHA:98026": "Rare odontologic disease",
    "ORPHA:98028": "Rare circulatory system disease",
    "ORPHA:98036": "Rare otorhinolaryngologic disease",
    "ORPHA:98047": "Rare infertility",
    "ORPHA:98050": "Rare allergic disease",
    "ORPHA:98053": "Rare genetic disease",
    "ORPHA:101433": "Rare urogenital disease",
    "ORPHA:108999": "Rare disorder due to toxic effects",
    "ORPHA:165711": "Rare abdominal surgical disease",
    "ORPHA:250908": "Rare neoplastic disease",
    "ORPHA:506207": "Rare disorder potentially indicated for transplant",
    "ORPHA:565779": "Rare disorder potentially indicated for transplant or complication after "
    "transplantation",
    "ORPHA:616874": "Rare disorder without a determined diagnosis after full investigation",
}


_RULES = "head_rules.tsv"
_HEAD_OF_SYSTEM: Mapping[str, str] = {
    "HP:0000119": "ORPHA:93626",  # genitourinary system
    "HP:0000152": "ORPHA:93890",  # head or neck
    "HP:0000478": "ORPHA:97966",  # eye
    "HP:0000598": "ORPHA:98036",  # ear
    "HP:0000707": "ORPHA:98006",  # nervous system
    "HP:0000769": "ORPHA:96344",  # breast
    "HP:0000818": "ORPHA:97978",  # endocrine system
    "HP:0001197": "ORPHA:93890",  # prenatal development
    "HP:0001507": "ORPHA:93890",  # growth
    "HP:0001574": "ORPHA:89826",  # integument
    "HP:0001608": "ORPHA:98036",  # voice
    "HP:0001626": "ORPHA:97929",  # cardiovascular system
    "HP:0001871": "ORPHA:97992",  # blood
    "HP:0001939": "ORPHA:68367",  # metabolism
    "HP:0002086": "ORPHA:97955",  # respiratory system
    "HP:0002664": "ORPHA:250908",  # neoplasm
    "HP:0002715": "ORPHA:98004",  # immune system
    "HP:0025031": "ORPHA:97935",  # digestive system
    "HP:0025142": "ORPHA:98023",  # constitutional symptom
    "HP:0025354": "ORPHA:97992",  # cells
    "HP:0033127": "ORPHA:93419",  # musculoskeletal system
    "HP:0040064": "ORPHA:93890",  # limbs
    "HP:0045027": "ORPHA:97955",  # thoracic cavity
}


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
    """The heads of the organ systems that an HPO term belongs to; none for an unknown term."""
    ontology = load_ontology()
    living = ontology.resolve(hpo_id)
    systems = ontology.organ_systems(living) if living else ()
    return tuple(HEADS[_HEAD_OF_SYSTEM[system]] for system in systems if system in _HEAD_OF_SYSTEM)


def head_above(mondo_ids: tuple[str, ...], mondo: Mondo) -> str | None:
    """The head of the first rule that stands above one of ``mondo_ids``, if any does."""
    above = frozenset[str]().union(*(mondo.ancestors(term) for term in mondo_ids))
    return next((head for term, head in _rules() if term in above), None)


@lru_cache(maxsize=1)
def _rules() -> tuple[tuple[str, str], ...]:
    rows = packaged_rows(_RULES)
    return tuple((row["mondo_id"], HEADS[row["head_code"]]) for row in rows)


def _head_of_findings(profile: DiseaseProfile, ontology: Ontology) -> str | None:
    weight: dict[str, float] = {}
    for finding in profile.findings:
        for system in ontology.organ_systems(finding.hpo_id):
            if system in _HEAD_OF_SYSTEM:
                weight[system] = weight.get(system, 0.0) + finding.frequency
    if not weight:
        return None
    return HEADS[_HEAD_OF_SYSTEM[max(sorted(weight), key=weight.__getitem__)]]
