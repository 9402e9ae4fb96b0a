"""FHIR bundles and CDS Hooks: a record in, risks and cards out."""

import json
import re
from uuid import UUID

import pytest
import toy

from rarealert.screening.answer import FLAGS, Note
from rarealert.sources.fhir import read_bundle, read_recorded
from rarealert.student.evidence import Evidence

PATIENT = {"resourceType": "Patient", "id": "p1", "gender": "female", "birthDate": "1990-04-01"}
ENCOUNTER = {
    "resourceType": "Encounter",
    "id": "e1",
    "status": "finished",
    "class": {"code": "AMB"},
    "subject": {"reference": "Patient/p1"},
    "period": {"start": "2024-05-01"},
    "reasonCode": [{"text": "Falls often"}],
}
OTHER = {**PATIENT, "id": "p2"}
NO_DAY = {**ENCOUNTER, "id": "e2", "subject": {"reference": "Patient/p2"}, "period": {}}


def bundle(*resources):
    return {
        "resourceType": "Bundle",
        "type": "collection",
        "entry": [{"resource": resource} for resource in resources],
    }


def call(**prefetch):
    return {
        "hook": "patient-view",
        "hookInstance": "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea",
        "fhirServer": "https://ehr.example/fhir",
        "context": {"userId": "Practitioner/1", "patientId": "p1", "encounterId": "e1"},
        "prefetch": prefetch,
    }


def hook(served, body):
    return served.client.post("/cds-services/rarealert-patient-view", json=body)


def test_the_first_visit_of_each_patient_is_screened(served):
    said = served.client.post(
        "/v1/screen/fhir?rationale=all&prevalence=0.25",
        json=bundle(PATIENT, ENCOUNTER, OTHER, NO_DAY),
    ).json()
    [answer] = said["answers"]
    assert (answer["case_id"], answer["rationale"]) == ("p1/e1", "because")
    assert answer["risk"] == pytest.approx(11 / 89 / 3 / (1 + 11 / 89 / 3))
    [refused] = said["refused"]
    assert (refused["entry"], refused["field"]) == (3, "Encounter.period.start")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "resourceType"),
        ({"resourceType": "Patient"}, "resourceType"),
        (bundle(), "entry.0.resource"),
        (bundle(PATIENT), "entry.0.resource"),
        (bundle({**PATIENT, "gender": 7}, ENCOUNTER), "entry.0.resource"),
        ([], "body"),
    ],
)
def test_a_bundle_without_a_visit_names_what_is_wrong(served, body, field):
    refused = served.client.post("/v1/screen/fhir", json=body)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == field


def test_the_service_describes_itself(served):
    [described] = served.client.get("/cds-services").json()["services"]
    assert (described["id"], described["hook"]) == ("rarealert-patient-view", "patient-view")
    assert {"title", "description", "prefetch"} < described.keys()
    tokens = re.findall(r"{{(.*?)}}", json.dumps(described["prefetch"]))
    assert set(tokens) == {"context.patientId", "context.encounterId"}


def alert(served, **more):
    """Make the model alert on everything, with the flags that ``more`` sets."""
    found = Evidence(
        hpo_id="HP:0002527",
        label="Falls [x](http://evil) <b>",
        words="Falls",
        field="chief_complaint",
        start=0,
        end=5,
        status="present",
        direction="raises",
        weight=0.4,
    )
    fields = {"risk": 0.8, "risk_low": 0.6, "risk_high": 0.9, "band": "alert", "evidence": (found,)}
    fields |= {"rationale": "because"} | more
    code = next((name for name in FLAGS if fields.get(name)), None)
    fields["notes"] = (Note(code=code, message=FLAGS[code]),) if code else ()

    def answer(readings, *asked):
        served.asked.append(asked)
        return [toy.plain_answer(each.case.case_id, **fields) for each in readings]

    served.asked = []
    served.scorer.answer = answer


def test_an_alert_makes_a_warning_card_as_the_specification_wants(served):
    alert(served)
    [card] = hook(served, call(patient=PATIENT, encounter=ENCOUNTER, conditions=None)).json()[
        "cards"
    ]
    assert card["indicator"] == "warning"
    assert 0 < len(card["summary"]) < 140
    assert card["source"]["label"]
    assert UUID(card["uuid"])
    assert "80 % (interval 60 % to 90 %) where 2 % of patients have a rare" in card["detail"]
    assert "Falls x(http://evil) b" in card["detail"]
    assert "not a diagnosis" in card["detail"]


def test_a_card_tells_the_risk_among_the_clinics_own_patients(serve):
    with serve(prevalence=0.3) as served:
        alert(served)
        [card] = hook(served, call(patient=PATIENT, encounter=ENCOUNTER)).json()["cards"]
    assert {prevalence for prevalence, _ in served.asked} == {0.3}
    assert "where 30 % of patients" in card["detail"]


def test_a_low_risk_makes_no_card(served):
    assert hook(served, call(patient=PATIENT, encounter=bundle(ENCOUNTER))).json() == {"cards": []}


def test_a_low_risk_makes_no_card_whatever_its_notes(served):
    alert(served, band="low", out_of_distribution=True)
    assert hook(served, call(patient=PATIENT, encounter=ENCOUNTER)).json() == {"cards": []}


def test_no_risk_is_written_as_a_number_that_nobody_reads(served):
    alert(served, risk=3e-7)
    [card] = hook(served, call(patient=PATIENT, encounter=ENCOUNTER)).json()["cards"]
    assert "below 0.1 %" in card["summary"]


@pytest.mark.parametrize(
    ("flags", "summary"),
    [
        ({"not_english": True}, "could not read"),
        ({"abstain": True}, "can't be ruled out"),
    ],
)
def test_what_the_model_can_not_say_is_no_warning(served, flags, summary):
    alert(served, **flags)
    [card] = hook(served, call(patient=PATIENT, encounter=ENCOUNTER)).json()["cards"]
    assert card["indicator"] == "info"
    assert summary in card["summary"]


@pytest.mark.parametrize(
    ("prefetch", "field"),
    [
        ({}, "prefetch.patient"),
        ({"patient": PATIENT}, "prefetch.encounter"),
        ({"patient": PATIENT, "encounter": None}, "prefetch.encounter"),
        (
            {"patient": OTHER, "encounter": {**NO_DAY, "period": ENCOUNTER["period"]}},
            "prefetch.patient",
        ),
        (
            {"patient": PATIENT, "encounter": {"resourceType": "Encounter"}},
            "prefetch.Encounter.subject",
        ),
    ],
)
def test_without_the_visit_the_call_is_412(served, prefetch, field):
    refused = hook(served, call(**prefetch))
    assert refused.status_code == 412
    assert refused.json()["errors"][0]["field"] == field


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"hook": "order-sign"}, "hook"),
        ({"hookInstance": "7"}, "hookInstance"),
        ({"context": {"userId": "x"}}, "context.patientId"),
        ({"prefetch": {"patient": "text"}}, "prefetch.patient"),
    ],
)
def test_a_call_that_is_none_names_its_field(served, change, field):
    refused = hook(served, {**call(patient=PATIENT), **change})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == field


def test_one_visit_is_explained_with_its_evidence_where_it_was_sent(served):
    alert(served, out_of_distribution=True)
    said = served.client.post("/v1/explain", json={"visit": {"chief_complaint": "  Falls often"}})
    answer = said.json()["answer"]
    assert len(said.json()["next"]["questions"]) <= 3
    [found] = answer["evidence"]
    assert "  Falls often"[found["start"] : found["end"]] == "Falls"
    assert answer["rationale"] == "because"
    assert (answer["risk_low"], answer["risk_high"]) == (0.6, 0.9)
    assert [note["code"] for note in answer["notes"]] == ["out_of_distribution"]


def test_a_bad_visit_to_explain_names_its_field(served):
    refused = served.client.post("/v1/explain", json={"visit": {"age_years": "x"}})
    assert refused.json()["errors"][0]["field"] == "visit.age_years"


def test_a_bundle_in_memory_is_read_as_one_in_a_file(tmp_path):
    whole = bundle(PATIENT, ENCOUNTER, OTHER, NO_DAY)
    (tmp_path / "b.json").write_text(json.dumps(whole))
    [in_file, refused] = list(read_recorded(tmp_path / "b.json"))
    [in_memory, also_refused] = list(read_bundle(whole))
    assert in_memory.case == in_file.case
    assert (also_refused.row, also_refused.reason) == (refused.row, refused.reason)
