"""Which HPO findings a first visit can show, and which need a test.

History, examination and measurement belong to a first visit; laboratory, imaging, biopsy,
recordings of nerve, muscle, heart or brain, and genetics do not.
"""

from collections.abc import Sequence
from functools import cache

from rarealert.knowledge.hpo import load_ontology

NEEDS_A_TEST = {
    "HP:0001939": "Abnormality of metabolism/homeostasis",
    "HP:0025354": "Abnormal cellular phenotype",
    "HP:0001871": "Abnormality of blood and blood-forming tissues",
    "HP:0010876": "Abnormal circulating protein concentration",
    "HP:0000818": "Abnormality of the endocrine system",
    "HP:0002664": "Neoplasm",
    "HP:0001197": "Abnormality of prenatal development or birth",
    "HP:0012443": "Abnormal brain morphology",
    "HP:0002143": "Abnormal spinal cord morphology",
    "HP:0011400": "Abnormal CNS myelination",
    "HP:0002353": "EEG abnormality",
    "HP:0003457": "EMG abnormality",
    "HP:0003115": "Abnormal EKG",
    "HP:0001627": "Abnormal heart morphology",
    "HP:0025015": "Abnormal vascular morphology",
    "HP:0002088": "Abnormal lung morphology",
    "HP:0012210": "Abnormal renal morphology",
    "HP:0012211": "Abnormal renal physiology",
    "HP:0012718": "Abnormal gastrointestinal tract morphology",
    "HP:0410042": "Abnormal liver morphology",
    "HP:0000479": "Abnormal retinal morphology",
    "HP:0000512": "Abnormal electroretinogram",
    "HP:0000587": "Abnormal optic nerve morphology",
    "HP:0004303": "Abnormal muscle fiber morphology",
    "HP:0003330": "Abnormal bone structure",
    "HP:0011849": "Abnormal bone ossification",
    "HP:0005930": "Abnormal epiphysis morphology",
    "HP:0000944": "Abnormal metaphysis morphology",
    "HP:0000940": "Abnormal diaphysis morphology",
    "HP:0003468": "Abnormal vertebral morphology",
    "HP:0002750": "Delayed skeletal maturation",
    "HP:0031105": "Abnormal uterus morphology",
    "HP:0031065": "Abnormal ovarian morphology",
}
"""Branches of HPO that need a test, with their names."""

SEEN_ANYWAY = {
    "HP:0001574": "Abnormality of the integument",
    "HP:0004370": "Abnormality of temperature regulation",
    "HP:0001944": "Dehydration",
    "HP:0001892": "Abnormal bleeding",
    "HP:0000980": "Pallor",
    "HP:0000952": "Jaundice",
    "HP:0000252": "Microcephaly",
    "HP:0002719": "Recurrent infections",
    "HP:0002205": "Recurrent respiratory infections",
    "HP:0002857": "Genu valgum",
    "HP:0002970": "Genu varum",
    "HP:0001558": "Decreased fetal movement",
    "HP:0001744": "Splenomegaly",
    "HP:0002240": "Hepatomegaly",
    "HP:0002716": "Lymphadenopathy",
    "HP:0000853": "Goiter",
    "HP:0001959": "Polydipsia",
    "HP:0000103": "Polyuria",
    "HP:0000790": "Hematuria",
    "HP:0000771": "Gynecomastia",
    "HP:0000823": "Delayed puberty",
    "HP:0000826": "Precocious puberty",
    "HP:0000140": "Abnormality of the menstrual cycle",
    "HP:0001622": "Premature birth",
    "HP:0001518": "Small for gestational age",
    "HP:0001787": "Abnormal delivery",
    "HP:0002619": "Varicose veins",
    "HP:0004299": "Hernia of the abdominal wall",
    "HP:0000787": "Nephrolithiasis",
}
"""Branches below those that a patient reports or a clinician sees without a test."""


@cache
def shows_at_a_visit(hpo_id: str) -> bool:
    """Whether the term ``hpo_id`` is a phenotype that a first visit can show.

    Raises:
        KeyError: HPO has no such living term.
    """
    above = load_ontology().ancestors(hpo_id)
    if not load_ontology().is_phenotype(hpo_id):
        return False
    return not (NEEDS_A_TEST.keys() & above) or bool(SEEN_ANYWAY.keys() & above)


def describe_findings(present: Sequence[str], excluded: Sequence[str]) -> str | None:
    """Describe living HPO ids by HPO's names; a record's own wording of a term is not used.

    Every excluded finding has its own "absent": a denial ends at a semicolon.
    """
    name = load_ontology().name
    parts = [
        f"{lead.capitalize()}{f'; {repeated}'.join(name(term) for term in terms)}."
        for lead, repeated, terms in (
            ("findings: ", "", present),
            ("absent: ", "absent: ", excluded),
        )
        if terms
    ]
    return " ".join(parts) or None
