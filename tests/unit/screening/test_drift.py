"""Drift is found where there is some, not where there is none, and the exit code says which."""

import json
import random

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from rarealert.cli import app
from rarealert.errors import BadInputError
from rarealert.screening.drift import drift

SECRET = "marblewort"  # a word of a visit, which no output may contain
SEIZURE, FATIGUE, COUGH = "HP:0001250", "HP:0012378", "HP:0012735"
FINDINGS = [SEIZURE, FATIGUE, COUGH, "HP:0001945", "HP:0002027"]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def table(path, rows):
    frame = pd.DataFrame(rows)
    if path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    elif path.suffix == ".csv":
        frame.to_csv(path, index=False, encoding="utf-8-sig")
    else:
        frame.to_parquet(path)
    return path


def visits(seed, count, sex="female", words=12):
    chance = random.Random(seed)
    for index in range(count):
        yield {
            "case_id": f"v{index}",
            "age_years": chance.uniform(0, 90),
            "sex": sex if chance.random() < 0.5 else "male",
            "chief_complaint": "cough and fever " * chance.randrange(1, words),
        }


def answers(seed, count, shift=0.0, abstain=0.2):
    chance = random.Random(seed)
    for index in range(count):
        risk = chance.betavariate(2, 5) * (1 - shift) + shift
        yield {
            "case_id": f"=v{index}",
            "risk": risk,
            "band": "alert" if risk > 0.5 else "low",
            "ood_score": chance.uniform(0.2, 1.05),
            "abstain": chance.random() < abstain,
            "out_of_distribution": False,
            "not_english": False,
            "truncated": chance.random() < 0.1,
            "evidence": json.dumps(
                [
                    {"hpo_id": hpo_id, "status": "present", "words": SECRET}
                    for hpo_id in chance.sample(FINDINGS, chance.randrange(5))
                ]
            ),
        }


def test_two_draws_of_one_population_do_not_drift(tmp_path):
    for seed in range(3):
        for kind in (visits, answers):
            then = write(tmp_path / "then.jsonl", kind(seed, 300))
            now = write(tmp_path / "now.jsonl", kind(100 + seed, 300))
            report = drift(then, now, tmp_path / "page.html")
            assert report.drifted == ()
            assert "No drift" in report.sentence()


def test_other_patients_and_refusals_are_drift_of_the_input(tmp_path):
    then = write(tmp_path / "then.jsonl", visits(1, 400))
    rows = [*visits(2, 300, words=80), *({"age_years": 400} for _ in range(100))]
    report = drift(then, write(tmp_path / "now.jsonl", rows), tmp_path / "page.html")
    assert set(report.drifted) == {"words", "refused"}
    parts = {item.name: item.part for item in report.quantities}
    assert (parts["words"], parts["refused"]) == ("input", "refusal")
    page = json.loads((tmp_path / "page.json").read_text())
    assert page["drifted"] == list(report.drifted)
    assert "cough" not in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_risks_and_abstentions_that_rise_are_drift_in_any_format(tmp_path, ending):
    sides = {"then": answers(3, 500), "now": answers(4, 500, 0.3, 0.6)}
    files = [table(tmp_path / f"{name}.{ending}", rows) for name, rows in sides.items()]
    report = drift(*files, tmp_path / "page.html")
    assert set(report.drifted) == {"risk", "band", "abstain"}
    risk = next(item for item in report.quantities if item.name == "risk")
    assert len(risk.shares) == 10
    assert all(0.05 < share[0] < 0.15 for share in risk.shares.values())


def test_rows_refused_by_screening_are_counted(tmp_path):
    then = write(tmp_path / "then.jsonl", answers(1, 300))
    now = write(tmp_path / "now.jsonl", answers(2, 300))
    (tmp_path / "now.jsonl.refused.jsonl").write_text("{}\n" * 150)
    assert drift(then, now, tmp_path / "page.html").drifted == ("refused",)
    assert SECRET in now.read_text()
    assert all(SECRET not in file.read_text() for file in tmp_path.glob("page*"))


def test_other_findings_are_drift_of_the_organ_systems(tmp_path):
    words = {"then": ("cough", COUGH), "now": ("seizures", SEIZURE)}
    texts, found = [], []
    for name, (word, hpo_id) in words.items():
        rows = ({"chief_complaint": f"He has {word if n % 2 else 'fatigue'}."} for n in range(200))
        texts.append(write(tmp_path / f"{name}.jsonl", rows))
        evidence = [{"hpo_id": hpo_id, "status": "present"}]
        evidence += [{"hpo_id": FATIGUE, "status": "excluded"}]
        rows = (row | {"evidence": json.dumps(evidence)} for row in answers(1, 200))
        found.append(write(tmp_path / f"{name}.answers.jsonl", rows))
    report = drift(*texts, tmp_path / "page.html")
    systems = next(item for item in report.quantities if item.name == "organ systems")
    assert systems.drifted
    assert systems.shares["Abnormality of the nervous system"] == (0.0, 0.5)
    assert drift(*found, tmp_path / "page.html").drifted == ("organ systems",)


def test_files_of_two_kinds_or_none_are_refused(tmp_path):
    then = write(tmp_path / "then.jsonl", answers(1, 5))
    now = write(tmp_path / "now.jsonl", visits(1, 5))
    with pytest.raises(BadInputError, match="give two alike"):
        drift(then, now, tmp_path / "page.html")
    with pytest.raises(BadInputError, match="is a folder"):
        drift(then, then, tmp_path)
    with pytest.raises(BadInputError, match="is missing"):
        drift(then, tmp_path / "none.jsonl", tmp_path / "page.html")
    with pytest.raises(BadInputError, match="holds no visit"):
        drift(now, write(tmp_path / "empty.jsonl", [{}]), tmp_path / "page.html")


ANSWER = next(answers(1, 1)) | {"evidence": "[]"}


def without(row, name):
    return {key: value for key, value in row.items() if key != name}


@pytest.mark.parametrize(
    ("row", "column"),
    [
        (without(ANSWER, "ood_score"), "ood_score"),
        (without(ANSWER, "abstain"), "abstain"),
        (ANSWER | {"risk": SECRET}, "risk"),
        (ANSWER | {"risk": 7}, "risk"),
        (ANSWER | {"risk": 10**400}, "risk"),
        (ANSWER | {"ood_score": float("nan")}, "ood_score"),
        (ANSWER | {"band": SECRET}, "band"),
        (ANSWER | {"truncated": SECRET}, "truncated"),
        (ANSWER | {"evidence": SECRET}, "evidence"),
        (ANSWER | {"evidence": "3"}, "evidence"),
        (
            ANSWER | {"evidence": json.dumps([{"hpo_id": [SECRET], "status": "present"}])},
            "evidence",
        ),
    ],
)
def test_an_answer_that_is_none_is_named_by_line_and_column(tmp_path, row, column):
    then = write(tmp_path / "then.jsonl", answers(1, 5))
    now = write(tmp_path / "now.jsonl", [*answers(2, 5), row])
    with pytest.raises(BadInputError, match=f"now.jsonl, line 6: {column}: ") as refused:
        drift(then, now, tmp_path / "page.html")
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
    assert not list(tmp_path.glob("page*"))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ending=st.sampled_from(["jsonl", "csv", "parquet"]),
    at=st.floats(0, 1),
    junk=st.binary(min_size=1, max_size=12),
)
def test_a_damaged_file_is_compared_or_refused_and_never_quoted(tmp_path, ending, at, junk):
    then = write(tmp_path / "then.jsonl", answers(1, 5))
    now = table(tmp_path / f"now.{ending}", answers(2, 5))
    content = now.read_bytes()
    start = int(at * (len(content) - len(junk)))
    now.write_bytes(content[:start] + junk + content[start + len(junk) :])
    refusal = None
    try:
        drift(then, now, tmp_path / "page.html")
    except BadInputError as error:
        refusal = error
    assert refusal is None or (refusal.exit_code == 2 and SECRET not in str(refusal))


def test_a_long_history_is_compared_and_a_few_rows_amiss_are_counted(tmp_path):
    long = f"1,{'cough and fever ' * 900}\n".encode()
    for name in ("then", "now"):
        content = b"case_id,chief_complaint\n" + 5 * long + b"2,Caf\xe9\n"
        (tmp_path / f"{name}.csv").write_bytes(content + f"3,{'x' * 140_000}\n".encode())
    report = drift(tmp_path / "then.csv", tmp_path / "now.csv", tmp_path / "page.html")
    assert report.drifted == ()
    refused = next(item for item in report.quantities if item.name == "refused")
    assert refused.new == 7
    assert refused.shares["yes"][0] == round(2 / 7, 6)


def test_a_scheduler_reads_the_exit_code(tmp_path):
    then = write(tmp_path / "then.jsonl", answers(1, 400))
    now = write(tmp_path / "now.jsonl", answers(2, 400, shift=0.3))
    old = write(tmp_path / "old.jsonl", [without(ANSWER, "ood_score")])

    def run(*files):
        return CliRunner().invoke(
            app, ["drift", *map(str, files), "--out", str(tmp_path / "p.html")]
        )

    assert run(then, then).exit_code == 0
    assert run(then, now).exit_code == 1
    for unreadable in (old, tmp_path / "none.jsonl"):
        assert run(then, unreadable).exception.exit_code == 2
