"""Screening a file: every row answered or refused, and a killed run continued."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy import Look, Scorer, model

from rarealert.errors import BadInputError
from rarealert.screening.batch import Options, screen_file


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
        "abstain": True,
        "findings": 0,
        "out_of_distribution": False,
        "ood_score": 0.5,
        "not_english": False,
        "truncated": False,
        "evidence": "[]",
        "rationale": "because of v3",
        "notes": "No findings recognised; not enough to tell.",
        "model_version": "2",
        "model_digest": "d" * 64,
    }
    assert (report.screened, report.refused, report.resumed) == (25, 0, 0)
    assert sum(report.bands.values()) == 25
    assert report.flagged == sum(row["abstain"] for row in rows)
    assert [path.name for path in out.parent.iterdir()] == ["out.jsonl"]
    assert "25 visits" in report.sentence()


def test_cut_flagged_and_unread_visits_are_counted(tmp_path):
    def look(case):
        return Look(0.2, "alert", truncated=case.case_id != "de", abstain=case.case_id == "en")

    texts = {"de": "Seit Wochen Fieber.", "en": "Fever for weeks.", "more": "Fever."}
    rows = [{"case_id": name, "chief_complaint": text} for name, text in texts.items()]
    source, out = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    report = screen_file(source, out, model(Scorer(look)), chunk_rows=2)
    assert (report.cut, report.flagged) == (2, 2)  # "more" has no other note than the cut
    assert report.bands == {"alert": 2, "not read": 1}
    assert "2 to be read with their notes; 2 longer than the model reads" in report.sentence()


def test_refused_rows_have_their_reason_and_never_their_text(tmp_path):
    rows = [
        {"case_id": "ok", "chief_complaint": "fine", "vitals": "", "sex": None},
        {"chief_complaint": "named by its row"},
        {"case_id": "old", "age_years": 400, "chief_complaint": "secret"},
        {"case_id": "empty", "chief_complaint": "  "},
        {"case_id": "extra", "chief_complaint": "secret", "secret note": "secret"},
        {"case_id": "wordless", "chief_complaint": "😀 🤕", "vitals": "38.6"},
        {"case_id": 7, "chief_complaint": "secret"},
        {"case_id": "secret " * 40, "chief_complaint": "fever"},
        '{"case_id": "\\ud83d", "chief_complaint": "fever"}',
        '{"case_id": "cut',
        "[1, 2]",
        "",
    ]
    out = tmp_path / "out.jsonl"
    report = screen_file(write(tmp_path / "in.jsonl", rows), out, model(), chunk_rows=3)
    assert [row["case_id"] for row in read(out)] == ["ok", "2"]
    refused = read(report.refused_file)
    names = ["old", "empty", "extra", "wordless", *[None] * 5]
    assert [(row["row"], row["case_id"]) for row in refused] == list(enumerate(names, 3))
    assert refused[3]["reason"] == "chief_complaint: holds no word to read"
    assert refused[0]["reason"].startswith("age_years: ")
    assert refused[1]["reason"].startswith("a case needs text in at least one of ")
    assert refused[2]["reason"] == "an unknown field"
    assert "secret" not in report.refused_file.read_text()
    assert report.refused == 9


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_a_file_name_that_is_no_utf8_is_escaped(tmp_path, ending):
    source, out = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.")), tmp_path / "out.jsonl"
    source = source.with_name(source.name + ending)
    text = (
        '{"chief_complaint": "fever"}\n{'
        if ending == "jsonl"
        else "case_id,chief_complaint\na,fever\nx\n"
    )
    source.write_text(text)
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

    class Beside(Scorer):
        def answer(self, readings, *asked):
            with pytest.raises(BadInputError, match="another run"):
                screen_file(source, out, model(), chunk_rows=5)
            return super().answer(readings, *asked)

    screen_file(source, out, model(Beside()), chunk_rows=5)
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


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1), junk=st.binary(min_size=1, max_size=12))
def test_damage_costs_the_lines_it_hits_and_is_never_quoted(tmp_path, at, junk):
    lines = [f'{{"case_id": "v{i}", "chief_complaint": "secret fever"}}' for i in range(5)]
    content = "\n".join(lines).encode()
    start = int(at * (len(content) - len(junk)))
    (tmp_path / "in.jsonl").write_bytes(content[:start] + junk + content[start + len(junk) :])
    report = screen_file(tmp_path / "in.jsonl", tmp_path / "out.jsonl", model())
    assert report.screened >= 3  # twelve bytes hit two lines at most
    if report.refused_file:
        assert "secret" not in report.refused_file.read_text()


@pytest.mark.parametrize(
    ("source", "out", "options", "message"),
    [
        ("none.jsonl", "out.jsonl", {}, r"none\.jsonl is missing"),
        ("visits.docx", "out.jsonl", {}, "ends in none of"),
        ("visits", "out.xlsx", {}, r"ends in none of \.jsonl, \.csv"),
        ("in.jsonl", "in.jsonl", {}, "name another file"),
        ("visits", "visits/answers.jsonl", {}, "is in the folder of visits"),
        ("visits", "visits/deep/answers.csv", {}, "is in the folder of visits"),
        ("visits", "taken.csv", {}, "is a folder"),
        ("visits", "visits.docx/deep/answers.csv", {}, r"visits\.docx is not a folder"),
        ("visits", "out.csv", {"prevalence": 2.0}, "prevalence"),
    ],
)
def test_files_and_options_are_refused_before_a_visit_is_scored(
    tmp_path, source, out, options, message
):
    (tmp_path / "visits").mkdir()
    write(tmp_path / "visits" / "a.ndjson", [{"resourceType": "Patient", "id": "a"}])
    write(tmp_path / "in.jsonl", visits(1))
    (tmp_path / "taken.csv").mkdir()
    (tmp_path / "visits.docx").touch()
    unasked = Scorer()
    with pytest.raises(BadInputError, match=message):
        screen_file(tmp_path / source, tmp_path / out, model(unasked), Options(**options))
    assert not unasked.seen
    assert len(list(tmp_path.rglob("*"))) == 5
