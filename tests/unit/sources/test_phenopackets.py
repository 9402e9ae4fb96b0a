"""Phenopackets: what of an individual becomes a first visit, and which packets are refused."""

import json
import zipfile

import pytest

from rarealert.errors import BadInputError
from rarealert.knowledge.hpo import load_ontology
from rarealert.sources.importing import read_source
from rarealert.sources.observable import NEEDS_A_TEST, SEEN_ANYWAY, shows_at_a_visit
from rarealert.sources.phenopackets import duration_in_years, read_recorded
from rarealert.visits.refused import Refused

SECRET = "Zebra-striped hands"
MARFAN, FABRY = {"term": {"id": "ORPHA:558"}}, {"term": {"id": "ORPHA:324"}}


def age(duration):
    return {"age": {"iso8601duration": duration}}


def finding(term, **more):
    return {"type": {"id": term, "label": SECRET}, **more}


def packet(**changes):
    disease = {"id": "ORPHA:558", "label": "Marfan syndrome"}
    solved = {"id": "i", "progressStatus": "SOLVED", "diagnosis": {"disease": disease}}
    whole = {
        "id": "one",
        "subject": {"id": "p", "sex": "FEMALE", "timeAtLastEncounter": age("P3Y6M")},
        "phenotypicFeatures": [
            finding("HP:0001250"),
            finding("HP:0000252", excluded=True),
            finding("HP:0012443"),  # brain morphology: imaging
            finding("HP:0003355"),  # aminoaciduria: laboratory
            finding("HP:0000601", onset=age("P9Y")),
        ],
        "interpretations": [solved],
        "diseases": [{"term": disease}],
        "metaData": {"phenopacketSchemaVersion": "2.0"},
    }
    return whole | changes


def write(folder, *packets):
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(packets):
        (folder / f"{number}.json").write_text(json.dumps(content))
    return folder


def test_a_packet_is_a_visit_without_tests_and_without_what_came_later(tmp_path):
    (item,) = read_source("phenopackets", write(tmp_path / "p", packet()))
    case = item.case
    assert (case.case_id, case.age_years, case.sex) == ("one", 3.5, "female")
    assert case.findings_present == ("HP:0001250",)
    assert case.findings_excluded == ("HP:0000252",)
    assert case.history_of_present_illness == "Findings: Seizure. Absent: Microcephaly."
    assert (item.label.label, item.label.orpha_code) == ("rare", "ORPHA:558")


@pytest.mark.parametrize(
    ("changes", "field", "kind"),
    [
        ({"id": ""}, "id", "invalid"),
        ({"genome": SECRET}, "genome", "invalid"),
        ({"subject": SECRET}, "subject", "invalid"),
        ({"subject": {"id": "p", "sex": 7}}, "sex", "invalid"),
        ({"subject": {"timeAtLastEncounter": age("P300Y")}}, "case.age_years", "invalid"),
        (
            {"subject": {"timeAtLastEncounter": {"gestationalAge": {"weeks": 20}}}},
            "subject.timeAtLastEncounter",
            "out_of_scope",
        ),
        ({"phenotypicFeatures": [finding("HP:0001250", negated=True)]}, "phenotypic", "invalid"),
        ({"phenotypicFeatures": []}, "phenotypicFeatures", "out_of_scope"),
        ({"phenotypicFeatures": [finding("HP:9999999")]}, "phenotypicFeatures", "out_of_scope"),
        ({"phenotypicFeatures": [finding("HP:0003355")]}, "phenotypicFeatures", "out_of_scope"),
        ({"interpretations": [], "diseases": []}, "diagnosis", "unlabelled"),
        (
            {"interpretations": [], "diseases": [MARFAN | {"excluded": True}]},
            "diagnosis",
            "unlabelled",
        ),
        ({"interpretations": [], "diseases": [MARFAN, FABRY]}, "interpretations", "out_of_scope"),
    ],
)
def test_a_packet_that_is_no_labelled_first_visit_is_refused(tmp_path, changes, field, kind):
    folder = write(tmp_path / "p", packet(**changes), packet())
    refused, kept = read_source("phenopackets", folder)
    assert (refused.file, refused.row, refused.kind) == ("0.json", 1, kind)
    assert field in refused.field
    assert SECRET not in str(refused)
    assert kept.case.case_id == "one"


@pytest.mark.parametrize(
    ("element", "years"),
    [
        (
            {"ageRange": {"start": age("P40Y")["age"], "end": age("P44Y")["age"]}},
            42,
        ),
        ({"ontologyClass": {"id": "HP:0003581", "label": "Adult onset"}}, None),
        ({"timestamp": "2020-06-30T12:00:00Z"}, 20),
    ],
)
def test_the_age_may_be_a_range_or_a_date(tmp_path, element, years):
    subject = {"dateOfBirth": "2000-06-30T06:00:00Z", "timeAtLastEncounter": element}
    (recorded,) = read_recorded(write(tmp_path / "p", packet(subject=subject)))
    assert recorded.case.age_years == (None if years is None else pytest.approx(years, abs=0.01))


@pytest.mark.parametrize(
    ("duration", "years"),
    [
        ("P3Y6M", 3.5),
        ("P2W", 14 / 365.25),
        ("P0D", 0),
        ("PT12H", 1 / 730.5),
        *((text, None) for text in ("P", "P3YT", "3Y", "P-3Y", "P٣Y")),
    ],
)
def test_durations(duration, years):
    assert duration_in_years(duration) == (None if years is None else pytest.approx(years))


def test_a_zip_reads_as_the_folder_it_was_made_of(tmp_path):
    folder = write(tmp_path / "p", packet(), packet(id="two"), [], packet(id="three"))
    (folder / ".hidden.json").write_text("{}")
    with zipfile.ZipFile(tmp_path / "p.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        for file in folder.iterdir():
            zipped.write(file, f"deep/{file.name}")
    found, zipped = list(read_recorded(folder)), list(read_recorded(tmp_path / "p.zip"))
    cases = [getattr(item, "case", None) for item in found]
    assert cases == [getattr(item, "case", None) for item in zipped]
    assert [isinstance(item, Refused) for item in found] == [False, False, True, False]


def test_a_folder_without_packets_is_one_sentence(tmp_path):
    with pytest.raises(BadInputError, match=r"\.json"):
        list(read_recorded(tmp_path))


def test_the_branches_of_tests_are_hpos():
    ontology = load_ontology()
    for branches in (NEEDS_A_TEST, SEEN_ANYWAY):
        assert {term: ontology.terms[term].name for term in branches} == branches


@pytest.mark.parametrize(
    ("names", "is_shown"),
    [
        (("Seizure", "Fever", "Hepatomegaly", "Cafe-au-lait spot", "Cryptorchidism"), True),
        (("Hypoglycemia", "Agenesis of corpus callosum", "Ventricular septal defect"), False),
        (("Neutropenia", "EEG abnormality", "Autosomal dominant inheritance"), False),
    ],
)
def test_a_visit_shows_what_needs_no_test(names, is_shown):
    terms = load_ontology().terms.values()
    shown = {term.name: shows_at_a_visit(term.id) for term in terms if term.name in names}
    assert shown == dict.fromkeys(names, is_shown)
