"""Which of a record's diagnoses labels its first visit."""

from functools import partial

import pytest

from rarealert.knowledge.labels import NOT_RARE, Verdict
from rarealert.sources import labelling
from rarealert.sources.labelling import CaseLabeller, Diagnosis, RecordedCase
from rarealert.visits.case import Case
from rarealert.visits.refused import Place, Refused


def label_with(labeller, *diagnoses, text="The hand hurts."):
    case = Case(case_id="a", source="table", history_of_present_illness=text)
    return labeller.label(RecordedCase(Place("table", "cases.csv", 2), case, diagnoses))


@pytest.fixture(scope="module")
def label(tmp_path_factory):
    return partial(label_with, CaseLabeller(tmp_path_factory.mktemp("data") / "table"))


MARFAN, BRONCHITIS = Diagnosis("Marfan syndrome"), Diagnosis("Acute bronchitis")


@pytest.mark.parametrize(
    ("diagnosis", "code"),
    [
        (MARFAN, "ORPHA:558"),
        (Diagnosis("MFS", ("ORPHA:558",)), "ORPHA:558"),
        (Diagnosis(None, ("OMIM:154700",)), "ORPHA:558"),
        (Diagnosis("Marfan syndrome, with dissection"), "ORPHA:558"),
        (Diagnosis("Marfan syndrome", ("Q99.999",)), "ORPHA:558"),
        (Diagnosis("Cornelia de Lange syndrome 1", ("OMIM:999999",)), "ORPHA:199"),
        (Diagnosis("Granulomatosis with polyangiitis", ("ICD10CM:M31.30",)), "ORPHA:900"),
        (Diagnosis("Hypochondroplasia, mild", ("ICD10CM:Q77.4",)), "ORPHA:429"),
        (Diagnosis("Unheard of", ("ICD10CM:M31.30", "ORPHA:900")), "ORPHA:900"),
    ],
)
def test_codes_names_and_series_are_resolved(label, diagnosis, code):
    assert label(diagnosis).label.orpha_code == code


def test_a_rare_disease_outranks_common_ones_of_the_same_visit(label):
    assert label(BRONCHITIS, MARFAN).label.label == "rare"
    assert label(BRONCHITIS).label.label == "nonrare"


@pytest.mark.parametrize(
    ("diagnosis", "kind"),
    [
        (Diagnosis("Family history of Marfan syndrome"), "excluded"),
        (Diagnosis("Screening for unheard-of trouble"), "excluded"),
        (Diagnosis("H. pylori unheard-of trouble"), "excluded"),
        (Diagnosis("N: note"), "excluded"),
        (Diagnosis("Unheard-of Mendelian trouble 7", ("OMIM:999999",)), "excluded"),
        (Diagnosis("Acute bronchitis", ("OMIM:999999",)), "excluded"),
        (Diagnosis("Acute bronchitis", at_visit=False), "excluded"),
        (Diagnosis(None, ("ICD10CM:G71.01",)), "excluded"),
        (Diagnosis("Marfan syndrome", ("ICD10CM:G71.01",)), "excluded"),
        (Diagnosis("Acute bronchitis", ("ICD10CM:G71.01", "J20.9")), "excluded"),
    ],
)
def test_a_diagnosis_that_may_not_be_the_visits_labels_nothing(label, diagnosis, kind):
    refused = label(diagnosis)
    assert isinstance(refused, Refused)
    assert refused.kind == kind


def test_one_of_several_rare_diseases_is_no_common_case(label):
    refused = label(BRONCHITIS, Diagnosis(None, ("ICD10CM:G71.01",)))
    assert (refused.kind, "several rare" in refused.reason) == ("excluded", True)
    assert label(BRONCHITIS, Diagnosis(None, ("ICD10CM:G71.01",)), MARFAN).label.label == "rare"


def test_a_common_disease_given_by_its_code_alone_has_its_own_name(label):
    names = {
        code: label(Diagnosis(None, (code,))).label.disease_name
        for code in ("ICD10CM:J20.9", "ICD10CM:E11.9", "ICD10:K21.9", "N39.0")
    }
    assert names == {
        "ICD10CM:J20.9": "acute bronchitis",
        "ICD10CM:E11.9": "type 2 diabetes",
        "ICD10:K21.9": "gastroesophageal reflux disease",
        "N39.0": "urinary tract infection",
    }
    assert label(Diagnosis(None, ("ICD10CM:J20.9",)), text="An acute bronchitis.").kind == (
        "diagnosis_in_text"
    )


def test_a_code_that_no_term_names_is_its_own_name(tmp_path, monkeypatch):
    class Nameless:
        def label(self, _):
            return Verdict("nonrare", "known disease, not in Orphanet", "code")

    monkeypatch.setattr(labelling, "load_labeller", lambda _: Nameless())
    made = label_with(CaseLabeller(tmp_path / "table"), Diagnosis(None, ("ICD10CM:J20.9",))).label
    assert (made.disease_id, made.disease_name) == ("NAME:icd10cm:j20.9", "ICD10CM:J20.9")


def test_reasons_count_by_cause_and_not_by_code(label):
    refused = label(Diagnosis(None, ("ICD10CM:Z99.999",)))
    assert "Z99" not in refused.reason


def test_the_text_may_not_contain_either_name_of_the_diagnosis(label):
    coded = Diagnosis("Arachnodactyly disorder", ("ORPHA:558",))
    for text in ("Known Marfan syndrome.", "An arachnodactyly disorder."):
        assert label(coded, text=text).kind == "diagnosis_in_text"
    inverted = Diagnosis("Short stature, unheard-of", ("OMIM:154700",))
    assert label(inverted, text="Short stature since birth.").label.label == "rare"


def test_a_mendelian_disorder_that_is_not_rare_is_not_called_unlisted(label):
    refused = label(Diagnosis("Systemic lupus erythematosus", ("ORPHA:536", "OMIM:152700")))
    assert (refused.kind, refused.reason) == ("excluded", NOT_RARE)
