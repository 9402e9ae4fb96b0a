"""How much a finding tells: its information content over the rare profiles.

IC(t) = -ln(share of diseases annotated with t or anything below it), after Resnik 1995, as
Phenomizer uses it (Koehler et al. 2009, Am J Hum Genet 85:457).
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache

from rarealert.knowledge.hpo import Ontology, load_ontology
from rarealert.knowledge.profiles import DiseaseProfile, load_rare_profiles


def information_content(
    profiles: Iterable[DiseaseProfile], ontology: Ontology
) -> Mapping[str, float]:
    """Nats per HPO id for every term of the profiles and its ancestors; roots have 0."""
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

    A term that no rare disease has is missing: it is at least as telling as the highest value,
    or simply common; the caller decides.
    """
    return information_content(load_rare_profiles(), load_ontology())
