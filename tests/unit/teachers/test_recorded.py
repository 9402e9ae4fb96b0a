"""Recorded answers: from rows in the published formats to answers, and what is refused."""

import csv
import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from rarealert.errors import BadInputError
from rarealert.knowledge.orphanet import Disorder
from rarealert.teachers.answer import TeacherAnswer
from rarealert.teachers.panel import Panel, RecordedSpec, load_panel
from rarealert.teachers.recorded import read_rows
from rarealert.teachers.recorded_corpora import (
    Readers,
    answer_of_reasoning,
    answer_of_trials,
    load_readers,
    steps_of_visit,
)
from rarealert.teachers.roster import assemble
from rarealert.teachers.stated_diagnoses import names_in, read_diagnosis, statement
from rarealert.visits.case import Case

_DISORDERS = {
    "fabry disease": Disorder("ORPHA:324", "Fabry disease"),
    "marfan syndrome": Disorder("ORPHA:558", "Marfan syndrome"),
    "loeys-dietz syndrome": Disorder("ORPHA:60030", "Loeys-Dietz syndrome"),
    "graft versus host disease": Disorder("ORPHA:39812", "Graft versus host disease"),
}


def _resolve(name: str) -> Disorder | None:
    return _DISORDERS.get(name.casefold())


def _disorders_in(text: str) -> list[Disorder]:
    return [found for name, found in _DISORDERS.items() if name in text.casefold()]


def _findings_in(text: str) -> list[str]:
    return [name for name in ("Fever", "Ataxia") if name.casefold() in text.casefold()]


_READERS = Readers(_resolve, _disorders_in, _findings_in)


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("Psoriasis.", "Psoriasis"),
        (" Final diagnosis: Psoriasis.", "Psoriasis"),
        ("The final diagnosis is psoriasis.", "psoriasis"),
        (" The final diagnosis is likely:\n\nUrethritis (NU)", "Urethritis (NU)"),
        ("The most likely diagnosis in this patient is Wilson's disease.", "Wilson's disease"),
        ("Based on the symptoms, the most likely diagnosis for the patient is a goitre.", "goitre"),
        ("**Fabry disease**", "Fabry disease"),
        ("Pulmonary embolism is the most likely diagnosis.", "Pulmonary embolism"),
        ("Fabry disease. However, Marfan syndrome is possible.", "Fabry disease"),
        ("St. Vitus dance", "St. Vitus dance"),
    ],
)  # fmt: skip
def test_statement_drops_the_lead_in_and_what_follows(text, stated):
    assert statement(text) == stated


def test_names_in_offers_whole_parts_and_brackets():
    names = names_in("severe Fabry disease (Anderson-Fabry) with stroke")
    assert names[0] == "severe Fabry disease with stroke"
    assert {"Fabry disease", "Anderson-Fabry", "stroke"} <= set(names)


@pytest.mark.parametrize("short", ["CAD", "cad", "NSTEMI", "MIS-C", "HbSC", "t2dm."])
def test_an_abbreviation_in_brackets_is_no_name_of_its_own(short):
    assert names_in(f"some illness ({short})") == ["some illness"]
    assert short.strip(".") in names_in(f"({short})")


@pytest.mark.parametrize("word", ["Wegener", "PEComa", "nephroblastoma", "Lyme disease"])
def test_a_name_in_brackets_is_offered(word):
    assert word in names_in(f"some illness ({word})")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Coronary artery disease (CAD)", None),
        ("Major depressive disorder (MDD)", None),
        ("Chronic kidney disease (CKD) due to diabetes", None),
        ("Cold agglutinin disease (CAD)", "ORPHA:56425"),
        ("Cystic fibrosis (CF)", "ORPHA:586"),
        ("Granulomatosis with polyangiitis (Wegener's)", "ORPHA:900"),
        ("Renal failure (Fabry disease)", "ORPHA:324"),
        ("Chickenpox", None),
    ],
)  # fmt: skip
def test_diagnoses_of_general_medicine_are_read_with_the_installed_names(tmp_path, text, code):
    assert read_diagnosis(text, load_readers(tmp_path).resolve).orpha_code == code


@pytest.mark.parametrize("text", ["", "  \n ", "?", "**", "12"])
def test_nothing_stated_is_no_diagnosis(text):
    assert read_diagnosis(text, _resolve) is None


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't view images. Please describe the lesions in more detail.",
        "Without Figure A, I cannot provide a diagnosis. Please provide the image.",
        "The information provided is insufficient to make a diagnosis without the photograph.",
        "The diagnosis cannot be accurately made without the radiograph (Figure A).",
        "Based on the information provided, it is not possible to name Fabry disease or another.",
    ],
)
def test_who_declines_to_diagnose_states_nothing(text):
    assert read_diagnosis(text, _resolve) is None
    assert answer_of_trials([text] * 5, _resolve) is None
    assert answer_of_trials([text, "Fabry disease"], _resolve).risk == 100


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("The findings are most consistent with malaria.", "malaria"),
        ("The patient's symptoms suggest a diagnosis of schizophrenia.", "schizophrenia"),
        ("This is most likely a case of benign familial hematuria.", "benign familial hematuria"),
        ("Given the signs, and the age, the most likely diagnosis is a hydatid cyst.",
         "hydatid cyst"),
        ("Based on findings that suggest Parinaud syndrome, the diagnosis is a brain tumor.",
         "brain tumor"),
        ("The most likely cause, given the scan, is a brain tumor.", "brain tumor"),
        ("The correct diagnosis is likely a lung abscess.", "lung abscess"),
        ("Possible diagnosis: Lewy body dementia", "Lewy body dementia"),
        ('The final diagnosis is "Milia."', "Milia"),
        ("I cannot see the ECG. However, his age could suggest a diagnosis of angina.", "angina"),
        ("Myocardial infarction (STEMI). This is indicated by the ECG.", "Myocardial infarction"),
        ("Sweet syndrome", "Sweet syndrome"),
    ],
)  # fmt: skip
def test_the_diagnosis_is_found_in_the_sentence_around_it(text, said):
    assert read_diagnosis(text, _resolve).said == said


def test_a_disorder_is_still_found_in_the_rest_of_its_sentence(tmp_path):
    text = "The most common complication of the diagnosis of cystic fibrosis is an infection."
    found = read_diagnosis(text, load_readers(tmp_path).resolve)
    assert (found.said, found.orpha_code) == ("infection", "ORPHA:586")


def test_risk_is_the_share_of_trials_that_name_a_disorder():
    trials = ["Fabry disease", "The final diagnosis is Fabry disease.", "Gout", "gout.", "Lupus"]
    answer = answer_of_trials(trials, _resolve)
    assert answer.risk == 40
    assert [(item.name, item.orpha_code) for item in answer.differential] == [
        ("Fabry disease", "ORPHA:324"),
        ("Gout", None),
        ("Lupus", None),
    ]
    assert [insight.weight for insight in answer.insights] == [0.4, 0.4, 0.2]
    assert answer.insights[0].explanation == "Named in 2 of 5 trials; Orphanet disorder ORPHA:324."
    assert "2 of 5 trials" in answer.explanation


def test_unusable_trials_are_left_out_of_the_share():
    assert answer_of_trials(["Fabry disease", "", None, "  ", 3], _resolve).risk == 100
    assert answer_of_trials(["", None, "..."], _resolve) is None
    assert answer_of_trials([], _resolve) is None


_ANSWER = (
    "### Resoning:\n<step 1> Fever and ataxia since childhood suggest a hereditary disease.\n"
    "<step 2> MRI shows white matter lesions.\n<step 3> Genetic testing confirms a GLA variant.\n"
    "### Answer:\nFabry disease with renal involvement.\n```"
)


def test_reasoning_becomes_an_answer_without_what_came_after_the_visit():
    answer = answer_of_reasoning(_ANSWER, "Marfan syndrome is possible.", _READERS)
    assert answer.differential[0].orpha_code == "ORPHA:324"
    assert [item.orpha_code for item in answer.differential] == ["ORPHA:324", "ORPHA:558"]
    assert [insight.name for insight in answer.insights] == ["Fever, Ataxia"]
    for word in ("MRI", "GLA", "variant", "renal"):
        assert word not in answer.model_dump_json()


def test_risk_rises_with_final_considered_and_called_rare_each():
    def risk(final: str, thinking: str) -> int:
        answer = answer_of_reasoning(f"### Answer:\n{final}", thinking, _READERS)
        return answer.risk

    assert risk("Gout", "") == 0
    assert risk("Gout", "Marfan syndrome?") < risk("Gout", "Marfan syndrome, Fabry disease?")
    assert risk("Gout", "") < risk("Gout", "A rare cause.") < risk("Fabry disease", "A rare cause.")
    assert risk("Gout", "It is rarely so. Rare in adults.") == 0
    assert risk("Fabry disease", "") == 60


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no heading at all",
        "### Answer:\n\n```",
        "<think>### Answer:\nGout",
        "### Answer",
    ],
)
def test_reasoning_without_a_final_diagnosis_is_missing(text):
    assert answer_of_reasoning(text, "", _READERS) is None


@pytest.mark.parametrize("heading", ["### Answer:", "**Final Diagnosis:**", "Final diagnosis:"])
def test_the_published_headings_are_read(heading):
    assert (
        answer_of_reasoning(f"Text.\n\n{heading}\n\nGout", "", _READERS).differential[0].name
        == "Gout"
    )


@pytest.mark.parametrize(
    "step",
    [
        "CT confirmed it.", "A biopsy is needed.", "Serum calcium was high.", "WBC 12.",
        "Histopathology shows spindle cells.", "Echocardiography was normal.", "TSH 3.2 mU/L.",
        "Surgery removed it.",
        "Hyponatremia suggests it.", "The hormonal profile fits.",
        "PCR was positive.", "Bronchoscopic findings.",
    ],
)  # fmt: skip
def test_no_step_with_ancillary_tests_survives(step):
    assert steps_of_visit(f"<step 1> {step}") == []


@given(st.text(max_size=300), st.text(max_size=100))
def test_any_recorded_text_is_valid_or_missing(text, thinking):
    for answer in (
        answer_of_reasoning(text, thinking, _READERS),
        answer_of_reasoning(f"<step 1> {text}\n### Answer:\n{text}", thinking, _READERS),
        answer_of_trials([text, thinking, text], _resolve),
    ):
        assert answer is None or TeacherAnswer.model_validate(answer.model_dump()) == answer


def _write(folder: Path, lines: list[str], name: str = "m.jsonl.gz") -> Path:
    path = folder / "craftmd" / "teachers" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


_ROW = json.dumps({"case_id": "case_0", "diagnoses": ["Gout"] * 5})


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([_ROW, "{broken"], "row 2 is not JSON"),
        ([_ROW, _ROW], "row 2: case_id stands twice"),
        (['{"diagnoses": []}'], "row 1: case_id is not a text"),
        (['{"case_id": "a", "diagnoses": "Gout"}'], "row 1: diagnoses is not a list"),
        (["[]"], "row 1: case_id is not a text"),
        (['{"case_id": "a"}'], "row 1: answer is not a text"),
        (['{"case_id": "a", "answer": {"risk": 250}}'], r"row 1: answer\.insights: Field required"),
    ],
)
def test_bad_rows_are_named(tmp_path, lines, sentence):
    with pytest.raises(BadInputError, match=sentence):
        read_rows(_write(tmp_path, lines), "craftmd")


def test_a_missing_or_torn_file_is_one_sentence(tmp_path):
    path = _write(tmp_path, [_ROW] * 1)
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(BadInputError, match="not a whole gzip file"):
        read_rows(path, "craftmd")
    path.write_bytes(b"plain text")
    with pytest.raises(BadInputError, match="not a whole gzip file"):
        read_rows(path, "craftmd")
    path.unlink()
    with pytest.raises(BadInputError, match=r"m\.jsonl\.gz is missing.*data import craftmd"):
        read_rows(path, "craftmd")


def test_a_teacher_of_one_corpus_is_missing_elsewhere_and_its_key_holds_the_row(tmp_path):
    spec = RecordedSpec(id="m", kind="recorded", corpus="craftmd", file="m.jsonl.gz")
    panel = Panel(teachers=(spec,))
    case = Case(case_id="case_0", source="craftmd", history_of_present_illness="x")
    keys = []
    for row in (_ROW, json.dumps({"case_id": "case_0", "diagnoses": ["Lupus"] * 5})):
        _write(tmp_path, [row])
        (teacher,) = assemble(panel, tmp_path, frozenset({"craftmd"}))
        keys.append(teacher.request(case).key)
        assert teacher.request(case.model_copy(update={"case_id": "case_9"})) is None
        assert teacher.request(case.model_copy(update={"source": "medrbench"})) is None
    assert keys[0] != keys[1]


def test_files_of_a_corpus_that_no_case_is_of_are_not_asked_for(tmp_path):
    teachers = assemble(load_panel("recorded"), tmp_path, frozenset({"simulated"}))
    case = Case(case_id="a", source="simulated", history_of_present_illness="x")
    assert len(teachers) == 11
    assert {teacher.request(case) for teacher in teachers} == {None}


@pytest.mark.corpora
@pytest.mark.skipif("RAREALERT_CORPORA" not in os.environ, reason="needs the real corpora")
@pytest.mark.parametrize(
    ("model", "low", "high"),
    [("gpt4_1106", 0.86, 0.93), ("gpt3_1106", 0.80, 0.88), ("mistral-v1", 0.58, 0.70)],
)
def test_recorded_models_rank_craftmd_as_published_answers_allow(model, low, high):
    """The upper bound is a leak alarm, the lower one a broken resolver's."""
    data = Path(os.environ["RAREALERT_CORPORA"])
    with (data / "craftmd" / "labels.csv").open(encoding="utf-8") as file:
        labels = {row["case_id"]: row["label"] for row in csv.DictReader(file)}
    rows = read_rows(data / "craftmd" / "teachers" / f"{model}.jsonl.gz", "craftmd")
    resolve = load_readers(data).resolve
    judged = [
        (labels[case_id] == "rare", answer.risk)
        for case_id, found in rows.items()
        if labels.get(case_id) in {"rare", "nonrare"}
        and (answer := answer_of_trials(found.row["diagnoses"], resolve))
    ]
    assert low < roc_auc_score(*zip(*judged, strict=True)) < high
