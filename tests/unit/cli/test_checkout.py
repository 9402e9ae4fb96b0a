"""``data materialise`` rebuilds only what a user did not import; ``next`` reads the reports."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from rarealert.cli.checkout import materialise, what_next
from rarealert.errors import BadInputError, RareAlertError
from rarealert.files import write_json

ROOT = Path(__file__).parents[3]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    params = (ROOT / "params.yaml").read_text(encoding="utf-8")
    params = re.sub(r"rare_cases: \d+", "rare_cases: 3", params)
    (tmp_path / "params.yaml").write_text(params, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def repository(workspace: Path) -> Path:
    subprocess.run(["dvc", "init", "-q", "--no-scm"], cwd=workspace, check=True)
    return workspace


def test_a_fresh_clone_gets_the_pinned_corpus_or_an_error(repository: Path) -> None:
    (repository / "data/simulated").mkdir(parents=True)
    (repository / "data/simulated/cases.jsonl.partial").write_text("half")  # a killed run
    assert "not pinned" in materialise()
    files = {file.name for file in (repository / "data/simulated").iterdir()}
    assert files == {"cases.jsonl", "SOURCE.json"}
    subprocess.run(["dvc", "add", "-q", "data"], cwd=repository, check=True)
    assert "already there" in materialise()
    shutil.rmtree(repository / "data")
    shutil.rmtree(repository / ".dvc/cache")
    assert "rebuilt" in materialise()
    shutil.rmtree(repository / "data")
    params = repository / "params.yaml"
    params.write_text(re.sub(r"rare_cases: \d+", "rare_cases: 4", params.read_text()))
    with pytest.raises(RareAlertError, match=r"data\.dvc"):
        materialise()


def test_data_that_differs_from_the_pin_is_reported_and_unchanged(repository: Path) -> None:
    materialise()
    subprocess.run(["dvc", "add", "-q", "data"], cwd=repository, check=True)
    cases = repository / "data/simulated/cases.jsonl"
    cases.chmod(0o644)
    cases.write_text("mine")
    with pytest.raises(RareAlertError, match="dvc add data"):
        materialise()
    assert cases.read_text() == "mine"


def test_next_needs_a_finished_run_and_gives_the_reason_for_an_absent_auroc(
    workspace: Path,
) -> None:
    with pytest.raises(BadInputError, match="dvc repro"):
        what_next()
    reason = "all rare cases have one disease, which leaves no spread for an interval"
    report = {"models": {"student": {}}, "absent": {"models": {"student": {"auroc": reason}}}}
    gates = {"promoted": False, "model_name": "toy", "version": "1", "gates": []}
    write_json(workspace / "reports/evaluate/metrics.json", report)
    write_json(workspace / "reports/register/gates.json", gates)
    shown = what_next()
    assert "toy version 1 as challenger" in shown
    assert f"student    not defined on the test part ({reason})" in shown
    assert "ensemble   not defined on the test part (it was not scored)" in shown
