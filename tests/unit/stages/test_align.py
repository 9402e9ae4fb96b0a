"""The stage never hears of the test part, and leaves what its readers expect."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from rarealert.cli import app
from rarealert.ensemble.ensemble import load_ensemble
from rarealert.ensemble.explain_case import explain_to_terminal
from rarealert.errors import BadInputError
from rarealert.params import load_params
from rarealert.paths import Paths
from rarealert.stages.align import align
from rarealert.teachers.answer import AnswerRow, TeacherAnswer, read_answers, write_answers
from rarealert.tracking.items import Child, Item, Metric, Summary
from rarealert.visits.case import Case, Label, LabelledCase
from rarealert.visits.store import write_cases

REPOSITORY = Path(__file__).parents[3]
PARAMS = load_params(REPOSITORY / "params.yaml")
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


Says = Callable[[str, bool, np.random.Generator], int | None]
"""What a teacher says of a case of a part, rare or not; ``None`` leaves it unanswered."""


def _knows(_part: str, rare: bool, rng: np.random.Generator) -> int:
    return int(np.clip(rng.normal(65 if rare else 35, 20), 0, 100))


def _workspace(
    root: Path,
    one_class: str = "",
    says: Mapping[str, Says] = MappingProxyType({"t": _knows}),
    train: int = 60,
) -> Paths:
    """Three parts, ``one_class`` of which has no rare case, and what each teacher says of them."""
    paths, rng, answers = Paths(root), np.random.default_rng(1), []
    for part, size in (("train", train), ("valid", 30), ("test", 20)):
        cases = [
            _case(f"{part}{n:02}", n % 2 == 0 and part != one_class, n // 3) for n in range(size)
        ]
        write_cases(paths.build("split") / f"{part}.parquet", cases)
        for item in cases[1:]:  # nobody answers the first case of a part
            for teacher, say in says.items():
                risk = say(part, item.label.label == "rare", rng)
                answers.append(_answer(item.case.case_id, teacher, risk))
    write_answers(paths.build("rationales") / "answers.parquet", answers)
    return paths


def _answer(case_id: str, teacher: str, risk: int | None) -> AnswerRow:
    if risk is None:
        return AnswerRow(case_id=case_id, teacher=teacher, status="missing", answer=None)
    said = TeacherAnswer(insights=(), differential=(), risk=risk, explanation="because")
    return AnswerRow(case_id=case_id, teacher=teacher, status="ok", answer=said)


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Paths, list[Item]]:
    """A workspace after the stage, and what the stage yielded."""
    paths = _workspace(tmp_path_factory.mktemp("aligned"))
    shutil.copy(REPOSITORY / "params.yaml", paths.params)
    return paths, list(align(QUICK, paths))


def test_stage_leaves_targets_ensemble_and_reports(aligned: tuple[Paths, list[Item]]) -> None:
    paths, items = aligned
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
        list(align(QUICK, _workspace(tmp_path / "train", one_class="train")))
    with pytest.raises(BadInputError, match=r"valid\.parquet: no case with label rare"):
        list(align(QUICK, _workspace(tmp_path / "valid", one_class="valid")))


def test_nobody_to_hear_and_too_few_to_learn_from_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no teacher answered a training case"):
        list(align(QUICK, _workspace(tmp_path / "nobody", says={"t": lambda *_: None})))
    with pytest.raises(BadInputError, match="2 diseases with label rare have an answered case"):
        list(align(QUICK, _workspace(tmp_path / "few", train=6)))


def test_odd_teachers_beside_one_that_knows_give_a_sound_result(tmp_path: Path) -> None:
    odd: dict[str, Says] = {
        "t": _knows,
        "always 50": lambda *_: 50,
        "missing everywhere": lambda *_: None,
        "answers the test part alone": lambda part, *_: 80 if part == "test" else None,
        "answers one class alone": lambda _part, rare, _rng: 90 if rare else None,
    }
    paths = _workspace(tmp_path, says=odd)
    _check_sound(paths, list(align(QUICK, paths)))
    report = paths.report("align")
    assert json.loads((report / "metrics.json").read_text())["out_of_fold"]["auroc"] > 0.6
    table = json.loads((report / "teachers.json").read_text())
    teachers = table["teachers"]
    assert table["judged_on"]["cases"] == table["judged_on"]["of"]
    assert {row["teacher"] for row in teachers} == {"t", "always 50", "answers one class alone"}


def test_tables_that_rest_on_a_sample_say_so(tmp_path: Path) -> None:
    paths = _workspace(tmp_path, train=150)
    fewer = QUICK.align.model_copy(update={"search_cases": 100})
    items = list(align(QUICK.model_copy(update={"align": fewer}), paths))
    for name in ("teachers", "robustness"):
        table = json.loads((paths.report("align") / f"{name}.json").read_text())
        assert table["judged_on"] == {"cases": 100, "of": 149}
    assert isinstance(items[-1], Summary)
    assert "on 100 cases drawn" in items[-1].text


def test_one_teacher_that_always_says_50_tells_nothing(tmp_path: Path) -> None:
    paths = _workspace(tmp_path, says={"t": lambda *_: 50})
    _check_sound(paths, list(align(QUICK, paths)))
    metrics = json.loads((paths.report("align") / "metrics.json").read_text())
    assert metrics["valid"]["auroc"] == 0.5


def test_fewer_cases_than_folds_give_a_sound_result(tmp_path: Path) -> None:
    align_params = QUICK.align.model_copy(update={"folds": 12})
    paths = _workspace(tmp_path, train=11)
    items = list(align(QUICK.model_copy(update={"align": align_params}), paths))
    _check_sound(paths, items)
    rows = pq.read_table(paths.build("align") / "risk.parquet").to_pylist()
    assert len({row["fold"] for row in rows if row["part"] == "train"}) < 12


def _check_sound(paths: Paths, items: list[Item]) -> None:
    """Finite everywhere: metrics, risks and every file of the reports."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    reports = sorted(paths.report("align").glob("*.json"))
    assert len(reports) >= 6
    for report in reports:
        json.loads(report.read_text(), parse_constant=refuse)
    assert all(np.isfinite(item.value) for item in items if isinstance(item, Metric))
    for row in pq.read_table(paths.build("align") / "risk.parquet").to_pylist():
        assert 0 <= row["risk"] <= 1


def test_a_case_is_explained_to_the_terminal_and_into_files(
    aligned: tuple[Paths, list[Item]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, _ = aligned
    monkeypatch.chdir(paths.root)
    png, out = tmp_path / "waterfall.png", tmp_path / "case.json"
    done = CliRunner().invoke(app, ["explain", "train05", "--png", str(png), "--json", str(out)])
    assert done.exit_code == 0, done.exception
    risks = {
        row["case_id"]: row["risk"]
        for row in pq.read_table(paths.build("align") / "risk.parquet").to_pylist()
    }
    assert f"{risks['train05']:.2f} by the model that never saw its disease" in done.output
    assert png.read_bytes().startswith(b"\x89PNG")
    told = json.loads(out.read_text())
    assert (told["case_id"], told["part"]) == ("train05", "train")
    log_odds = told["base"] + sum(voice["log_odds"] for voice in told["voices"])
    assert 1 / (1 + np.exp(-log_odds)) == pytest.approx(told["risk"], abs=1e-4)
    assert "cough" not in done.output + out.read_text()
    with pytest.raises(BadInputError, match="can't be written"):
        explain_to_terminal("train05", None, out / "below a file.json")


@pytest.mark.parametrize(
    ("case_id", "sentence"),
    [
        ("train00", "has no answer of a teacher that the ensemble knows"),
        ("test05", "the test part is read by score alone"),
    ],
)
def test_a_case_that_can_not_be_explained_is_one_sentence(
    case_id: str,
    sentence: str,
    aligned: tuple[Paths, list[Item]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(aligned[0].root)
    with pytest.raises(BadInputError, match=sentence):
        explain_to_terminal(case_id, None, None)
