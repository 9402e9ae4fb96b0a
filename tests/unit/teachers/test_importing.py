"""Answers made elsewhere come in by one command, or are refused by one sentence."""

import gzip
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rarealert.cli import app
from rarealert.errors import BadInputError
from rarealert.teachers.answer import TeacherAnswer
from rarealert.teachers.asking import ask_panel
from rarealert.teachers.cache import RationaleCache
from rarealert.teachers.cache_audit import export
from rarealert.teachers.importing import import_answers
from rarealert.teachers.panel import Panel, RecordedSpec
from rarealert.teachers.roster import assemble
from rarealert.visits.case import Case

_ANSWER = TeacherAnswer(insights=(), differential=(), risk=42, explanation="Heard.")
_ROWS = [
    {"case_id": "c1", "diagnoses": ["Fabry disease", "Gout", "Gout", "gout.", "Fabry disease"]},
    {
        "case_id": "c2",
        "answer": "### Answer:\nMarfan syndrome",
        "thinking": "Rare, I think.",
    },
    {"case_id": "c0", "answer": _ANSWER.model_dump(mode="json"), "teacher": "mine"},
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


def _teacher(data: Path) -> object:
    spec = RecordedSpec(id="mine", kind="recorded", corpus="table", file="mine.jsonl.gz")
    (teacher,) = assemble(Panel(teachers=(spec,)), data, frozenset({"table"}))
    return teacher


def _ask(teacher: object, number: int) -> TeacherAnswer | None:
    case = Case(case_id=f"c{number}", source="table", chief_complaint="x")
    return teacher.ask(case)  # type: ignore[attr-defined,no-any-return]


def test_imported_answers_of_every_shape_are_heard_by_a_panel(data, tmp_path):
    said = import_answers(_file(tmp_path, _ROWS), "mine", "table", data)
    assert "3 answers, 1 that state nothing usable" in said
    assert "1 of other teachers left out" in said
    assert "{id: mine, kind: recorded, corpus: table, file: mine.jsonl.gz}" in said
    teacher = _teacher(data)
    trials, reasoning = _ask(teacher, 1), _ask(teacher, 2)
    assert _ask(teacher, 0) == _ANSWER
    assert _ask(teacher, 3) is None, "missing, not zero"
    assert (trials.risk, trials.differential[0].name) == (40, "Gout")
    assert trials.differential[1].orpha_code == "ORPHA:324"
    assert reasoning.differential[0].orpha_code == "ORPHA:558"


def test_the_same_rows_in_another_order_are_the_same_file(data, tmp_path):
    import_answers(_file(tmp_path, _ROWS), "mine", "table", data)
    out = data / "table" / "teachers" / "mine.jsonl.gz"
    before = out.read_bytes()
    import_answers(_file(tmp_path, _ROWS[::-1]), "mine", "table", data)
    assert out.read_bytes() == before


def test_what_the_cache_exports_can_be_imported(data, tmp_path):
    """Answers move from one team's cache to another's panel without loss."""
    import_answers(_file(tmp_path, _ROWS), "mine", "table", data)
    cases = [Case(case_id=f"c{n}", source="table", chief_complaint="x") for n in range(4)]
    with RationaleCache(tmp_path / "cache") as cache:
        ask_panel([_teacher(data)], cases, cache)
    out = tmp_path / "exported.jsonl"
    export(tmp_path / "cache", out)
    heard = [_ask(_teacher(data), number) for number in range(3)]
    out.write_bytes(gzip.compress(out.read_bytes()))
    assert "3 answers, 0 that" in import_answers(out, "mine", "table", data)
    assert [_ask(_teacher(data), number) for number in range(3)] == heard


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], "holds no answer of mine"),
        ([{"case_id": "a", "answer": "Gout", "teacher": "x"}], "holds no answer of mine"),
        ([{"case_id": "a", "diagnoses": "Gout"}], "row 1: diagnoses is not a list"),
        ([_ROWS[0], {"answer": "Gout"}], "row 2: case_id is not a text"),
        ([_ROWS[0], _ROWS[0]], "row 2: case_id stands twice"),
        ([{"case_id": "a", "answer": {**_ROWS[2]["answer"], "risk": 250}}], r"answer\.risk"),
    ],
)
def test_a_bad_file_is_one_sentence_and_changes_nothing(data, tmp_path, rows, sentence):
    with pytest.raises(BadInputError, match=sentence):
        import_answers(_file(tmp_path, rows), "mine", "table", data)
    assert list((data / "table").iterdir()) == []


def test_bad_names_and_a_missing_file_are_one_sentence(data, tmp_path):
    path = _file(tmp_path, _ROWS)
    with pytest.raises(BadInputError, match="is no name"):
        import_answers(path, "../x", "table", data)
    with pytest.raises(BadInputError, match="folder of data/"):
        import_answers(path, "mine", "elsewhere", data)
    with pytest.raises(BadInputError, match="can't be read"):
        import_answers(tmp_path / "none.jsonl", "mine", "table", data)


def test_teach_import_is_a_command_beside_the_stage():
    runner = CliRunner()
    done = runner.invoke(app, ["teach", "import", "--help"])
    assert done.exit_code == 0
    assert "--source" in done.stdout
    assert "import" in runner.invoke(app, ["teach", "--help"]).stdout
