"""FHIR's coded concepts: which codes we know, and in which words they are said."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

HPO = re.compile(r"HP:[0-9]{7}")
_KIND_OF_CONCEPT = re.compile(
    r"\s*\((?:disorder|finding|situation|observable entity|morphologic abnormality)\)$"
)
_DISEASE_SYSTEMS = (
    (re.compile(r"orpha\.net"), "ORPHA:"),
    (re.compile(r"\bomim\.org"), "OMIM:"),
    (re.compile(r"icd-10-cm"), "ICD10CM:"),
    (re.compile(r"sid/icd-10$"), "ICD10:"),
)
_PREFIX = re.compile(r"^[A-Za-z_0-9]+:")
NARRATIVES: Mapping[str, str] = {
    "10154-3": "chief_complaint",
    "8661-1": "chief_complaint",
    "10164-2": "history_of_present_illness",
    "11348-0": "past_medical_history",
    "10157-6": "family_history",
    "29762-2": "social_history",
    "29545-1": "physical_examination",
    "10187-3": "history_of_present_illness",
}
"""LOINC codes of narrative sections, and the field of a case that each is."""

CATEGORIES: Mapping[str, str] = {
    "vital-signs": "vitals",
    "exam": "physical_examination",
    "social-history": "social_history",
}
"""Observation categories that belong to a visit; laboratory, imaging and procedures do not."""


def raw_codes(concepts: object) -> Iterator[str]:
    """Codes of a concept or a list of concepts in JSON that nobody has checked yet."""
    for concept in concepts if isinstance(concepts, list) else [concepts]:
        codings = concept.get("coding") if isinstance(concept, dict) else None
        for coding in codings if isinstance(codings, list) else []:
            code = coding.get("code") if isinstance(coding, dict) else None
            if isinstance(code, str):
                yield code


def codes(concept: Any) -> list[str]:
    """The codes of a CodeableConcept, or of nothing."""
    return [coding.code for coding in (concept.coding if concept else None) or () if coding.code]


def said(concept: Any) -> str | None:
    """A CodeableConcept in words: its text, else the display of its first coding that has one."""
    words = next((text for text in wordings(concept) if text.strip()), None)
    return _KIND_OF_CONCEPT.sub("", " ".join(words.split())) if words else None


def wordings(concept: Any) -> list[str]:
    """The text of a CodeableConcept and the displays of its codings; none of nothing."""
    displays = [coding.display for coding in (concept.coding if concept else None) or ()]
    return [text for text in (concept.text if concept else None, *displays) if text]


def disease_codes(concept: Any) -> tuple[str, ...]:
    """Codes of disease vocabularies that the labels know, such as ``ORPHA:558``."""
    return tuple(
        prefix + _PREFIX.sub("", coding.code)
        for coding in (concept.coding if concept else None) or ()
        for system, prefix in _DISEASE_SYSTEMS
        if coding.code and coding.system and system.search(str(coding.system).lower())
    )


def hpo_code(concept: Any) -> str | None:
    """The first HPO code of a concept."""
    return next((code for code in codes(concept) if HPO.fullmatch(code)), None)


def joined(texts: Iterable[str | None], mark: str = "; ") -> str | None:
    """The distinct texts in alphabetical order, so that the order of a bundle says nothing."""
    return mark.join(sorted({text for text in texts if text})) or None
