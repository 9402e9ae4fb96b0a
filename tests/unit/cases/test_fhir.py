"""FHIR: which encounter is the first visit, what belongs to it, and that nothing later does."""

import json
import zipfile
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

from rarealert.errors import BadInputError
from rarealert.sources.fhir import read_visits
from rarealert.sources.fhir_resources import When, age_in_years
from rarealert.sources.importing import read_source
from rarealert.sources.records import Visit
from rarealert.visits.refused import Refused

SECRET = "Zebra-striped hands"
reused_folder = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30
)


def write(folder, resources, name="bundle.json"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(bundle(resources)), encoding="utf-8")
    return folder


def ndjson(resources):
    return "".join(json.dumps(resource) + "\n" for resource in resources)


def visit_of(folder, resources):
    items = list(read_visits(write(folder, resources)))
    (visit,) = [item for item in items if isinstance(item, Visit)]
    return visit


def test_a_record_becomes_its_first_visit(tmp_path):
    case = visit_of(tmp_path, record()).case
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


def test_a_rare_disease_named_years_later_is_the_label(tmp_path):
    (item,) = read_source("fhir", write(tmp_path / "fhir", record()))
    assert (item.label.label, item.label.orpha_code) == ("rare", "ORPHA:558")


def test_without_one_the_visits_own_diagnosis_is(tmp_path):
    common = [item for item in record() if item["id"] != "c2"]
    (item,) = read_source("fhir", write(tmp_path / "fhir", common))
    assert (item.label.label, item.label.disease_id) == ("nonrare", "NAME:acute bronchitis")


def test_a_later_common_disease_says_nothing_of_the_visit(tmp_path):
    later = [item for item in record() if item["id"] not in ("c1", "c2")]
    later.append(condition("c9", "Acute bronchitis", recordedDate="2021-01-01"))
    (item,) = read_source("fhir", write(tmp_path / "fhir", later))
    assert item.kind == "excluded"


def test_a_rare_disease_known_before_is_no_first_visit_for_it(tmp_path):
    known = [*record()[:2], condition("c", "Marfan syndrome", recordedDate="2010-01-01")]
    (item,) = read_source("fhir", write(tmp_path / "fhir", known))
    assert item.kind == "diagnosis_in_text"


LATER = st.sampled_from(["2020-03-02", "2020-03-02T00:00:00+01:00", "2021", "2020-04", "2020"])
ENCOUNTERS = st.sampled_from([None, "e2"])
words = st.text("abc ", min_size=1, max_size=9).filter(str.strip)


@st.composite
def later_resources(draw):
    """What was written down after the first day, or hangs on a later encounter, or has no date."""
    word, at = draw(words), draw(LATER)
    dated = {"encounter": draw(ENCOUNTERS)}
    kind = draw(st.sampled_from(["vital-signs", "exam", "social-history", "laboratory"]))
    narrative = draw(st.sampled_from(["10154-3", "10164-2", "29545-1", "11348-0", None]))
    hpo = draw(st.booleans())
    resources = [
        observation("x1", word, kind, narrative, valueString=word, effectiveDateTime=at, **dated),
        observation("x2", word, kind, valueString=word, issued="2020-03-02T09:00:00Z", **dated),
        observation(
            "x3", word, kind, valueString=word, encounter="e1", effectiveDateTime="2020-03-02"
        ),
        observation("x4", word, kind, valueString=word),
        observation("x5", word, kind, valueString=word, encounter="e2"),
        condition(
            "x6",
            word,
            "HP:0001250" if hpo else None,
            onsetDateTime="1990-01-01",
            recordedDate=at,
            **dated,
        ),
        condition("x7", word, onsetDateTime="2019-01-01", encounter="e2"),
        relative("x8", "Father", word, date=at),
        relative("x9", "Father", word),
        encounter("x10", "2020-03-02T00:00:00+01:00", None, reasonCode=[concept(word)]),
    ]
    return draw(st.lists(st.sampled_from(resources), unique_by=lambda item: item["id"]))


@reused_folder
@given(later=later_resources(), seed=st.randoms(use_true_random=False))
def test_nothing_after_the_first_visit_changes_a_letter_of_it(tmp_path, later, seed):
    before = visit_of(tmp_path, record()).case
    resources = [*record(), *later]
    seed.shuffle(resources)
    assert visit_of(tmp_path, resources).case == before


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
)  # fmt: skip
def test_what_belongs_to_the_visit_is_in_it(tmp_path, extra, field, text):
    assert text in getattr(visit_of(tmp_path, [*record(), extra]).case, field)


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
    ],
    ids=["after its end", "another day", "in error", "imaging", "refuted", "unsure", "now", "year"],
)
def test_what_does_not_belong_is_not(tmp_path, extra):
    assert visit_of(tmp_path, [*record(), extra]).case == visit_of(tmp_path, record()).case


def test_hpo_codes_become_findings_told_in_hpos_words(tmp_path):
    system = "http://human-phenotype-ontology.org"
    coded = [
        condition("x1", SECRET, "HP:0001250", system=system, recordedDate="2020-03-01"),
        observation("x2", SECRET, None, "HP:0002240", valueBoolean=False, encounter="e1"),
        observation("x3", SECRET, None, "HP:0003355", valueBoolean=True, encounter="e1"),
    ]
    case = visit_of(tmp_path, [*record(), *coded]).case
    assert case.findings_present == ("HP:0001250",)
    assert case.findings_excluded == ("HP:0002240",)
    assert case.history_of_present_illness == "Findings: Seizure. Absent: Hepatomegaly."


LOW = [concept("Low", "L")]


@pytest.mark.parametrize(
    ("said", "present"),
    [
        ({}, True),
        ({"valueCodeableConcept": concept("Yes", "LA33-6")}, True),
        ({"valueCodeableConcept": concept("Present (qualifier value)", "x")}, True),
        ({"valueCodeableConcept": concept(None, "HP:0012828")}, True),
        ({"valueString": "Positive."}, True),
        ({"valueQuantity": {"value": 31}, "interpretation": LOW}, True),
        ({"valueCodeableConcept": concept(None, "LA32-8")}, False),
        ({"valueCodeableConcept": concept(None, "410516002")}, False),
        ({"valueCodeableConcept": concept("absent", None)}, False),
        ({"valueCodeableConcept": concept("Negative", "x")}, False),
        ({"valueString": "No"}, False),
        ({"valueBoolean": True, "interpretation": [concept(None, "NEG")]}, False),
        ({"valueCodeableConcept": concept(None, "UNK")}, None),
        ({"valueCodeableConcept": concept(None, "LA4489-6")}, None),
        ({"valueCodeableConcept": concept("Unknown", "261665006")}, None),
        ({"valueCodeableConcept": concept(None, "L")}, None),
        ({"valueString": "unknown"}, None),
        ({"valueQuantity": {"value": 36.5, "unit": "Cel"}}, None),
        ({"valueInteger": 0}, None),
        ({"interpretation": [concept(None, "IND")]}, None),
        ({"dataAbsentReason": concept(None, "asked-unknown")}, None),
    ],
)
def test_only_an_answer_that_affirms_a_finding_makes_it_present(tmp_path, said, present):
    asked = observation("x", "Seizure", None, "HP:0001250", encounter="e1", **said)
    case = visit_of(tmp_path, [*record(), asked]).case
    assert case.findings_present == {True: ("HP:0001250",), False: (), None: None}[present]
    assert case.findings_excluded == {True: (), False: ("HP:0001250",), None: None}[present]


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
    ],
    ids=["no day", "year", "no date", "id twice", "unborn", "too old", "bad condition"],
)
def test_a_doubtful_record_is_refused(tmp_path, change, field):
    resources = [
        item for item in record() if change["resourceType"] != "Patient" or item["id"] != "p"
    ]
    items = list(read_visits(write(tmp_path, [*resources, change, patient("q")])))
    assert not [item for item in items if isinstance(item, Visit)]
    assert field in [item.field for item in items]
    assert SECRET not in str(items)


def test_one_bad_observation_is_refused_and_the_visit_kept(tmp_path):
    bad = observation("bad", SECRET, valueQuantity={"value": SECRET}, encounter="e1")
    refused, visit = read_visits(write(tmp_path, [*record(), bad]))
    assert (refused.file, refused.row) == ("bundle.json", len(record()) + 1)
    assert refused.field == "Observation.valueQuantity.value"
    assert SECRET not in str(refused)
    assert visit.case == visit_of(tmp_path / "clean", record()).case


def test_a_planned_or_cancelled_encounter_is_no_visit(tmp_path):
    early = [encounter(f"x{status}", "2000-01-01", None, status=status)
             for status in ("planned", "cancelled", "entered-in-error")]  # fmt: skip
    assert visit_of(tmp_path, [*record(), *early]).case.case_id == "p/e1"


@pytest.mark.parametrize("day", ["2020-03-01", "2020-03-01T12:00:00+01:00"])
def test_one_day_may_hold_encounters_with_and_without_a_time(tmp_path, day):
    case = visit_of(tmp_path, [*record(), encounter("e9", day, None)]).case
    assert case.case_id == ("p/e9" if day == "2020-03-01" else "p/e1")
    assert case.visit_date == date(2020, 3, 1)


def test_a_patient_without_encounter_or_text_is_out_of_scope(tmp_path):
    items = list(read_visits(write(tmp_path, [patient("a")])))
    assert [item.kind for item in items] == ["out_of_scope"]
    silent = [patient("a"), encounter(subject={"reference": "Patient/a"})]
    items = list(read_visits(write(tmp_path, silent)))
    assert [item.field for item in items] == ["case"]


def test_bundles_ndjson_files_by_kind_and_zips_read_alike(tmp_path):
    whole = list(read_visits(write(tmp_path / "a", record())))
    folder = tmp_path / "b"
    folder.mkdir()
    for kind in {item["resourceType"] for item in record()}:
        lines = ndjson(item for item in record() if item["resourceType"] == kind)
        (folder / f"{kind}.ndjson").write_text(lines)
    archive = tmp_path / "c.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for file in folder.iterdir():
            zipped.write(file, file.name)
    by_urn = json.loads(json.dumps(bundle(record())).replace('"Patient/p"', '"urn:uuid:p"'))
    (tmp_path / "urn.json").write_text(json.dumps(by_urn))
    for path in (folder, archive, tmp_path / "urn.json"):
        assert [item.case for item in read_visits(path)] == [item.case for item in whole]


def test_the_same_bundle_twice_counts_once(tmp_path):
    folder = write(write(tmp_path, record()), record(), "again.json")
    assert len(list(read_visits(folder))) == 1


def test_a_device_or_group_is_no_patient(tmp_path):
    odd = observation("x", "Pulse", valueInteger=90, subject={"reference": "Group/p"})
    refused, _ = read_visits(write(tmp_path, [*record(), odd]))
    assert (refused.field, refused.reason) == ("Observation.subject", "no patient")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@reused_folder
@given(data=st.data())
def test_any_field_may_be_anything(tmp_path, data):
    """One field of one resource is replaced by any JSON: it reads on, or says which record."""
    resources = record()
    victim = data.draw(st.sampled_from(resources))
    key = data.draw(st.sampled_from(sorted(victim)))
    victim[key] = data.draw(json_values)
    items = list(read_visits(write(tmp_path, [*resources, *other_patient()])))
    assert "q/e9" in [item.case.case_id for item in items if isinstance(item, Visit)]
    assert all(isinstance(item, Visit | Refused) for item in items)


def other_patient():
    who = {"reference": "Patient/q"}
    return [patient("q"), encounter("e9", subject=who, reasonCode=[concept("Fever")])]


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


def test_an_empty_folder_is_one_clear_sentence(tmp_path):
    with pytest.raises(BadInputError, match=r"holds no .*ndjson"):
        list(read_visits(tmp_path))
