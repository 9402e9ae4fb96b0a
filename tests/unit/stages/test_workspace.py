"""Filling data/: rebuilt where it is empty or half written, never over what a user imported."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from rarealert.cli.workspace import materialise, what_next
from rarealert.errors import BadInputError, RareAlertError
from rarealert.files import write_json

ROOT = Path(__file__).parents[3]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    params = (ROOT / "params.yaml").read_text(encoding="utf-8")
    params = re.sub(r"rare_cases: \d+", "rare_cases: 3", params)
    (tmp_path / "params.yaml").write_text(params, encoding="utf-8")
    subprocess.run(["dvc", "init", "-q", "--no-scm"], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_pinned_corpus_is_rebuilt_to_the_same_bytes(workspace: Path) -> None:
    assert "not pinned" in materialise()
    subprocess.run(["dvc", "add", "-q", "data"], cwd=workspace, check=True)
    assert materialise() == "data/ matches data.dvc (already there)"
    shutil.rmtree(workspace / "data")
    shutil.rmtree(workspace / ".dvc/cache")  # as in a fresh clone
    assert materialise() == "data/ matches data.dvc (rebuilt)"


def test_a_fresh_clone_refuses_a_corpus_that_is_not_the_pinned_one(workspace: Path) -> None:
    materialise()
    subprocess.run(["dvc", "add", "-q", "data"], cwd=workspace, check=True)
    shutil.rmtree(workspace / "data")
    shutil.rmtree(workspace / ".dvc/cache")
    params = workspace / "params.yaml"
    params.write_text(re.sub(r"rare_cases: \d+", "rare_cases: 4", params.read_text()))
    with pytest.raises(RareAlertError, match=r"differs from what data\.dvc pins"):
        materialise()


def test_a_half_written_corpus_is_written_again(workspace: Path) -> None:
    (workspace / "data/simulated").mkdir(parents=True)
    (workspace / "data/simulated/cases.partial").write_text("half")
    materialise()
    assert {file.name for file in (workspace / "data/simulated").iterdir()} == {
        "cases.jsonl",
        "SOURCE.json",
    }


def test_what_differs_from_the_pin_is_said_and_left_alone(workspace: Path) -> None:
    materialise()
    subprocess.run(["dvc", "add", "-q", "data"], cwd=workspace, check=True)
    cases = workspace / "data/simulated/cases.jsonl"
    cases.chmod(0o644)
    cases.write_text("mine")
    with pytest.raises(RareAlertError, match="dvc add data"):
        materialise()
    assert cases.read_text() == "mine"


def test_what_next_before_a_run_says_so(workspace: Path) -> None:
    with pytest.raises(BadInputError, match="dvc repro"):
        what_next()


def test_where_no_auroc_is_defined_it_is_said_and_nothing_breaks(workspace: Path) -> None:
    from rarealert.stages.register import _description, _figures

    reason = "all rare cases have one disease, which leaves no spread for an interval"
    brier = {"value": 0.2, "ci_low": 0.1, "ci_high": 0.3, "n": 40}
    report = {
        "models": {"student": {"brier": brier}},
        "absent": {"models": {"student": {"auroc": reason}}},
    }
    gates = {"promoted": False, "model_name": "toy", "version": "1", "gates": []}
    write_json(workspace / "reports/evaluate/metrics.json", report)
    write_json(workspace / "reports/register/gates.json", gates)
    said = what_next()
    assert f"student    not defined on the test part ({reason})" in said
    assert "ensemble   not defined on the test part (it was not scored)" in said
    expected = f"AUROC is not defined on the test part ({reason}). Failed RA001;"
    assert _description(report, ["RA001"]).startswith(expected)
    assert set(_figures(report)) == {"brier", "brier.ci_low", "brier.ci_high"}
