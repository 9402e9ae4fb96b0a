"""The organ systems that a visit's findings belong to, by HPO's branches."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from rarealert.cases.case import TEXT_FIELDS, Case
from rarealert.knowledge.hpo import load_ontology
from rarealert.knowledge.recognise import findings_of

NONE = "no finding"


def systems_of_case(case: Case) -> Sequence[str]:
    """Names of the systems of what ``case`` is coded or told to have, each once."""
    told, _ = findings_of({name: getattr(case, name) for name in TEXT_FIELDS})
    return _systems((*told, *(case.findings_present or ())))


def systems_of_evidence(evidence: Iterable[Mapping[str, Any]]) -> Sequence[str]:
    """Names of the systems of the findings that an answer lists as present, each once."""
    return _systems(each["hpo_id"] for each in evidence if each["status"] == "present")


def _systems(hpo_ids: Iterable[str]) -> Sequence[str]:
    named = {system for hpo_id in hpo_ids if (system := _system(hpo_id))}
    return sorted(named) or (NONE,)


@cache
def _system(hpo_id: str) -> str | None:
    ontology = load_ontology()
    living = ontology.resolve(hpo_id)
    branch = ontology.organ_system(living) if living else None
    return ontology.name(branch) if branch else None
