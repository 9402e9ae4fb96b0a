"""What a first visit needs to know of a rare disease beyond its annotated findings.

``rare_facts`` holds prevalence and usual age at the first visit of the commonest ones;
``rare_findings`` holds what patients and relatives notice and Orphanet's annotations lack (lay
course, triggers, early signs). Both are written for this project; each row names its source.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from rarealert.knowledge import packaged_rows
from rarealert.knowledge.mondo import load_mondo
from rarealert.knowledge.names import word_set

_CLINICAL_VOCABULARIES = word_set("ICD9 ICD10CM EFO NCIT MedDRA DOID MESH NORD HP")
_DECADES_A_VOCABULARY = 0.3
_RAREST = 0.01  # per 100,000; a disease that no clinical vocabulary lists


@dataclass(frozen=True, slots=True)
class RareFacts:
    """Prevalence per 100,000 people, and ages in years at the first visit for it."""

    per_100000: float
    age_min: float
    age_max: float


@lru_cache(maxsize=1)
def load_rare_facts() -> Mapping[str, RareFacts]:
    """The packaged facts by ORPHA code."""
    return {
        row["orpha_code"]: RareFacts(
            float(row["per_100000"]),
            float(row["age_min_years"]),
            float(row["age_max_years"]),
        )
        for row in packaged_rows("rare_facts")
    }


@lru_cache(maxsize=1)
def load_prevalences() -> "Prevalences":
    """The prevalences of the packaged facts, and estimates for all other diseases."""
    mondo = load_mondo()
    listed = {
        f"ORPHA:{number}": max(
            len(_CLINICAL_VOCABULARIES & mondo.terms[term].codes.keys()) for term in terms
        )
        for number, terms in mondo.by_code("Orphanet").items()
    }
    return Prevalences({code: fact.per_100000 for code, fact in load_rare_facts().items()}, listed)


@dataclass(frozen=True)
class Prevalences:
    """Prevalences per 100,000 by ORPHA code: ``known`` ones, others by ``vocabularies``.

    No installed package has prevalences, but clinical vocabularies code what clinics see: over the
    2,782 annotated diseases with a prevalence class in Orphadata, the number of vocabularies with
    a code follows that class (Spearman 0.50), by about 0.3 decades each.
    """

    known: Mapping[str, float]
    vocabularies: Mapping[str, int]

    def of(self, orpha_code: str) -> float:
        """Patients per 100,000 people."""
        if orpha_code in self.known:
            return self.known[orpha_code]
        return float(_RAREST * 10 ** (_DECADES_A_VOCABULARY * self.vocabularies.get(orpha_code, 0)))
