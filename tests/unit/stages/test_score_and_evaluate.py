"""The two stages on a small workspace: what they write, refuse and repeat."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rarealert.calibration.prevalence import shift_prevalence
from rarealert.errors import BadInputError
from rarealert.evaluation.page import checklist
from rarealert.params import load_params
from rarealert.paths import Paths
from rarealert.splits.parts import lock_digest
from rarealert.stages import evaluate as evaluate_stage
from rarealert.stages import score as score_stage
from rarealert.teachers.answer import AnswerRow, TeacherAnswer, write_answers
from rarealert.tracking.items import Figure, Metric, Summary, Table
from rarealert.visits.case import Case, Label, LabelledCase
from rarealert.visits.store import write_cases

REPOSITORY = Path(__file__).parents[3]
SIZES = {"train": 60, "valid": 60, "test": 80}
SECRET = "confidential complaint"


def _case(part, number, source="simulated"):
    rare = number % 2 == 1
    code = f"ORPHA:{len(part)}{number % 14}"
    label = Label(
        label="rare" if rare else "nonrare",
        disease_id=code if rare else f"NAME:{part} {number % 14}",
        disease_name="some disease",
        orpha_code=code if rare else None,
        orphanet_head="Rare bone disease" if rare else None,
        reason="test",
    )
    case = Case(
        case_id=f"{part}-{number:03d}",
        source=source,
        age_years=None if number % 9 == 0 else number % 90,
        sex=("female", "male", None)[number % 3],
        chief_complaint=" ".join([SECRET] * (1 + number % 5)),
    )
    return LabelledCase(case=case, label=label)


def _risk(case_id):
    """A fixed risk that leans towards the label of odd cases."""
    number = int(case_id.rpartition("-")[2])
    return round(0.2 + 0.35 * (number % 2) + 0.4 * ((number * 7919) % 97) / 97, 4)


def write_risks(paths, train):
    """The aligned risks of ``train``, and of one validation case, as align leaves them."""
    rows = {
        "case_id": [*train, "valid-000"],
        "part": ["train"] * len(train) + ["valid"],
        "fold": [*[0] * len(train), None],
        "risk": 0.5,
    }
    file = paths.build("align") / "risk.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(file, index=False)


@pytest.fixture
def paths(tmp_path, monkeypatch):
    found = Paths(tmp_path)
    parts = {part: [_case(part, n) for n in range(size)] for part, size in SIZES.items()}
    for part, cases in parts.items():
        write_cases(found.build("split") / f"{part}.parquet", cases)
    lock = found.report("split") / "lock.json"
    lock.parent.mkdir(parents=True)
    lock.write_text(
        json.dumps({"test_lock": lock_digest(item.case.case_id for item in parts["test"])})
    )
    summary = found.report("ingest") / "summary.json"
    summary.parent.mkdir(parents=True)
    left_out = {"invalid": {"age_years: not a number": 4}}
    sources = {"simulated": {"left_out": left_out}}
    summary.write_text(json.dumps({"cases": 200, "left_out": 4, "sources": sources}))
    write_risks(found, [item.case.case_id for item in parts["train"]])
    answers = []
    for item in [*parts["valid"], *parts["test"]]:
        name = item.case.case_id
        said = TeacherAnswer(
            insights=(), differential=(), risk=round(100 * _risk(name)), explanation="x"
        )
        failed = name.endswith("5")
        answers.append(
            AnswerRow(
                case_id=name,
                teacher="oracle",
                status="failed" if failed else "ok",
                answer=None if failed else said,
            )
        )
    write_answers(found.build("rationales") / "answers.parquet", answers)
    monkeypatch.setattr(
        score_stage,
        "ensemble_risks",
        lambda model, answers, cases: {a.case_id: _risk(a.case_id) for a in answers if a.answer},
    )
    monkeypatch.setattr(
        score_stage,
        "student_risks",
        lambda adapter, readings, size: {
            name: _risk(name) for name in (item.case.case_id for item in readings)
        },
    )
    monkeypatch.setattr(
        score_stage,
        "baseline_risks",
        lambda params, paths, cases: {
            item.case.case_id: _risk(item.case.case_id) / 2
            for part in ("valid", "test")
            for item in cases[part]
        },
    )
    return found


@pytest.fixture
def params():
    whole = load_params(REPOSITORY / "params.yaml")
    return whole.model_copy(
        update={"evaluate": whole.evaluate.model_copy(update={"resamples": 60})}
    )


def _predictions(paths):
    return paths.build("score") / "predictions.parquet"


def test_score_writes_every_model_and_no_row_for_a_missing_answer(paths, params):
    items = list(score_stage.score(params, paths))
    frame = pd.read_parquet(_predictions(paths))
    assert list(frame.columns) == ["case_id", "part", "model", "risk"]
    counts = frame.groupby("model").size()
    assert counts["student"] == counts["control:tfidf"] == counts["baseline:minilm"] == 140
    assert counts["teacher:oracle"] == counts["ensemble"] == 126
    assert set(frame["part"]) == {"valid", "test"}
    assert sum(isinstance(item, Summary) for item in items) == 1


def test_score_refuses_a_test_part_that_is_not_the_locked_one(paths, params):
    write_cases(paths.build("split") / "test.parquet", [_case("test", n) for n in range(79)])
    with pytest.raises(BadInputError, match="locks"):
        list(score_stage.score(params, paths))
    assert not _predictions(paths).exists()


@pytest.mark.parametrize(
    ("risks", "says"),
    [
        (lambda case: float("nan"), "student.* is nan"),
        (lambda case: 1.5, "in 0-1"),
    ],
)
def test_score_refuses_a_student_without_sense(paths, params, monkeypatch, risks, says):
    monkeypatch.setattr(
        score_stage,
        "student_risks",
        lambda a, visits, b: {v.case.case_id: risks(v.case) for v in visits},
    )
    with pytest.raises(BadInputError, match=says):
        list(score_stage.score(params, paths))


def test_score_refuses_a_student_that_drops_hard_cases(paths, params, monkeypatch):
    monkeypatch.setattr(
        score_stage,
        "student_risks",
        lambda a, visits, b: {v.case.case_id: 0.5 for v in visits[:-3]},
    )
    with pytest.raises(BadInputError, match="student has not scored 3 of 80 cases"):
        list(score_stage.score(params, paths))


def test_evaluate_keeps_the_contract(paths, params):
    list(score_stage.score(params, paths))
    items = list(evaluate_stage.evaluate(params, paths))
    folder = paths.report("evaluate")
    report = json.loads((folder / "metrics.json").read_text())
    assert report["dataset"]["simulated"] is True
    assert report["dataset"]["n"] == 80
    auroc = report["models"]["student"]["auroc"]
    assert set(auroc) == {"value", "ci_low", "ci_high", "n"}
    assert auroc["ci_low"] <= auroc["value"] <= auroc["ci_high"]
    assert report["controls"].keys() == {n for n in report["models"] if n.startswith("control:")}
    assert report["by_source"]["simulated"]["student"]["auroc"]["value"] == auroc["value"]
    assert report["models"]["teacher:oracle"]["auroc"]["n"] == 72
    assert {"student - ensemble", "student - baseline:minilm"} <= report["comparisons"].keys()
    remaining = report["within_strata"]["models"]["student"]["control:length"]
    assert remaining["auroc"]["value"] == auroc["value"]
    assert report["within_strata"]["strongest"] != "control:tfidf"
    assert 'id="shortcuts"' in (folder / "index.html").read_text()
    assert "calibration_slope" in report["absent"]["models"]["control:source"]
    metrics = {item.name: item.value for item in items if isinstance(item, Metric)}
    assert metrics["student.auroc.ci_low"] == auroc["ci_low"]
    assert np.isfinite(list(metrics.values())).all()
    drawn = {item.name for item in items if isinstance(item, Figure)}
    assert drawn == {file.name for file in folder.glob("*.png")}
    tables = {item.name: item.frame for item in items if isinstance(item, Table)}
    assert tables["models.json"]["auroc.ci_low"].notna().any()
    assert set(tables["subgroups.json"]["block"]) == {"source", "category", "age_band", "sex"}
    assert report["cohort"]["flow"]["read"] == 204
    assert report["robustness"]["without_age_and_sex"]["n"] == params.score.robustness_cases
    assert len(report["prevalence"]["student"]) == 9
    assert report["subgroup_differences"]["by_sex"]["female"]["p_holm"] <= 1


def test_the_page_is_honest_whole_and_free_of_case_text(paths, params):
    list(score_stage.score(params, paths))
    list(evaluate_stage.evaluate(params, paths))
    page = (paths.report("evaluate") / "index.html").read_text()
    assert "on 80 simulated cases" in page
    assert "not a diagnosis" in page
    assert "http" not in page.replace("data:image", "")
    anchors = set(re.findall(r'id="([a-z-]+)"', page))
    assert set(re.findall(r'href="#([a-z-]+)"', page)) <= anchors
    assert "200</b> cases" in page
    assert "4: not a number" in page
    for file in paths.report("evaluate").iterdir():
        assert SECRET.encode() not in file.read_bytes()
        assert str(paths.root).encode() not in file.read_bytes()


def test_every_item_of_the_checklist_says_where_it_is_answered():
    items = checklist()
    assert len(items) == len({row["item"] for row in items}) == 52
    for row in items:
        assert row["status"] in {"yes", "part", "no"}
        assert row["status"] != "yes" or row["where"] or row["item"] == "24"
        for place in row["where"]:
            made = place.startswith(("#", "reports/", "build/"))
            assert made or (REPOSITORY / place).is_file(), place


def test_thresholds_come_from_the_validation_part(paths, params):
    list(score_stage.score(params, paths))
    frame = pd.read_parquet(_predictions(paths))
    of_student = (frame["model"] == "student") & (frame["part"] == "test")
    frame.loc[of_student, "risk"] = frame.loc[of_student, "risk"] / 2
    list(evaluate_stage.evaluate(params, paths))
    first = json.loads((paths.report("evaluate") / "metrics.json").read_text())
    frame.to_parquet(_predictions(paths), index=False)
    list(evaluate_stage.evaluate(params, paths))
    second = json.loads((paths.report("evaluate") / "metrics.json").read_text())
    assert first["thresholds"] == second["thresholds"]
    sensitivity = "sensitivity_at_95_specificity"
    assert (
        second["models"]["student"][sensitivity]["value"]
        < first["models"]["student"][sensitivity]["value"]
    )


def test_evaluate_twice_writes_the_same_bytes(paths, params):
    list(score_stage.score(params, paths))
    written = []
    for _ in range(2):
        list(evaluate_stage.evaluate(params, paths))
        written.append({f.name: f.read_bytes() for f in paths.report("evaluate").iterdir()})
    assert written[0] == written[1]


def test_the_ensemble_is_shifted_from_the_share_it_was_calibrated_at(paths, params):
    list(score_stage.score(params, paths))
    answered = [f"train-{n:03d}" for n in range(60) if n % 2 or n < 20]  # 30 rare of 40
    write_risks(paths, answered)
    list(evaluate_stage.evaluate(params, paths))
    report = json.loads((paths.report("evaluate") / "metrics.json").read_text())
    for model, share in (("ensemble", 0.75), ("student", 0.5)):
        alert = report["thresholds"][model]["at_95_specificity"]
        row = report["prevalence"][model][0]
        expected = float(shift_prevalence(alert, share, row["prevalence"]))
        assert row["threshold_as_risk"] == pytest.approx(expected, abs=1e-6)


def test_evaluate_refuses_aligned_risks_of_other_cases(paths, params):
    list(score_stage.score(params, paths))
    write_risks(paths, ["someone else"])
    with pytest.raises(BadInputError, match="holds no case of the training part; run dvc repro"):
        list(evaluate_stage.evaluate(params, paths))
    (paths.build("align") / "risk.parquet").write_bytes(b"not parquet")
    with pytest.raises(BadInputError, match="is not a file of aligned risks; run dvc repro align"):
        list(evaluate_stage.evaluate(params, paths))
    (paths.build("align") / "risk.parquet").unlink()
    with pytest.raises(BadInputError, match=r"risk\.parquet is missing; run dvc repro align"):
        list(evaluate_stage.evaluate(params, paths))


def test_evaluate_refuses_tampered_predictions(paths, params):
    list(score_stage.score(params, paths))
    frame = pd.read_parquet(_predictions(paths))
    frame[frame["model"] != "student"].to_parquet(_predictions(paths), index=False)
    with pytest.raises(BadInputError, match="student has no predictions"):
        list(evaluate_stage.evaluate(params, paths))
    pd.concat([frame, frame.head(1)]).to_parquet(_predictions(paths), index=False)
    with pytest.raises(BadInputError, match="twice"):
        list(evaluate_stage.evaluate(params, paths))
    _predictions(paths).write_bytes(b"not parquet")
    with pytest.raises(BadInputError, match="can't be read"):
        list(evaluate_stage.evaluate(params, paths))
