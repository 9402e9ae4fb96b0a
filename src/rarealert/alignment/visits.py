"""What the visit itself says of a case, in numbers: who, how much was found, how telling it is."""

import math
from collections.abc import Iterable, Mapping

from rarealert.cases.case import TEXT_FIELDS, Case

VISIT = ("age", "female", "findings", "systems", "mean_information", "most_information")
"""What ``visit_features`` gives, in order."""


def visit_features(cases: Iterable[Case]) -> Mapping[str, tuple[float, ...]]:
    """Age in years, sex, findings, organ systems and information content, by case id.

    Findings are recognised in the text of every case alike, coded or not, so that the coding of a
    source tells nothing. Information is in nats over rare profiles (Resnik, IJCAI 1995). NaN
    where the visit does not say; a visit without a recognised finding has a count of 0.
    """
    from rarealert.knowledge.hpo import load_ontology
    from rarealert.knowledge.information import load_information_content
    from rarealert.knowledge.recognise import findings_of

    ontology, information = load_ontology(), load_information_content()
    found = {}
    for case in cases:
        present, _ = findings_of({name: getattr(case, name) for name in TEXT_FIELDS})
        systems = {one for term in present for one in ontology.organ_systems(term)}
        told = [information[term] for term in present if term in information]
        found[case.case_id] = (
            math.nan if case.age_years is None else case.age_years,
            math.nan if case.sex is None else float(case.sex == "female"),
            float(len(present)),
            float(len(systems)),
            sum(told) / len(told) if told else math.nan,
            max(told, default=math.nan),
        )
    return found
