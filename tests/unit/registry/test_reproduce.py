"""A run made again from its commit: in a worktree, from the same data, with the same figures."""

import json
import subprocess
import sys

import pytest
import yaml

from rarealert.errors import BadInputError, RareAlertError
from rarealert.registry.reproduce import compare_metrics, reproduce

STAGE = """
import json, pathlib, mlflow
value = float(pathlib.Path("data/number.txt").read_text()) * 2
pathlib.Path("build/score").mkdir(parents=True, exist_ok=True)
pathlib.Path("mlruns").mkdir(exist_ok=True)
mlflow.set_tracking_uri(f"sqlite:///{pathlib.Path.cwd()}/mlruns/mlflow.db")
with mlflow.start_run() as run:
    mlflow.log_metrics({"auroc": value, "cases_per_second": 7})
record = {"run_id": run.info.run_id}
pathlib.Path("build/score/run.json").write_text(json.dumps(record))
"""


def test_metrics_agree_within_the_tolerance_and_timings_do_not_count():
    first = {"auroc": 0.8, "n": 5, "cases_per_second": 3, "only": 1}
    second = {"auroc": 0.8000001, "n": 6, "cases_per_second": 9}
    found = compare_metrics(first, second, 1e-6)
    assert found == {"auroc": True, "n": False, "only": False}


@pytest.fixture
def checkout(mlflow_store, tmp_path, monkeypatch):
    """A git and DVC repository with one stage that has run, committed."""

    def run(*command):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "data").mkdir()
    (tmp_path / "data/number.txt").write_text("0.4")
    (tmp_path / "stage.py").write_text(STAGE)
    (tmp_path / "params.yaml").write_text("{}")
    (tmp_path / ".gitignore").write_text("/mlruns/\n/build/\n")
    score = {
        "cmd": f"{sys.executable} stage.py",
        "deps": ["data"],
        "outs": ["build/score/run.json"],
    }
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"score": score}}))
    run("git", "init", "-q")
    run("git", "config", "user.name", "t")
    run("git", "config", "user.email", "t@example.org")
    run("dvc", "init", "-q")
    run("dvc", "add", "-q", "data")
    run("git", "add", "-A")
    run("git", "commit", "-qm", "start")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def log_run(checkout, auroc, **tags):
    import mlflow

    from rarealert.tracking.lineage import git_commit
    from rarealert.tracking.sink import connect

    connect(f"sqlite:///{checkout / 'mlruns/mlflow.db'}")
    held = {"stage": "score", "git.commit": git_commit(checkout), "git.dirty": "false", **tags}
    with mlflow.start_run(tags=held) as run:
        mlflow.log_metrics({"auroc": auroc, "cases_per_second": 900})
    return run.info.run_id


@pytest.mark.slow  # DVC and a new MLflow database in a worktree, twice
def test_a_run_is_made_again_from_its_commit_and_not_from_what_lies_around(checkout):
    good, wrong = log_run(checkout, 0.8), log_run(checkout, 0.9)
    (checkout / "data/number.txt").write_text("0.1")
    said = reproduce(good, 1e-6)
    assert "all 1 metrics agree" in said
    with pytest.raises(RareAlertError, match=r"1 of 1 metrics of score differ.*auroc"):
        reproduce(wrong, 1e-6)
    command = ["git", "worktree", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(listed.stdout.splitlines()) == 1
    assert (checkout / "data/number.txt").read_text() == "0.1"
    assert not (checkout / "build").exists()


@pytest.mark.parametrize("tags", [{"git.dirty": "true"}, {"git.commit": "unknown"}])
def test_a_run_of_uncommitted_code_cannot_be_made_again(checkout, tags):
    with pytest.raises(BadInputError, match="can't be made again"):
        reproduce(log_run(checkout, 0.8, **tags), 1e-6)


def test_an_unknown_run_is_refused(checkout):
    with pytest.raises(BadInputError, match="is no run"):
        reproduce(json.dumps("nothing"), 1e-6)
