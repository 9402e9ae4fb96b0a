import pytest

from rarealert.visits.diagnosis import core_name, disease_key, names_diagnosis


@pytest.mark.parametrize(
    ("diagnosis", "core"),
    [
        (
            "Sporadic Creutzfeldt\u2013Jakob Disease (sCJD).",
            "Sporadic Creutzfeldt\u2013Jakob Disease",
        ),
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
)
def test_core_name_leaves_complications_out(diagnosis, core):
    assert core_name(diagnosis) == core


def test_spelling_variants_share_a_key():
    assert disease_key("Haemophilia A (severe)") == disease_key("hemophilia a")


@pytest.mark.parametrize(
    ("text", "diagnosis"),
    [
        ("Known TUBEROUS sclerosis since birth.", "Tuberous Sclerosis"),
        ("No sign of Beh\u00e7et's disease.", "Behcet disease"),
        ("Suspected sCJD on referral.", "Sporadic Creutzfeldt-Jakob disease (sCJD)"),
        ("His oesophageal tumours bled.", "Esophageal tumor with bleeding"),
    ],
)
def test_a_named_diagnosis_is_found(text, diagnosis):
    assert names_diagnosis(text, [diagnosis])


@pytest.mark.parametrize(
    ("text", "diagnosis"),
    [
        ("Sclerosis of the skin, tuberous lesions.", "Tuberous sclerosis"),
        ("An acneiform rash.", "Acne"),
        ("Anything at all", ""),
        ("A painful rash (left).", "Zoster (left)"),
        ("Temperature 38.6 C.", "C. difficile colitis"),
        ("Temperature 38.6 C.", "C (unspecified)"),
    ],
)
def test_parts_of_a_name_are_no_name(text, diagnosis):
    assert not names_diagnosis(text, [diagnosis])
