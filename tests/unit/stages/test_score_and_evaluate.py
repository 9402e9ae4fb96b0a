"""The stages score and evaluate on a small workspace: outputs, refusals, repetition."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rarealert.calibration.prevalence import shift_prevalence
from rarealert.errors import BadInputError
from rarealert.evaluation.page import checklist
from rarealert.files import write_json
from rarealert.params import load_params
from rarealert.paths import Paths
from rarealert.splits.parts import lock_digest
from rarealert.stages import evaluate as evaluate_stage
from rarealert.stages import score as score_stage
from rarealert.teachers.teacher_answer import AnswerRow, TeacherAnswer, write_answers
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


@pytest.fixture(scope="module")
def fixed_risks():
    """Ensemble, student and baseline with fixed risks, in the place of trained models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            score_stage,
            "ensemble_risks",
            lambda model, answers, cases: {
                row.case_id: _risk(row.case_id) for row in answers if row.answer
            },
        )
        patch.setattr(
            score_stage,
            "student_risks",
            lambda adapter, readings, size: {
                reading.case.case_id: _risk(reading.case.case_id) for reading in readings
            },
        )
        patch.setattr(
            score_stage,
            "baseline_risks",
            lambda params, paths, cases: {
                item.case.case_id: _risk(item.case.case_id) / 2
                for part in ("valid", "test")
                for item in cases[part]
            },
        )
        yield


@pytest.fixture(scope="module")
def params():
    whole = load_params(REPOSITORY / "params.yaml")
    return whole.model_copy(
        update={"evaluate": whole.evaluate.model_copy(update={"resamples": 60})}
    )


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """A workspace as the stages before score leave it."""
    paths = Paths(tmp_path_factory.mktemp("split"))
    parts = {part: [_case(part, n) for n in range(size)] for part, size in SIZES.items()}
    for part, cases in parts.items():
        write_cases(paths.build("split") / f"{part}.parquet", cases)
    digest = lock_digest(item.case.case_id for item in parts["test"])
    write_json(paths.report("split") / "lock.json", {"test_lock": digest})
    sources = {"simulated": {"left_out": {"invalid": {"age_years: not a number": 4}}}}
    ingested = {"cases": 200, "left_out": 4, "sources": sources}
    write_json(paths.report("ingest") / "summary.json", ingested)
    write_risks(paths, [item.case.case_id for item in parts["train"]])
    names = [item.case.case_id for item in [*parts["valid"], *parts["test"]]]
    write_answers(paths.build("rationales") / "answers.parquet", map(_answer, names))
    return paths


def _answer(name):
    if name.endswith("5"):
        return AnswerRow(case_id=name, teacher="oracle", status="failed", answer=None)
    answer = TeacherAnswer(
        insights=(), differential=(), risk=round(100 * _risk(name)), explanation="x"
    )
    return AnswerRow(case_id=name, teacher="oracle", status="ok", answer=answer)


@pytest.fixture(scope="module")
def scored(split, params, fixed_risks, tmp_path_factory):
    paths = Paths(shutil.copytree(split.root, tmp_path_factory.mktemp("scored") / "copy"))
    return paths, list(score_stage.score(params, paths))


@pytest.fixture(scope="module")
def evaluated(scored, params, tmp_path_factory):
    paths = Paths(shutil.copytree(scored[0].root, tmp_path_factory.mktemp("evaluated") / "copy"))
    return paths, list(evaluate_stage.evaluate(params, paths))


@pytest.fixture
def unscored_copy(split, fixed_risks, tmp_path):
    return Paths(shutil.copytree(split.root, tmp_path / "copy"))


@pytest.fixture
def scored_copy(scored, tmp_path):
    return Paths(shutil.copytree(scored[0].root, tmp_path / "copy"))


def _predictions(paths):
    return paths.build("score") / "predictions.parquet"


def _report(paths):
    return json.loads((paths.report("evaluate") / "metrics.json").read_text())


def _evaluate(params, paths):
    list(evaluate_stage.evaluate(params, paths))
    return _report(paths)


def test_score_writes_every_model_and_no_row_for_a_missing_answer(scored):
    paths, items = scored
    frame = pd.read_parquet(_predictions(paths))
    assert list(frame.columns) == ["case_id", "part", "model", "risk"]
    counts = frame.groupby("model").size()
    assert counts["student"] == counts["control:tfidf"] == counts["baseline:minilm"] == 140
    assert counts["teacher:oracle"] == counts["ensemble"] == 126
    assert set(frame["part"]) == {"valid", "test"}
    assert sum(isinstance(item, Summary) for item in items) == 1


def test_score_refuses_a_test_part_that_is_not_the_locked_one(unscored_copy, params):
    test = unscored_copy.build("split") / "test.parquet"
    write_cases(test, [_case("test", n) for n in range(79)])
    with pytest.raises(BadInputError, match="locks"):
        list(score_stage.score(params, unscored_copy))
    assert not _predictions(unscored_copy).exists()


@pytest.mark.parametrize(
    ("risk_of", "fault"),
    [
        (lambda case_id: float("nan"), "nan"),
        (lambda case_id: 1.5, "0-1"),
        (
            lambda case_id: None if case_id[:4] == "test" and case_id > "test-076" else 0.5,
            "3 of 80",
        ),
    ],
)
def test_score_refuses_a_student_with_invalid_or_missing_risks(
    unscored_copy, params, monkeypatch, risk_of, fault
):
    def risks(adapter, readings, size):
        found = {reading.case.case_id: risk_of(reading.case.case_id) for reading in readings}
        return {case_id: risk for case_id, risk in found.items() if risk is not None}

    monkeypatch.setattr(score_stage, "student_risks", risks)
    with pytest.raises(BadInputError, match=f"student.*{fault}"):
        list(score_stage.score(params, unscored_copy))


def test_evaluate_keeps_the_contract(evaluated, params):
    paths, items = evaluated
    folder, report = paths.report("evaluate"), _report(paths)
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
    assert "calibration_slope" in report["absent"]["models"]["control:source"]
    assert report["robustness"]["without_age_and_sex"]["n"] == params.score.robustness_cases
    assert len(report["prevalence"]["student"]) == 9
    assert report["subgroup_differences"]["by_sex"]["female"]["p_holm"] <= 1
    metrics = {item.name: item.value for item in items if isinstance(item, Metric)}
    assert metrics["student.auroc.ci_low"] == auroc["ci_low"]
    assert np.isfinite(list(metrics.values())).all()
    drawn = {item.name for item in items if isinstance(item, Figure)}
    assert drawn == {file.name for file in folder.glob("*.png")}
    tables = {item.name: item.frame for item in items if isinstance(item, Table)}
    assert tables["models.json"]["auroc.ci_low"].notna().any()
    assert set(tables["subgroups.json"]["block"]) == {"source", "category", "age_band", "sex"}


def test_the_cohort_adds_up(evaluated):
    cohort = _report(evaluated[0])["cohort"]
    flow = cohort["flow"]
    assert flow["read"] == flow["cases"] + sum(flow["left_out"].values()) == 204
    assert flow["left_out"] == {"not a number": 4}
    assert flow["parts"]["test"]["simulated"] == {"rare": 40, "nonrare": 40}
    rare = cohort["table_one"]["test"]["rare"]
    assert rare["n"] == sum(rare["sex"].values()) == 40
    assert rare["age_years"]["unknown"] == len([n for n in range(1, 80, 2) if n % 9 == 0])
    assert rare["missing"]["vitals"] == 40


def test_the_page_is_honest_whole_and_free_of_case_text(evaluated):
    paths, _ = evaluated
    page = (paths.report("evaluate") / "index.html").read_text()
    assert "on 80 simulated cases" in page
    assert "not a diagnosis" in page
    assert "http" not in page.replace("data:image", "")
    anchors = set(re.findall(r'id="([a-z-]+)"', page))
    assert set(re.findall(r'href="#([a-z-]+)"', page)) <= anchors
    assert "shortcuts" in anchors
    assert "200</b> cases" in page
    for file in paths.report("evaluate").iterdir():
        assert SECRET.encode() not in file.read_bytes()
        assert str(paths.root).encode() not in file.read_bytes()


def test_every_item_of_the_checklist_names_where_it_is_answered():
    items = checklist()
    assert len(items) == len({row["item"] for row in items}) == 52
    for row in items:
        assert row["status"] in {"yes", "part", "no"}
        assert row["status"] != "yes" or row["where"] or row["item"] == "24"
        for place in row["where"]:
            made = place.startswith(("#", "reports/", "build/"))
            assert made or (REPOSITORY / place).is_file(), place


def test_thresholds_come_from_the_validation_part(scored_copy, evaluated, params):
    frame = pd.read_parquet(_predictions(scored_copy))
    of_student = (frame["model"] == "student") & (frame["part"] == "test")
    frame.loc[of_student, "risk"] = frame.loc[of_student, "risk"] / 2
    frame.to_parquet(_predictions(scored_copy), index=False)
    first, second = _report(evaluated[0]), _evaluate(params, scored_copy)
    assert first["thresholds"] == second["thresholds"]
    before, after = (
        report["models"]["student"]["sensitivity_at_95_specificity"]["value"]
        for report in (first, second)
    )
    assert after < before


def test_the_ensemble_is_shifted_from_the_share_it_was_calibrated_at(
    scored_copy, evaluated, params
):
    answered = [f"train-{n:03d}" for n in range(60) if n % 2 or n < 20]  # 30 rare of 40
    write_risks(scored_copy, answered)
    report = _evaluate(params, scored_copy)
    for model, share in (("ensemble", 0.75), ("student", 0.5)):
        alert = report["thresholds"][model]["at_95_specificity"]
        row = report["prevalence"][model][0]
        expected = float(shift_prevalence(alert, share, row["prevalence"]))
        assert row["threshold_as_risk"] == pytest.approx(expected, abs=1e-6)
    other = scored_copy.report("evaluate")
    changed = {
        file.name
        for file in evaluated[0].report("evaluate").iterdir()
        if file.read_bytes() != (other / file.name).read_bytes()
    }
    assert changed == {"metrics.json"}  # the same risks give the same page and figures


def test_evaluate_refuses_aligned_risks_of_other_cases(scored_copy, params):
    risks = scored_copy.build("align") / "risk.parquet"
    write_risks(scored_copy, ["someone else"])
    with pytest.raises(BadInputError, match="no case of the training part"):
        _evaluate(params, scored_copy)
    risks.write_bytes(b"not parquet")
    with pytest.raises(BadInputError, match="run dvc repro align"):
        _evaluate(params, scored_copy)
    risks.unlink()
    with pytest.raises(BadInputError, match=r"risk\.parquet is missing"):
        _evaluate(params, scored_copy)


def test_evaluate_refuses_tampered_predictions(scored_copy, params):
    file = _predictions(scored_copy)
    frame = pd.read_parquet(file)
    frame[frame["model"] != "student"].to_parquet(file, index=False)
    with pytest.raises(BadInputError, match="student has no predictions"):
        _evaluate(params, scored_copy)
    pd.concat([frame, frame.head(1)]).to_parquet(file, index=False)
    with pytest.raises(BadInputError, match="twice"):
        _evaluate(params, scored_copy)
    file.write_bytes(b"not parquet")
    with pytest.raises(BadInputError, match="can't be read"):
        _evaluate(params, scored_copy)
