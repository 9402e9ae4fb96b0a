"""Phenopackets: what of an individual becomes a first visit, and which packets are refused."""

import json
import zipfile

import pytest

from rarealert.errors import BadInputError
from rarealert.knowledge.hpo import load_ontology
from rarealert.sources.importing import read_source
from rarealert.sources.labelling import RecordedCase
from rarealert.sources.observable import NEEDS_A_TEST, SEEN_ANYWAY, shows_at_a_visit
from rarealert.sources.phenopackets import duration_in_years, read_recorded
from rarealert.visits.refused import Refused

SECRET = "Zebra-striped hands"


def finding(term, **more):
    return {"type": {"id": term, "label": SECRET}, **more}


def packet(**changes):
    disease = {"id": "ORPHA:558", "label": "Marfan syndrome"}
    whole = {
        "id": "one",
        "subject": {
            "id": "p",
            "sex": "FEMALE",
            "timeAtLastEncounter": {"age": {"iso8601duration": "P3Y6M"}},
        },
        "phenotypicFeatures": [
            finding("HP:0001250"),
            finding("HP:0000252", excluded=True),
            finding("HP:0012443"),  # brain morphology: imaging
            finding("HP:0003355"),  # aminoaciduria: laboratory
            finding("HP:0000601", onset={"age": {"iso8601duration": "P9Y"}}),
        ],
        "interpretations": [
            {"id": "i", "progressStatus": "SOLVED", "diagnosis": {"disease": disease}}
        ],
        "diseases": [{"term": disease}],
        "metaData": {"phenopacketSchemaVersion": "2.0"},
    }
    return {key: value for key, value in (whole | changes).items() if value is not None}


def write(folder, *packets):
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(packets):
        text = content if isinstance(content, bytes) else json.dumps(content).encode()
        (folder / f"{number}.json").write_bytes(text)
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
        ({"phenotypicFeatures": [finding("HP:0001250", negated=True)]}, "phenotypic", "invalid"),
        ({"phenotypicFeatures": []}, "phenotypicFeatures", "out_of_scope"),
        ({"phenotypicFeatures": [finding("HP:9999999")]}, "phenotypicFeatures", "out_of_scope"),
        ({"phenotypicFeatures": [finding("HP:0003355")]}, "phenotypicFeatures", "out_of_scope"),
        (
            {"subject": {"timeAtLastEncounter": {"gestationalAge": {"weeks": 20}}}},
            "subject.timeAtLastEncounter",
            "out_of_scope",
        ),
        (
            {"subject": {"timeAtLastEncounter": {"age": {"iso8601duration": "P300Y"}}}},
            "case.age_years",
            "invalid",
        ),
        ({"interpretations": [], "diseases": []}, "diagnosis", "unlabelled"),
        (
            {"interpretations": [], "diseases": [{"term": {"id": "ORPHA:558"}, "excluded": True}]},
            "diagnosis",
            "unlabelled",
        ),
        (
            {
                "interpretations": [],
                "diseases": [{"term": {"id": "ORPHA:558"}}, {"term": {"id": "ORPHA:324"}}],
            },
            "interpretations",
            "out_of_scope",
        ),
    ],
)
def test_a_packet_that_is_no_labelled_first_visit_says_why(tmp_path, changes, field, kind):
    items = list(read_source("phenopackets", write(tmp_path / "p", packet(**changes), packet())))
    refused = items[0]
    assert isinstance(refused, Refused)
    assert (refused.file, refused.row) == ("0.json", 1)
    assert field in refused.field
    assert refused.kind == kind
    assert SECRET not in str(refused)
    assert not isinstance(items[1], Refused)


@pytest.mark.parametrize(
    ("element", "years"),
    [
        (
            {
                "ageRange": {
                    "start": {"iso8601duration": "P40Y"},
                    "end": {"iso8601duration": "P44Y"},
                }
            },
            42,
        ),
        ({"ontologyClass": {"id": "HP:0003581", "label": "Adult onset"}}, None),
        ({"timestamp": "2020-06-30T12:00:00Z"}, 20),
    ],
)
def test_the_age_is_what_the_packet_knows_and_no_more(tmp_path, element, years):
    subject = {"dateOfBirth": "2000-06-30T06:00:00Z", "timeAtLastEncounter": element}
    (visit,) = read_recorded(write(tmp_path / "p", packet(subject=subject)))
    assert visit.case.age_years == (None if years is None else pytest.approx(years, abs=0.01))


@pytest.mark.parametrize(
    ("duration", "years"),
    [
        ("P3Y6M", 3.5),
        ("P2W", 14 / 365.25),
        ("P0D", 0),
        ("PT12H", 1 / 730.5),
        ("P", None),
        ("P3YT", None),
        ("3Y", None),
        ("P-3Y", None),
        ("P٣Y", None),
    ],
)
def test_durations(duration, years):
    assert duration_in_years(duration) == (None if years is None else pytest.approx(years))


def test_a_zip_reads_as_the_folder_it_was_made_of(tmp_path):
    folder = write(tmp_path / "p", packet(), packet(id="two"), b"{", packet(id="three"))
    (folder / ".hidden.json").write_text("{}")
    archive = tmp_path / "p.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        for file in folder.iterdir():
            zipped.write(file, f"deep/{file.name}")
    ours, theirs = list(read_recorded(folder)), list(read_recorded(archive))
    assert [getattr(item, "case", None) for item in ours] == [
        getattr(item, "case", None) for item in theirs
    ]
    assert [isinstance(item, RecordedCase) for item in ours] == [True, True, False, True]


def test_a_folder_without_packets_is_one_clear_sentence(tmp_path):
    with pytest.raises(BadInputError, match=r"\.json"):
        list(read_recorded(tmp_path))


def test_the_branches_of_tests_are_hpos(tmp_path):
    ontology = load_ontology()
    for branches in (NEEDS_A_TEST, SEEN_ANYWAY):
        assert {term: ontology.terms[term].name for term in branches} == branches


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Seizure", True),
        ("Fever", True),
        ("Hepatomegaly", True),
        ("Cafe-au-lait spot", True),
        ("Cryptorchidism", True),
        ("Hypoglycemia", False),
        ("Agenesis of corpus callosum", False),
        ("Ventricular septal defect", False),
        ("Neutropenia", False),
        ("EEG abnormality", False),
        ("Autosomal dominant inheritance", False),
    ],
)
def test_what_a_visit_shows_and_what_a_test(name, shown):
    ontology = load_ontology()
    (term,) = (term.id for term in ontology.terms.values() if term.name == name)
    assert shows_at_a_visit(term) is shown
