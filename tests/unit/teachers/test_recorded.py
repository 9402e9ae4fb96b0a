"""Recorded answers: from rows in the published formats to answers, imports, and refusals."""

import csv
import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from rarealert.cli import app
from rarealert.errors import BadInputError
from rarealert.knowledge.orphanet import Disorder
from rarealert.teachers.cache import RationaleCache
from rarealert.teachers.cache_commands import export
from rarealert.teachers.collect import ask_panel
from rarealert.teachers.free_text import (
    Readers,
    answer_of_reasoning,
    answer_of_trials,
    load_readers,
    names_in,
    read_diagnosis,
    statement,
    steps_of_visit,
)
from rarealert.teachers.panel import RecordedSpec, load_panel
from rarealert.teachers.recorded import RecordedTeacher, import_answers, load_recorded, read_rows
from rarealert.teachers.roster import assemble
from rarealert.teachers.teacher_answer import TeacherAnswer
from rarealert.visits.case import Case
from rarealert.visits.reading import Reading, read_visit

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
def test_a_text_that_declines_to_diagnose_states_nothing(text):
    assert read_diagnosis(text, _resolve) is None
    assert answer_of_trials([text] * 5, _resolve) is None
    assert answer_of_trials([text, "Fabry disease"], _resolve).risk == 100


@pytest.mark.parametrize(
    ("text", "wording"),
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
def test_the_diagnosis_is_found_in_the_sentence_around_it(text, wording):
    assert read_diagnosis(text, _resolve).wording == wording


def test_a_disorder_is_still_found_in_the_rest_of_its_sentence(tmp_path):
    text = "The most common complication of the diagnosis of cystic fibrosis is an infection."
    found = read_diagnosis(text, load_readers(tmp_path).resolve)
    assert (found.wording, found.orpha_code) == ("infection", "ORPHA:586")


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
    ["", "no heading at all", "### Answer:\n\n```", "<think>### Answer:\nGout", "### Answer"],
)
def test_reasoning_without_a_final_diagnosis_is_missing(text):
    assert answer_of_reasoning(text, "", _READERS) is None


@pytest.mark.parametrize("heading", ["### Answer:", "**Final Diagnosis:**", "Final diagnosis:"])
def test_the_published_headings_are_read(heading):
    answer = answer_of_reasoning(f"Text.\n\n{heading}\n\nGout", "", _READERS)
    assert answer.differential[0].name == "Gout"


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


def _reading(case_id: str, source: str) -> Reading:
    return read_visit(Case(case_id=case_id, source=source, chief_complaint="x"))


_ROW = json.dumps({"case_id": "case_0", "diagnoses": ["Gout"] * 5})


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([_ROW, "{broken"], "row 2 is not JSON"),
        ([_ROW, _ROW], "row 2: case_id"),
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


@pytest.mark.parametrize("damage", [lambda raw: raw[:-6], lambda _: b"plain text"])
def test_a_torn_file_is_refused(tmp_path, damage):
    path = _write(tmp_path, [_ROW])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadInputError, match=r"m\.jsonl\.gz is not a whole gzip file"):
        read_rows(path, "craftmd")


def test_a_missing_file_is_refused_with_the_way_to_get_it(tmp_path):
    with pytest.raises(BadInputError, match=r"m\.jsonl\.gz is missing.*data import craftmd"):
        read_rows(tmp_path / "m.jsonl.gz", "craftmd")


def test_a_teacher_of_one_corpus_is_missing_elsewhere_and_its_key_holds_the_row(tmp_path):
    spec = RecordedSpec(id="m", kind="recorded", corpus="craftmd", file="m.jsonl.gz")
    keys = []
    for row in (_ROW, json.dumps({"case_id": "case_0", "diagnoses": ["Lupus"] * 5})):
        _write(tmp_path, [row])
        teacher = load_recorded(spec, tmp_path, frozenset({"craftmd"}))
        keys.append(teacher.request(_reading("case_0", "craftmd")).key)
        assert teacher.request(_reading("case_9", "craftmd")) is None
        assert teacher.request(_reading("case_0", "medrbench")) is None
    assert keys[0] != keys[1]


def test_files_of_a_corpus_that_no_case_is_of_are_not_asked_for(tmp_path):
    teachers = assemble(load_panel("recorded"), tmp_path, frozenset({"simulated"}))
    assert len(teachers) == 11
    assert {teacher.request(_reading("a", "simulated")) for teacher in teachers} == {None}


_FULL = TeacherAnswer(insights=(), differential=(), risk=42, explanation="Because.")
_ROWS = [
    {"case_id": "c1", "diagnoses": ["Fabry disease", "Gout", "Gout", "gout.", "Fabry disease"]},
    {"case_id": "c2", "answer": "### Answer:\nMarfan syndrome", "thinking": "Rare, I think."},
    {"case_id": "c0", "answer": _FULL.model_dump(mode="json"), "teacher": "mine"},
    {"case_id": "c3", "answer": "I can't tell."},
    {"case_id": "c0", "answer": "Gout", "teacher": "another"},
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "table").mkdir(parents=True)
    return folder


def _file(tmp_path: Path, rows: list[object]) -> Path:
    path = tmp_path / "answers.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n", encoding="utf-8")
    return path


def _mine(data: Path) -> RecordedTeacher:
    spec = RecordedSpec(id="mine", kind="recorded", corpus="table", file="mine.jsonl.gz")
    return load_recorded(spec, data, frozenset({"table"}))


def _answers(data: Path, count: int) -> list[TeacherAnswer | None]:
    teacher = _mine(data)
    return [teacher.ask(_reading(f"c{number}", "table")) for number in range(count)]


def test_imported_answers_of_every_shape_are_given_by_a_panel(data, tmp_path):
    sentence = import_answers(_file(tmp_path, _ROWS), "mine", "table", data)
    assert "3 answers, 1 that state nothing usable" in sentence
    assert "1 of other teachers left out" in sentence
    assert "{id: mine, kind: recorded, corpus: table, file: mine.jsonl.gz}" in sentence
    full, trials, reasoning, unusable = _answers(data, 4)
    assert full == _FULL
    assert (trials.risk, trials.differential[0].name) == (40, "Gout")
    assert trials.differential[1].orpha_code == "ORPHA:324"
    assert reasoning.differential[0].orpha_code == "ORPHA:558"
    assert unusable is None, "missing, not a risk of zero"


def test_the_same_rows_in_another_order_give_the_same_file(data, tmp_path):
    written = []
    for rows in (_ROWS, _ROWS[::-1]):
        import_answers(_file(tmp_path, rows), "mine", "table", data)
        written.append((data / "table" / "teachers" / "mine.jsonl.gz").read_bytes())
    assert written[0] == written[1]


def test_exported_answers_can_be_imported_without_loss(data, tmp_path):
    import_answers(_file(tmp_path, _ROWS), "mine", "table", data)
    before = _answers(data, 3)
    cases = [_reading(f"c{number}", "table").case for number in range(4)]
    with RationaleCache(tmp_path / "cache") as cache:
        ask_panel([_mine(data)], cases, cache, set())
    out = tmp_path / "exported.jsonl"
    export(tmp_path / "cache", out)
    out.write_bytes(gzip.compress(out.read_bytes()))
    assert "3 answers, 0 that" in import_answers(out, "mine", "table", data)
    assert _answers(data, 3) == before


@pytest.mark.parametrize(
    ("rows", "place"),
    [
        ([], "holds no answer of mine"),
        ([{"case_id": "a", "answer": "Gout", "teacher": "x"}], "holds no answer of mine"),
        ([_ROWS[0], {"answer": "Gout"}], "row 2: case_id"),
        ([_ROWS[0], _ROWS[0]], "row 2: case_id"),
        ([{"case_id": "a", "answer": {**_ROWS[2]["answer"], "risk": 250}}], r"row 1: answer\.risk"),
    ],
)
def test_a_bad_import_is_refused_and_changes_nothing(data, tmp_path, rows, place):
    with pytest.raises(BadInputError, match=place):
        import_answers(_file(tmp_path, rows), "mine", "table", data)
    assert list((data / "table").iterdir()) == []


@pytest.mark.parametrize(
    ("teacher", "source", "file", "option"),
    [
        ("../x", "table", "answers.jsonl", "--teacher"),
        ("mine", "elsewhere", "answers.jsonl", "--source"),
        ("mine", "table", "none.jsonl", r"none\.jsonl can't be read"),
    ],
)
def test_an_import_of_a_bad_name_or_a_missing_file_is_refused(
    data, tmp_path, teacher, source, file, option
):
    _file(tmp_path, _ROWS)
    with pytest.raises(BadInputError, match=option):
        import_answers(tmp_path / file, teacher, source, data)


def test_teach_import_is_a_command_beside_the_stage():
    done = CliRunner().invoke(app, ["teach", "import", "--help"])
    assert done.exit_code == 0
    assert "--source" in done.stdout


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
