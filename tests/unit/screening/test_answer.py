"""One contract for every way to an answer: a file, the service, and MLflow's table."""

import json

import pandas as pd
import pytest
from fastapi.testclient import TestClient
from toy import Look, Scorer, model, words_of

from rarealert.errors import BadInputError
from rarealert.screening.answer import COLUMNS
from rarealert.screening.batch import Options, screen_file
from rarealert.screening.pyfunc import RiskModel
from rarealert.screening.service.app import make_app
from rarealert.screening.service.state import ServiceSettings
from rarealert.visits.case import Case
from rarealert.visits.reading import read_visit

MARKS = {
    "alarming": {"band": "alert"},
    "unlike": {"distance": 2.0},
    "undecided": {"abstain": True},
    "endless": {"truncated": True},
}
GERMAN = "Seit Wochen starke Schmerzen und Fieber, alarming."
VISITS = [
    {"chief_complaint": "He has seizures.", "vitals": "No seizures."},
    {"chief_complaint": "An 18-month-old boy who falls.", "age_years": 18},
    {"chief_complaint": "Seizures and fever, unlike others.", "family_history": "Fever."},
    {"chief_complaint": "Undecided undecided alarming endless seizures", "sex": "female"},
    {"chief_complaint": GERMAN},
]


def look(case):
    marks = {}
    for word, mark in MARKS.items():
        marks |= mark if word in words_of(case).lower() else {}
    return Look(0.2, weights={"seizures": 2.0, "fever": -1.0}, **marks)


def scorer():
    return Scorer(look, "because of {}")


def answer(fields, **options):
    case = Case(case_id="a", source="s", **fields)
    return scorer().answer([read_visit(case)], **options)[0]


def by_file(fields, tmp_path, rationale, prevalence):
    (tmp_path / "in.jsonl").write_text(json.dumps({"case_id": "a", **fields}))
    options = Options(rationale, prevalence)
    report = screen_file(tmp_path / "in.jsonl", tmp_path / "out.jsonl", model(scorer()), options)
    row = json.loads(report.out.read_text())
    return {**row, "evidence": json.loads(row["evidence"])}


class Source:
    def current(self):
        return "1"

    def load(self):
        return model(scorer())


def by_service(fields, rationale, prevalence):
    visits = [{"case_id": "a", **fields}]
    with TestClient(make_app(ServiceSettings(), Source()), base_url="http://127.0.0.1") as client:
        body = {"visits": visits, "rationale": rationale, "prevalence": prevalence}
        [row] = client.post("/v1/screen", json=body).json()["answers"]
    notes = " ".join(note["message"] for note in row["notes"]) or None
    mark = {f"model_{name}": row["model"][name] for name in ("version", "digest")}
    return {**row, **mark, "notes": notes}


def by_table(fields, prevalence):
    served = RiskModel()
    served.scorer = scorer()
    params = {"rationale": True, "prevalence": prevalence}
    [row] = served.predict(pd.DataFrame([{"case_id": "a", **fields}]), params).to_dict("records")
    return {**row, "evidence": json.loads(row["evidence"])}


@pytest.mark.parametrize("fields", VISITS, ids=lambda fields: fields["chief_complaint"][:20])
@pytest.mark.parametrize("prevalence", [None, 0.02])
def test_every_way_gives_the_same_answer(tmp_path, fields, prevalence):
    held = by_file(fields, tmp_path, "all", prevalence)
    served = by_service(fields, "all", prevalence)
    table = by_table(fields, prevalence)
    assert {name: served[name] for name in held} == held
    assert list(table) == [*COLUMNS, "rationale"]
    assert table == {name: held[name] for name in table}


@pytest.mark.parametrize(
    ("fields", "codes"),
    [
        ({"chief_complaint": "Fever for two days. No fever."}, ["contradictory_findings"]),
        (
            {"chief_complaint": "No seizures.", "findings_present": ["HP:0001250"]},
            ["contradictory_findings"],
        ),
        (  # seizures are denied, a kind of seizure is present
            {
                "chief_complaint": "Generalized myoclonic seizures.",
                "findings_present": ["HP:0002123"],
                "findings_excluded": ["HP:0001250"],
            },
            ["contradictory_findings", "findings_not_read"],
        ),
        ({"chief_complaint": "An 18-month-old boy who falls.", "age_years": 18}, ["age_differs"]),
        ({"chief_complaint": "An 18-month-old boy who falls.", "age_years": 1.5}, []),
        ({"chief_complaint": "Mother died at 40."}, []),
        ({"chief_complaint": "Falls.", "findings_present": ["HP:9999999"]}, ["unknown_finding"]),
        ({"chief_complaint": "Falls.", "findings_present": ["HP:0001250"]}, ["findings_not_read"]),
        ({"chief_complaint": "Seizures.", "findings_present": ["HP:0001250"]}, []),
        ({"chief_complaint": "unlike"}, ["out_of_distribution"]),
        (
            {"chief_complaint": "Undecided and endless cough, undecided fever"},
            ["abstain", "truncated"],
        ),
        (
            {"chief_complaint": GERMAN + " No fever. Fever."},
            ["not_english", "contradictory_findings"],
        ),
    ],
)
def test_flags_and_oddities_of_a_visit_are_noted(fields, codes):
    found = answer(fields).notes
    assert [note.code for note in found if note.code != "few_findings"] == codes
    assert "falls" not in str(found)


@pytest.mark.parametrize(
    ("text", "findings", "abstains"),
    [
        ("Not feeling right.", 0, True),
        ("Fever. No cough, no rash.", 1, True),
        ("Fever and cough.", 2, False),
        ("alarming", 0, False),  # an alert is never withheld
    ],
)
def test_without_an_alert_too_few_findings_are_not_enough_to_tell(text, findings, abstains):
    found = answer({"chief_complaint": text})
    assert (found.findings, found.abstain) == (findings, abstains)
    assert ("few_findings" in [note.code for note in found.notes]) == abstains


@pytest.mark.parametrize(
    ("text", "rationale", "expected"),
    [
        ("Fever", "none", None),
        ("Fever", "alerts", None),
        ("Fever", "all", "because of a"),
        ("alarming", "alerts", "because of a"),
        (GERMAN, "alerts", None),
        (GERMAN, "all", None),
    ],
)
def test_a_rationale_is_given_where_requested_and_never_for_another_language(
    text, rationale, expected
):
    assert answer({"chief_complaint": text}, rationale=rationale).rationale == expected


def test_another_prevalence_restates_the_risk_and_leaves_band_and_abstention():
    fields = {"chief_complaint": "alarming undecided"}
    plain, rarer = answer(fields), answer(fields, prevalence=0.01)
    assert plain.risk_low <= plain.risk <= plain.risk_high
    assert rarer.risk_low <= rarer.risk <= rarer.risk_high
    assert rarer.risk == pytest.approx(0.25 / 99 / (1 + 0.25 / 99))
    assert rarer.risk_high < plain.risk_high
    assert (rarer.band, rarer.abstain) == (plain.band, plain.abstain) == ("alert", True)
    for wrong in (0.0, 1.0, 2.0):
        with pytest.raises(BadInputError, match="prevalence"):
            answer(fields, prevalence=wrong)


def test_evidence_quotes_the_visit_and_coded_findings_are_no_part_of_it():
    fields = {"chief_complaint": "Fever,  and seizures", "findings_present": ["HP:0012378"]}
    found = answer(fields).evidence
    assert [(each.hpo_id, each.direction) for each in found] == [
        ("HP:0001250", "raises"),
        ("HP:0001945", "lowers"),
    ]
    for each in found:
        assert fields[each.field][each.start : each.end] == each.words
