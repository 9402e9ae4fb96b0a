"""The align stage ignores the test part and writes what its readers expect."""

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
from rarealert.errors import BadInputError
from rarealert.params import load_params
from rarealert.paths import Paths
from rarealert.stages.align import align
from rarealert.teachers.teacher_answer import AnswerRow, TeacherAnswer, read_answers, write_answers
from rarealert.tracking.items import Child, Item, Metric, Summary
from rarealert.visits.case import Case, Label, LabelledCase
from rarealert.visits.store import write_cases

REPOSITORY = Path(__file__).parents[3]
PARAMS = load_params(REPOSITORY / "params.yaml")
Teacher = Callable[[str, bool, np.random.Generator], int | None]
"""The risk that a teacher gives a case of a part, rare or not; ``None`` leaves it unanswered."""


def quick(**changed: object):
    settings = {"folds": 3, "repeats": 1, "timeout_s": 0.001, **changed}
    return PARAMS.model_copy(update={"align": PARAMS.align.model_copy(update=settings)})


def case(case_id: str, rare: bool, disease: int) -> LabelledCase:
    code = f"ORPHA:{disease}" if rare else None
    label = Label(
        label="rare" if rare else "nonrare",
        disease_id=code or f"NAME:{disease}",
        disease_name="a disease",
        orpha_code=code,
        reason="test",
    )
    visit = Case(case_id=case_id, source="simulated", chief_complaint="cough")
    return LabelledCase(case=visit, label=label)


def answer(case_id: str, teacher: str, risk: int | None) -> AnswerRow:
    if risk is None:
        return AnswerRow(case_id=case_id, teacher=teacher, status="missing", answer=None)
    given = TeacherAnswer(insights=(), differential=(), risk=risk, explanation="because")
    return AnswerRow(case_id=case_id, teacher=teacher, status="ok", answer=given)


def informative(_part: str, rare: bool, random: np.random.Generator) -> int:
    return int(np.clip(random.normal(65 if rare else 35, 20), 0, 100))


def workspace(
    root: Path,
    one_class: str = "",
    teachers: Mapping[str, Teacher] = MappingProxyType({"t": informative}),
    train: int = 60,
) -> Paths:
    """Three parts, ``one_class`` of which has no rare case, and each teacher's answers."""
    paths, random, answers = Paths(root), np.random.default_rng(1), []
    for part, size in (("train", train), ("valid", 30), ("test", 20)):
        cases = [
            case(f"{part}{n:02}", n % 2 == 0 and part != one_class, n // 3) for n in range(size)
        ]
        write_cases(paths.build("split") / f"{part}.parquet", cases)
        for item in cases[1:]:  # the first case of a part is unanswered
            for name, teacher in teachers.items():
                risk = teacher(part, item.label.label == "rare", random)
                answers.append(answer(item.case.case_id, name, risk))
    write_answers(paths.build("rationales") / "answers.parquet", answers)
    return paths


def risks_of(paths: Paths) -> list[dict[str, object]]:
    return pq.read_table(paths.build("align") / "risk.parquet").to_pylist()


def report(paths: Paths, name: str) -> dict:
    return json.loads((paths.report("align") / f"{name}.json").read_text())


def check_sound(paths: Paths, items: list[Item]) -> None:
    """Metrics, risks and every file of the reports are finite."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    reports = sorted(paths.report("align").glob("*.json"))
    assert len(reports) == 7
    for file in reports:
        json.loads(file.read_text(), parse_constant=refuse)
    assert all(np.isfinite(item.value) for item in items if isinstance(item, Metric))
    assert all(0 <= row["risk"] <= 1 for row in risks_of(paths))


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Paths, list[Item]]:
    """A workspace after the stage, and the items it yielded."""
    paths = workspace(tmp_path_factory.mktemp("aligned"))
    shutil.copy(REPOSITORY / "params.yaml", paths.params)
    return paths, list(align(quick(), paths))


def test_the_stage_writes_targets_ensemble_and_reports(aligned) -> None:
    paths, items = aligned
    check_sound(paths, items)
    rows = risks_of(paths)
    assert {row["part"] for row in rows} == {"train", "valid"}
    assert len(rows) == 59 + 29
    assert all((row["fold"] is None) == (row["part"] == "valid") for row in rows)
    ensemble = load_ensemble(paths.build("align") / "model.skops")
    found = ensemble.predict(read_answers(paths.build("rationales") / "answers.parquet"))
    assert all(found[row["case_id"]] == row["risk"] for row in rows if row["part"] == "valid")
    assert "test05" in found
    assert report(paths, "metrics")["cases"] == {"train": 59, "unanswered": 2, "valid": 29}
    assert set(ensemble.thresholds) == {"at_95_sensitivity", "at_95_specificity"}
    assert any(isinstance(item, Child) for item in items)
    assert "out_of_fold_auroc" in {item.name for item in items if isinstance(item, Metric)}
    assert isinstance(items[-1], Summary)


def test_same_seed_same_bytes_whatever_the_test_part_holds(tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        paths = workspace(tmp_path / name)
        if name == "two":
            file = paths.build("rationales") / "answers.parquet"
            kept = [item for item in read_answers(file) if not item.case_id.startswith("test")]
            write_answers(file, kept)
        list(align(quick(), paths))
        files = [paths.build("align") / "risk.parquet", paths.build("align") / "model.skops"]
        digests.append([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        ({"one_class": "train"}, r"train\.parquet: 0 diseases with label rare"),
        ({"one_class": "valid"}, r"valid\.parquet: no case with label rare"),
        ({"teachers": {"t": lambda *_: None}}, r"answers\.parquet: no teacher"),
        ({"train": 6}, r"train\.parquet: 2 diseases with label rare"),
    ],
)
def test_too_little_to_learn_from_is_refused_by_file_and_label(tmp_path, made, problem) -> None:
    with pytest.raises(BadInputError, match=problem):
        list(align(quick(), workspace(tmp_path, **made)))


def test_odd_teachers_beside_an_informative_one_give_a_sound_result(tmp_path: Path) -> None:
    teachers: dict[str, Teacher] = {
        "t": informative,
        "always 50": lambda *_: 50,
        "missing everywhere": lambda *_: None,
        "answers the test part alone": lambda part, *_: 80 if part == "test" else None,
        "answers one class alone": lambda _part, rare, _random: 90 if rare else None,
    }
    paths = workspace(tmp_path, teachers=teachers)
    check_sound(paths, list(align(quick(), paths)))
    assert report(paths, "metrics")["out_of_fold"]["auroc"] > 0.6
    table = report(paths, "teachers")
    assert table["judged_on"]["cases"] == table["judged_on"]["of"]
    names = {row["teacher"] for row in table["teachers"]}
    assert names == {"t", "always 50", "answers one class alone"}


def test_tables_measured_on_a_sample_report_its_size(tmp_path: Path) -> None:
    paths = workspace(tmp_path, train=150)
    items = list(align(quick(search_cases=100), paths))
    for name in ("teachers", "robustness"):
        assert report(paths, name)["judged_on"] == {"cases": 100, "of": 149}
    assert isinstance(items[-1], Summary)
    assert "100 cases" in items[-1].text


def test_a_teacher_that_always_answers_50_gives_chance(tmp_path: Path) -> None:
    paths = workspace(tmp_path, teachers={"t": lambda *_: 50})
    check_sound(paths, list(align(quick(), paths)))
    assert report(paths, "metrics")["valid"]["auroc"] == 0.5


def test_fewer_diseases_than_folds_give_a_sound_result(tmp_path: Path) -> None:
    paths = workspace(tmp_path, train=11)
    check_sound(paths, list(align(quick(folds=12), paths)))
    assert len({row["fold"] for row in risks_of(paths) if row["part"] == "train"}) < 12


def test_a_case_is_explained_on_the_terminal_and_in_files(aligned, tmp_path, monkeypatch) -> None:
    paths, _ = aligned
    monkeypatch.chdir(paths.root)
    png, out = tmp_path / "waterfall.png", tmp_path / "case.json"
    done = CliRunner().invoke(app, ["explain", "train05", "--png", str(png), "--json", str(out)])
    assert done.exit_code == 0, done.exception
    target = next(row["risk"] for row in risks_of(paths) if row["case_id"] == "train05")
    assert f"{target:.2f}" in done.output
    assert png.read_bytes().startswith(b"\x89PNG")
    found = json.loads(out.read_text())
    assert (found["case_id"], found["part"]) == ("train05", "train")
    log_odds = found["base"] + sum(voice["log_odds"] for voice in found["voices"])
    assert 1 / (1 + np.exp(-log_odds)) == pytest.approx(found["risk"], abs=1e-4)
    assert "cough" not in done.output + out.read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["train00"], id="unanswered"),
        pytest.param(["test05"], id="in the test part"),
        pytest.param(["train05", "--json", "params.yaml/below a file.json"], id="not writable"),
    ],
)
def test_what_can_not_be_explained_is_refused_by_name(aligned, arguments, monkeypatch) -> None:
    monkeypatch.chdir(aligned[0].root)
    done = CliRunner().invoke(app, ["explain", *arguments])
    assert done.exit_code != 0
    assert isinstance(done.exception, BadInputError)
    assert arguments[-1].partition("/")[0] in str(done.exception)
