"""Names of diagnoses: their core, their key, and whether a text names them."""

import pytest

from rarealert.visits.diagnosis import core_name, disease_key, names_diagnosis


@pytest.mark.parametrize(
    ("diagnosis", "core"),
    [
        ("Creutzfeldt\u2013Jakob Disease (sCJD).", "Creutzfeldt\u2013Jakob Disease"),
        ("**Hepatoblastoma with metastatic pulmonary involvement.**", "Hepatoblastoma"),
        ("1. Esophageal leiomyoma (first episode)", "Esophageal leiomyoma"),
        ("Head and neck cancer", "Head and neck cancer"),
        ("(MCTD)", "(MCTD)"),
        ("H. pylori gastritis", "H. pylori gastritis"),
        ("St. Louis encephalitis", "St. Louis encephalitis"),
        ("Lyme disease. Second stage", "Lyme disease"),
        ("Portal vein anomaly (first). 2. Gastric volvulus", "Portal vein anomaly"),
        ("1,2-dichloroethane poisoning", "1,2-dichloroethane poisoning"),
        ("C, unspecified", "C, unspecified"),
        ("\u80ba\u708e, severe", "\u80ba\u708e"),
    ],
)  # fmt: skip
def test_core_name_leaves_complications_out(diagnosis, core):
    assert core_name(diagnosis) == core


def test_spelling_variants_share_a_key():
    assert disease_key("Haemophilia A (severe)") == disease_key("hemophilia a")


@pytest.mark.parametrize(
    ("text", "diagnosis", "is_named"),
    [
        ("Known TUBEROUS sclerosis since birth.", "Tuberous Sclerosis", True),
        ("No sign of Beh\u00e7et's disease.", "Behcet disease", True),
        ("Suspected sCJD on referral.", "Sporadic Creutzfeldt-Jakob disease (sCJD)", True),
        ("His oesophageal tumours bled.", "Esophageal tumor with bleeding", True),
        ("Sclerosis of the skin, tuberous lesions.", "Tuberous sclerosis", False),
        ("An acneiform rash.", "Acne", False),
        ("Anything at all", "", False),
        ("A painful rash (left).", "Zoster (left)", False),
        ("Temperature 38.6 C.", "C. difficile colitis", False),
        ("Temperature 38.6 C.", "C (unspecified)", False),
    ],
)
def test_a_text_names_a_diagnosis_by_all_its_words(text, diagnosis, is_named):
    assert names_diagnosis(text, [diagnosis]) is is_named
