"""Screening a file: every row answered or refused, and a killed run continued."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from toy import Look, Scorer, model

from rarealert.errors import BadInputError, RareAlertError
from rarealert.screening.batch import Options, screen_file
from rarealert.screening.champion import load_folder, load_model


def by_length(case):
    """The risk is the length of the complaint over 100, an alert above 0.1."""
    risk = len(case.chief_complaint) / 100
    return Look(risk, "alert" if risk > 0.1 else "low")


def scorer(**more):
    return Scorer(by_length, "because of {}", **more)


def write(path, rows):
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def visits(count):
    return [{"case_id": f"v{i}", "chief_complaint": "x" * (i % 20 + 1)} for i in range(count)]


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_visit_is_answered_in_order_and_marked(tmp_path):
    source, out = write(tmp_path / "in.jsonl", visits(25)), tmp_path / "deep" / "out.jsonl"
    report = screen_file(source, out, model(scorer()), Options("all"), chunk_rows=4)
    rows = read(out)
    assert [row["case_id"] for row in rows] == [f"v{i}" for i in range(25)]
    assert rows[3] == {
        "case_id": "v3",
        "risk": 0.04,
        "risk_low": 0.02,
        "risk_high": 0.52,
        "band": "low",
        "abstain": False,
        "out_of_distribution": False,
        "ood_score": 0.5,
        "not_english": False,
        "truncated": False,
        "evidence": "[]",
        "rationale": "because of v3",
        "notes": None,
        "model_version": "2",
        "model_digest": "d" * 64,
    }
    assert (report.screened, report.refused, report.resumed) == (25, 0, 0)
    assert sum(report.bands.values()) == 25
    assert report.flagged == 0
    assert [path.name for path in out.parent.iterdir()] == ["out.jsonl"]
    assert "25 visits" in report.sentence()


def test_a_visit_that_cannot_be_read_is_no_alert_and_gets_no_reasons(tmp_path):
    rows = [{"chief_complaint": "Seit Wochen Fieber."}, {"chief_complaint": "Fever for weeks."}]
    source, out = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    report = screen_file(source, out, model(scorer()), Options("all"))
    unread, other = read(out)
    assert "not English" in unread["notes"]
    assert (unread["rationale"], other["rationale"]) == (None, "because of 2")
    assert report.bands == {"alert": 1, "not read": 1}
    assert "1 to be read with their notes" in report.sentence()


def test_a_visit_that_was_cut_is_counted_apart(tmp_path):
    def cut(case):
        return Look(0.2, truncated=True, abstain=case.case_id == "v3")

    source, out = write(tmp_path / "in.jsonl", visits(8)), tmp_path / "out.jsonl"
    report = screen_file(source, out, model(Scorer(cut)), chunk_rows=3)
    assert (report.cut, report.flagged) == (8, 1)
    assert "1 to be read with their notes; 8 longer than the model reads" in report.sentence()


def test_refused_rows_have_their_reason_and_never_their_text(tmp_path):
    rows = [
        {"case_id": "ok", "chief_complaint": "fine", "vitals": "", "sex": None},
        {"chief_complaint": "named by its row"},
        {"case_id": "old", "age_years": 400, "chief_complaint": "secret"},
        {"case_id": "empty", "chief_complaint": "  "},
        {"case_id": "extra", "chief_complaint": "secret", "secret note": "secret"},
        {"case_id": "wordless", "chief_complaint": "😀 🤕", "vitals": "38.6"},
        {"case_id": 7, "chief_complaint": "secret"},
        '{"case_id": "cut',
        "[1, 2]",
        "",
    ]
    out = tmp_path / "out.jsonl"
    report = screen_file(write(tmp_path / "in.jsonl", rows), out, model(), chunk_rows=3)
    assert [row["case_id"] for row in read(out)] == ["ok", "2"]
    refused = read(report.refused_file)
    assert [(row["row"], row["case_id"]) for row in refused] == [
        (3, "old"),
        (4, "empty"),
        (5, "extra"),
        (6, "wordless"),
        (7, None),
        (8, None),
        (9, None),
    ]
    assert refused[3]["reason"] == "chief_complaint: holds no word to read"
    assert refused[0]["reason"].startswith("age_years: ")
    assert refused[1]["reason"].startswith("a case needs text in at least one of ")
    assert refused[2]["reason"] == "an unknown field"
    assert "secret" not in report.refused_file.read_text()
    assert report.refused == 7


@pytest.mark.parametrize("case_id", ["\\ud83d", "secret " * 40])
def test_an_id_that_is_none_is_not_told(tmp_path, case_id):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(
        '{"case_id": "a", "chief_complaint": "fever"}\n'
        f'{{"case_id": "{case_id}", "chief_complaint": "fever"}}\n'
        '{"case_id": "c", "chief_complaint": "fever"}\n'
    )
    report = screen_file(source, out, model())
    assert [row["case_id"] for row in read(out)] == ["a", "c"]
    [refused] = read(report.refused_file)
    assert (refused["row"], refused["case_id"]) == (2, None)
    assert refused["reason"].startswith("case_id: ")
    assert "secret" not in report.refused_file.read_text()


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_a_file_name_that_is_no_utf8_is_escaped(tmp_path, ending):
    source, out = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.")), tmp_path / "out.jsonl"
    source = source.with_name(source.name + ending)
    said = (
        '{"chief_complaint": "fever"}\n{'
        if ending == "jsonl"
        else "case_id,chief_complaint\na,fever\nx\n"
    )
    source.write_text(said)
    report = screen_file(source, out, model())
    assert (report.screened, report.refused) == (1, 1)
    if ending == "csv":
        assert read(report.refused_file)[0]["file"] == r"caf\udce9.csv"


@pytest.mark.parametrize("torn", [False, True])
def test_a_killed_run_is_continued_without_asking_twice(tmp_path, torn):
    source, out = write(tmp_path / "in.jsonl", ["{", *visits(30)]), tmp_path / "out.jsonl"
    first = scorer(calls=3)
    with pytest.raises(KeyboardInterrupt):
        screen_file(source, out, model(first), chunk_rows=5)
    assert not out.exists()
    if torn:
        with (tmp_path / "out.jsonl.partial").open("ab") as stream:
            stream.write(b'{"case_id": "v99"')
    second = scorer()
    report = screen_file(source, out, model(second), chunk_rows=5)
    assert first.seen + second.seen == [f"v{i}" for i in range(30)]
    assert (report.screened, report.refused, report.resumed) == (30, 1, 15)

    whole = tmp_path / "whole.jsonl"
    screen_file(source, whole, model(scorer()), chunk_rows=7)
    assert out.read_bytes() == whole.read_bytes()
    refused = [path.with_name(f"{path.name}.refused.jsonl") for path in (out, whole)]
    assert refused[0].read_bytes() == refused[1].read_bytes()


@pytest.mark.parametrize("change", ["visits", "model", "lost"])
def test_a_run_of_something_else_starts_anew(tmp_path, change):
    source, out = write(tmp_path / "in.jsonl", visits(20)), tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        screen_file(source, out, model(scorer(calls=2)), chunk_rows=5)
    if change == "visits":
        write(source, visits(21))
    if change == "lost":
        (tmp_path / "out.jsonl.partial").unlink()
    report = screen_file(source, out, model(version="3" if change == "model" else "2"))
    assert report.resumed == 0
    assert len(read(out)) == report.screened == (21 if change == "visits" else 20)


def test_two_runs_do_not_write_the_same_answers(tmp_path):
    source, out = write(tmp_path / "in.jsonl", visits(20)), tmp_path / "out.jsonl"
    told = []

    class Beside(Scorer):
        def answer(self, readings, *asked):
            if not told:
                with pytest.raises(BadInputError, match="being written by another run") as refused:
                    screen_file(source, out, model(), chunk_rows=5)
                told.append(str(refused.value))
            return super().answer(readings, *asked)

    screen_file(source, out, model(Beside()), chunk_rows=5)
    assert "name another --out" in told[0]
    assert [row["case_id"] for row in read(out)] == [f"v{i}" for i in range(20)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_the_lock_of_a_killed_run_holds_nobody_up(tmp_path):
    source, out = write(tmp_path / "in.jsonl", visits(2)), tmp_path / "out.jsonl"
    (tmp_path / "out.jsonl.lock").touch()
    assert screen_file(source, out, model()).screened == 2
    assert not (tmp_path / "out.jsonl.lock").exists()


def test_a_later_run_leaves_no_refusals_of_an_earlier_one(tmp_path):
    out = tmp_path / "out.jsonl"
    screen_file(write(tmp_path / "a.jsonl", ["{", *visits(2)]), out, model())
    report = screen_file(write(tmp_path / "b.jsonl", visits(2)), out, model())
    assert report.refused_file is None
    assert not (tmp_path / "out.jsonl.refused.jsonl").exists()


def test_files_that_make_no_sense_are_refused(tmp_path):
    with pytest.raises(BadInputError, match=r"nothing\.jsonl is missing"):
        screen_file(tmp_path / "nothing.jsonl", tmp_path / "out.jsonl", model())
    source = write(tmp_path / "in.jsonl", visits(1))
    with pytest.raises(BadInputError, match="name another file"):
        screen_file(source, source, model())


@pytest.mark.parametrize(
    ("out", "sentence"),
    [
        ("visits/answers.jsonl", "is in the folder of visits"),
        ("visits/deep/answers.csv", "is in the folder of visits"),
        ("taken.csv", "is a folder"),
        ("file.txt/deep/answers.csv", r"file\.txt is not a folder"),
    ],
)
def test_an_out_that_cannot_be_written_is_refused_before_a_visit_is_asked(tmp_path, out, sentence):
    (tmp_path / "visits").mkdir()
    write(tmp_path / "visits" / "a.ndjson", [{"resourceType": "Patient", "id": "a"}])
    (tmp_path / "taken.csv").mkdir()
    (tmp_path / "file.txt").touch()
    unasked = Scorer()
    with pytest.raises(BadInputError, match=sentence):
        screen_file(tmp_path / "visits", tmp_path / out, model(unasked))
    assert not unasked.seen
    assert len(list(tmp_path.rglob("*"))) == 4


def test_a_registry_that_does_not_answer_is_not_called_empty(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    with pytest.raises(RareAlertError, match="did not answer") as refused:
        load_model("toy", "champion", "http://me:secret@127.0.0.1:9")
    assert "secret" not in str(refused.value)


def test_without_a_registry_the_sentence_says_what_to_run(tmp_path):
    with pytest.raises(RareAlertError, match="run make repro"):
        load_model("toy", "champion", f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert not (tmp_path / "mlflow.db").exists()


def test_without_a_champion_the_failed_gates_are_named(mlflow_store, tmp_path):
    import mlflow

    client = mlflow.MlflowClient()
    client.create_registered_model("toy")
    with pytest.raises(RareAlertError, match="run make repro"):
        load_model("toy", "champion", mlflow_store)
    client.create_model_version(
        "toy", (tmp_path / "m").as_uri(), tags={"gates.failed": "RA003,RA008"}
    )
    with pytest.raises(RareAlertError, match="gates RA003, RA008 failed for version 1"):
        load_model("toy", "champion", mlflow_store)
    with pytest.raises(RareAlertError, match="the alias 'previous'"):
        load_model("toy", "previous", mlflow_store)


@pytest.mark.parametrize("policy", [None, "ACTIVE"])
def test_threads_wait_asleep_by_the_time_the_model_is_loaded(tmp_path, monkeypatch, policy):
    import mlflow.pyfunc

    monkeypatch.setenv("OMP_WAIT_POLICY", policy or "")
    if policy is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    seen = []

    def load(uri):
        seen.append(os.environ["OMP_WAIT_POLICY"])
        raise BadInputError("seen")

    monkeypatch.setattr(mlflow.pyfunc, "load_model", load)
    (tmp_path / "MLmodel").touch()
    with pytest.raises(BadInputError, match="seen"):
        load_folder(tmp_path)
    assert seen == [policy or "PASSIVE"]


def test_a_version_of_another_release_is_named(tmp_path, monkeypatch):
    import mlflow.pyfunc

    unwrapped = SimpleNamespace(unwrap_python_model=object, metadata=SimpleNamespace(metadata={}))
    monkeypatch.setattr(mlflow.pyfunc, "load_model", lambda uri: unwrapped)
    (tmp_path / "MLmodel").touch()
    with pytest.raises(RareAlertError, match="dvc repro register"):
        load_folder(tmp_path)
