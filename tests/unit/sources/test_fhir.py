"""FHIR: which encounter is the first visit, what belongs to it, and that nothing later does."""

import json
from datetime import date

import pytest
from fhir_records import (
    bundle,
    concept,
    condition,
    encounter,
    observation,
    patient,
    record,
    relative,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rarealert.sources.fhir import read_recorded
from rarealert.sources.fhir_resources import When, age_in_years
from rarealert.sources.importing import read_source
from rarealert.sources.labelling import RecordedCase
from rarealert.visits.refused import Refused

SECRET = "Zebra-striped hands"
HPO = "http://human-phenotype-ontology.org"
reused_folder = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30
)


def write(folder, resources, name="bundle.json"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(bundle(resources)), encoding="utf-8")
    return folder


def case_of(folder, resources):
    items = list(read_recorded(write(folder, resources)))
    (recorded,) = [item for item in items if isinstance(item, RecordedCase)]
    return recorded.case


def without(*names):
    return [item for item in record() if item["id"] not in names]


def test_a_record_becomes_its_first_visit(tmp_path):
    case = case_of(tmp_path, record())
    assert (case.case_id, case.patient_id, case.visit_date) == ("p/e1", "p", date(2020, 3, 1))
    assert (case.age_years, case.sex) == (39.0, "female")
    assert case.chief_complaint == "Cough"
    assert case.past_medical_history == "Asthma"
    assert case.family_history == "Mother: Aortic dissection"
    assert case.social_history == "Tobacco smoking status: Former smoker"
    assert case.physical_examination == "Clear chest."
    assert case.vitals == (
        "Blood pressure: diastolic 80 mmHg, systolic 120 mmHg; Body temperature: 38.5 Cel"
    )
    assert case.history_of_present_illness is None
    assert case.findings_present is None


@pytest.mark.parametrize(
    ("resources", "outcome"),
    [
        (record(), "ORPHA:558"),
        (without("c2"), "NAME:acute bronchitis"),
        (
            [
                *without("c1", "c2"),
                condition("c9", "Acute bronchitis", recordedDate="2021-01-01"),
            ],
            "excluded",
        ),
        (
            [*record()[:2], condition("c", "Marfan syndrome", recordedDate="2010-01-01")],
            "diagnosis_in_text",
        ),
    ],
    ids=["rare, named years later", "common, of the visit", "common, later", "rare, known before"],
)
def test_the_label_is_made_from_all_conditions(tmp_path, resources, outcome):
    (item,) = read_source("fhir", write(tmp_path / "fhir", resources))
    assert (item.kind if isinstance(item, Refused) else item.label.disease_id) == outcome


LATER = st.sampled_from(["2020-03-02", "2020-03-02T00:00:00+01:00", "2021", "2020-04", "2020"])
words = st.text("abc ", min_size=1, max_size=9).filter(str.strip)


@st.composite
def later_resources(draw):
    """What was written down after the first day, or is of a later encounter, or has no date."""
    word, at = draw(words), draw(LATER)
    of = {"encounter": draw(st.sampled_from([None, "e2"]))}
    kind = draw(st.sampled_from(["vital-signs", "exam", "social-history", "laboratory"]))
    narrative = draw(st.sampled_from(["10154-3", "10164-2", "29545-1", "11348-0", None]))
    hpo = draw(st.sampled_from(["HP:0001250", None]))

    def seen(name, **more):
        return observation(name, word, kind, valueString=word, **more)

    found = [
        observation("x1", word, kind, narrative, valueString=word, effectiveDateTime=at, **of),
        seen("x2", issued="2020-03-02T09:00:00Z", **of),
        seen("x3", encounter="e1", effectiveDateTime="2020-03-02"),
        seen("x4"),
        seen("x5", encounter="e2"),
        condition("x6", word, hpo, onsetDateTime="1990-01-01", recordedDate=at, **of),
        condition("x7", word, onsetDateTime="2019-01-01", encounter="e2"),
        relative("x8", "Father", word, date=at),
        relative("x9", "Father", word),
        encounter("x10", "2020-03-02T00:00:00+01:00", None, reasonCode=[concept(word)]),
    ]
    return draw(st.lists(st.sampled_from(found), unique_by=lambda item: item["id"]))


@reused_folder
@given(later=later_resources(), seed=st.randoms(use_true_random=False))
def test_nothing_after_the_first_visit_changes_a_letter_of_it(tmp_path, later, seed):
    before = case_of(tmp_path, record())
    resources = [*record(), *later]
    seed.shuffle(resources)
    assert case_of(tmp_path, resources) == before


@pytest.mark.parametrize(
    ("extra", "field", "text"),
    [
        (
            observation("x", "Pulse", valueInteger=90, effectiveDateTime="2020-03-01T08:20:00Z"),
            "vitals",
            "Pulse: 90",
        ),
        (
            observation("x", "Pain", "exam", valueBoolean=False, encounter="e1"),
            "physical_examination",
            "Pain: no",
        ),
        (condition("x", "Gout", recordedDate="2020-02-29"), "past_medical_history", "Gout"),
        (condition("x", "Gout", onsetDateTime="2019"), "past_medical_history", "Gout"),
    ],
)
def test_what_belongs_to_the_visit_is_in_it(tmp_path, extra, field, text):
    assert text in getattr(case_of(tmp_path, [*record(), extra]), field)


@pytest.mark.parametrize(
    "extra",
    [
        observation("x", SECRET, valueInteger=9, effectiveDateTime="2020-03-01T23:00:00+01:00"),
        observation("x", SECRET, valueInteger=9, effectiveDateTime="2020-02-01"),
        observation("x", SECRET, valueInteger=9, encounter="e1", status="entered-in-error"),
        observation("x", SECRET, "imaging", valueString=SECRET, encounter="e1"),
        condition("x", SECRET, recordedDate="2010", verificationStatus=concept("", "refuted")),
        condition("x", SECRET, recordedDate="2010", verificationStatus=concept("", "provisional")),
        condition("x", SECRET, recordedDate="2020-03-01"),
        condition("x", SECRET, onsetDateTime="2020"),
        *(
            encounter("x", "2000-01-01", None, status=status)
            for status in ("planned", "cancelled", "entered-in-error")
        ),
    ],
    ids=[
        "after its end", "another day", "in error", "imaging", "refuted", "unsure", "now", "year",
        "planned", "cancelled", "encounter in error",
    ],
)  # fmt: skip
def test_what_does_not_belong_is_not(tmp_path, extra):
    assert case_of(tmp_path, [*record(), extra]) == case_of(tmp_path, record())


def test_hpo_codes_become_findings_by_hpos_names(tmp_path):
    coded = [
        condition("x1", SECRET, "HP:0001250", HPO, recordedDate="2020-03-01"),
        observation("x2", SECRET, None, "HP:0002240", valueBoolean=False, encounter="e1"),
        observation("x3", SECRET, None, "HP:0003355", valueBoolean=True, encounter="e1"),
    ]
    case = case_of(tmp_path, [*record(), *coded])
    assert case.findings_present == ("HP:0001250",)
    assert case.findings_excluded == ("HP:0002240",)
    assert case.history_of_present_illness == "Findings: Seizure. Absent: Hepatomegaly."


LOW = [concept("Low", "L")]
PRESENT = [
    {},
    {"valueCodeableConcept": concept("Yes", "LA33-6")},
    {"valueCodeableConcept": concept("Present (qualifier value)", "x")},
    {"valueCodeableConcept": concept(None, "HP:0012828")},
    {"valueString": "Positive."},
    {"valueQuantity": {"value": 31}, "interpretation": LOW},
]
ABSENT = [
    {"valueCodeableConcept": concept(None, "LA32-8")},
    {"valueCodeableConcept": concept(None, "410516002")},
    {"valueCodeableConcept": concept("absent", None)},
    {"valueCodeableConcept": concept("Negative", "x")},
    {"valueString": "No"},
    {"valueBoolean": True, "interpretation": [concept(None, "NEG")]},
]
UNDECIDED = [
    {"valueCodeableConcept": concept(None, "UNK")},
    {"valueCodeableConcept": concept(None, "LA4489-6")},
    {"valueCodeableConcept": concept("Unknown", "261665006")},
    {"valueCodeableConcept": concept(None, "L")},
    {"valueString": "unknown"},
    {"valueQuantity": {"value": 36.5, "unit": "Cel"}},
    {"valueInteger": 0},
    {"interpretation": [concept(None, "IND")]},
    {"dataAbsentReason": concept(None, "asked-unknown")},
]


@pytest.mark.parametrize(
    ("answer", "present", "excluded"),
    [
        *((answer, ("HP:0001250",), ()) for answer in PRESENT),
        *((answer, (), ("HP:0001250",)) for answer in ABSENT),
        *((answer, None, None) for answer in UNDECIDED),
    ],
)
def test_only_an_answer_that_affirms_a_finding_makes_it_present(
    tmp_path, answer, present, excluded
):
    asked = observation("x", "Seizure", None, "HP:0001250", encounter="e1", **answer)
    case = case_of(tmp_path, [*record(), asked])
    assert (case.findings_present, case.findings_excluded) == (present, excluded)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (encounter("e0", None, None), "Encounter.period.start"),
        (encounter("e0", "2019", None), "Encounter.period.start"),
        (encounter("e0", "yesterday", None), "patient"),
        (encounter("e1", "2020-03-01T08:00:00+01:00", None), "patient"),
        (patient(birthDate="2021-01-01"), "case.age_years"),
        (patient(birthDate="1880-01-01"), "case.age_years"),
        (condition("c9", "x", recordedDate=SECRET), "patient"),
        (condition("c9", "x") | {"resourceType": "Conditiom"}, "patient"),
    ],
    ids=["no day", "year", "no date", "id twice", "unborn", "too old", "bad date", "bad type"],
)
def test_a_doubtful_record_is_refused(tmp_path, change, field):
    resources = [
        item for item in record() if change["resourceType"] != "Patient" or item["id"] != "p"
    ]
    items = list(read_recorded(write(tmp_path, [*resources, change, patient("q")])))
    assert not [item for item in items if isinstance(item, RecordedCase)]
    assert field in [item.field for item in items]
    assert SECRET not in str(items)


def test_one_bad_observation_is_refused_and_the_visit_kept(tmp_path):
    bad = observation("bad", SECRET, valueQuantity={"value": SECRET}, encounter="e1")
    refused, recorded = read_recorded(write(tmp_path, [*record(), bad]))
    assert (refused.file, refused.row) == ("bundle.json", len(record()) + 1)
    assert refused.field == "Observation.valueQuantity.value"
    assert SECRET not in str(refused)
    assert recorded.case == case_of(tmp_path / "clean", record())


@pytest.mark.parametrize("day", ["2020-03-01", "2020-03-01T12:00:00+01:00"])
def test_one_day_may_have_encounters_with_and_without_a_time(tmp_path, day):
    case = case_of(tmp_path, [*record(), encounter("e9", day, None)])
    assert case.case_id == ("p/e9" if day == "2020-03-01" else "p/e1")
    assert case.visit_date == date(2020, 3, 1)


def test_a_patient_without_encounter_or_text_is_refused(tmp_path):
    no_text = encounter(subject={"reference": "Patient/b"})
    items = read_recorded(write(tmp_path, [patient("a"), patient("b"), no_text]))
    fields = [(item.kind, item.field) for item in items]
    assert fields == [("out_of_scope", "Encounter"), ("invalid", "case")]


def test_a_device_or_group_is_no_patient(tmp_path):
    odd = observation("x", "Pulse", valueInteger=90, subject={"reference": "Group/p"})
    refused, _ = read_recorded(write(tmp_path, [*record(), odd]))
    assert (refused.field, refused.reason) == ("Observation.subject", "no patient")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@reused_folder
@given(data=st.data())
def test_any_field_may_be_anything(tmp_path, data):
    """A resource with any JSON in one of its fields costs at most its own patient."""
    resources = record()
    victim = data.draw(st.sampled_from(resources))
    victim[data.draw(st.sampled_from(sorted(victim)))] = data.draw(json_values)
    who = {"reference": "Patient/q"}
    other = [patient("q"), encounter("e9", subject=who, reasonCode=[concept("Fever")])]
    items = list(read_recorded(write(tmp_path, [*resources, *other])))
    assert "q/e9" in [item.case.case_id for item in items if isinstance(item, RecordedCase)]
    assert all(isinstance(item, RecordedCase | Refused) for item in items)


@pytest.mark.parametrize(
    ("born", "day", "years"),
    [
        (When(date(1980, 5, 20), date(1980, 5, 20)), date(2020, 5, 19), 39),
        (When(date(1980, 5, 20), date(1980, 5, 20)), date(2020, 5, 20), 40),
        (When(date(1980, 2, 29), date(1980, 2, 29)), date(2021, 2, 28), 40),
        (When(date(1980, 1, 1), date(1980, 12, 31)), date(2020, 12, 31), 40),
        (When(date(2020, 1, 1), date(2020, 12, 31)), date(2020, 2, 1), 0),
        (When(date(2019, 3, 1), date(2019, 3, 1)), date(2020, 3, 1), 366 / 365.25),
    ],
)
def test_age(born, day, years):
    assert age_in_years(born, day) == pytest.approx(years)
