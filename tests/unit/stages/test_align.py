"""The stage never hears of the test part, and leaves what its readers expect."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from rarealert.alignment.ensemble import load_ensemble
from rarealert.cases.case import Case, Label, LabelledCase
from rarealert.cases.store import write_cases
from rarealert.errors import BadInputError
from rarealert.params import load_params
from rarealert.paths import Paths
from rarealert.stages.align import align
from rarealert.teachers.answer import Answer, TeacherAnswer, read_answers, write_answers
from rarealert.tracking.items import Child, Metric, Summary

PARAMS = load_params(Path(__file__).parents[3] / "params.yaml")
QUICK = PARAMS.model_copy(
    update={"align": PARAMS.align.model_copy(update={"folds": 3, "repeats": 1, "timeout_s": 0.001})}
)


def _case(case_id: str, rare: bool, disease: int) -> LabelledCase:
    code = f"ORPHA:{disease}" if rare else None
    label = Label(
        label="rare" if rare else "nonrare",
        disease_id=code or f"NAME:{disease}",
        disease_name="a disease",
        orpha_code=code,
        reason="test",
    )
    case = Case(case_id=case_id, source="simulated", chief_complaint="cough")
    return LabelledCase(case=case, label=label)


def _workspace(root: Path, one_class: bool = False) -> Paths:
    paths, rng, answers = Paths(root), np.random.default_rng(1), []
    for part, size in (("train", 60), ("valid", 30), ("test", 20)):
        cases = [_case(f"{part}{n:02}", n % 2 == 0 and not one_class, n // 3) for n in range(size)]
        write_cases(paths.build("split") / f"{part}.parquet", cases)
        for item in cases[1:]:  # nobody answers the first case of a part
            risk = int(np.clip(rng.normal(65 if item.label.label == "rare" else 35, 20), 0, 100))
            said = Answer(insights=(), differential=(), risk=risk, explanation="because")
            answers.append(
                TeacherAnswer(case_id=item.case.case_id, teacher="t", status="ok", answer=said)
            )
    write_answers(paths.build("rationales") / "answers.parquet", answers)
    return paths


def test_stage_leaves_targets_ensemble_and_reports(tmp_path: Path) -> None:
    paths = _workspace(tmp_path)
    items = list(align(QUICK, paths))
    rows = pq.read_table(paths.build("align") / "risk.parquet").to_pylist()
    assert {row["part"] for row in rows} == {"train", "valid"}
    assert len(rows) == 59 + 29
    assert all((row["fold"] is None) == (row["part"] == "valid") for row in rows)
    ensemble = load_ensemble(paths.build("align") / "model.skops")
    told = ensemble.predict(read_answers(paths.build("rationales") / "answers.parquet"))
    assert all(told[row["case_id"]] == row["risk"] for row in rows if row["part"] == "valid")
    assert "test05" in told
    metrics = json.loads((paths.report("align") / "metrics.json").read_text())
    assert metrics["cases"] == {"train": 59, "unanswered": 2, "valid": 29}
    assert set(ensemble.thresholds) == {"at_95_sensitivity", "at_95_specificity"}
    assert any(isinstance(item, Child) for item in items)
    assert "out_of_fold_auroc" in {item.name for item in items if isinstance(item, Metric)}
    assert isinstance(items[-1], Summary)


def test_same_seed_same_bytes_whatever_the_test_part_holds(tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        paths = _workspace(tmp_path / name)
        if name == "two":
            file = paths.build("rationales") / "answers.parquet"
            kept = [item for item in read_answers(file) if not item.case_id.startswith("test")]
            write_answers(file, kept)
        list(align(QUICK, paths))
        files = [paths.build("align") / "risk.parquet", paths.build("align") / "model.skops"]
        digests.append([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])
    assert digests[0] == digests[1]


def test_one_class_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"train\.parquet: 0 diseases with label rare"):
        list(align(QUICK, _workspace(tmp_path, one_class=True)))
