"""A run recomputed from its commit: in a worktree, from the same data, with the same figures."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from rarealert.errors import BadInputError, RareAlertError
from rarealert.registry.reproduce import compare_metrics, reproduce, try_command

CODE = "src/room/stage.py"
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


def test_of_answers_the_number_is_compared_and_not_which_were_new():
    first = {"answers_answered": 9, "answers_cached": 0, "answers_failed": 1, "answers_missing": 2}
    second = {
        "answers_cached": 9,
        "answers_not_asked": 1,
        "answers_missing": 2,
        "cases_that_instruct_the_model": 4,
    }
    assert set(compare_metrics(first, second, 0).values()) == {True}
    assert not compare_metrics(first, second | {"answers_cached": 8}, 0)["answers_present"]


@pytest.fixture
def checkout(mlflow_store, tmp_path, monkeypatch):
    """A git and DVC repository with one committed stage."""

    def run(*command):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "data").mkdir()
    (tmp_path / "data/number.txt").write_text("0.4")
    (tmp_path / CODE).parent.mkdir(parents=True)
    (tmp_path / CODE).write_text(STAGE)
    (tmp_path / "params.yaml").write_text("{}")
    (tmp_path / ".gitignore").write_text("/mlruns/\n/build/\n")
    score = {
        "cmd": f"{sys.executable} {CODE}",
        "deps": ["data", "src/room"],
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


def log_run(checkout, figures, inputs=(), **tags):
    import mlflow
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.data.sources import LocalArtifactDatasetSource

    from rarealert.tracking.lineage import git_commit
    from rarealert.tracking.sink import connect

    connect(f"sqlite:///{checkout / 'mlruns/mlflow.db'}")
    tags = {"stage": "score", "git.commit": git_commit(checkout), "git.dirty": "false"} | tags
    with mlflow.start_run(tags=tags) as run:
        mlflow.log_metrics({**figures, "cases_per_second": 900})
        for path, digest in inputs:
            source = LocalArtifactDatasetSource(path)
            mlflow.log_input(MetaDataset(source, name=path, digest=digest))
    return run.info.run_id


@pytest.mark.slow  # DVC and a new MLflow database in a worktree, twice
def test_a_run_is_recomputed_from_its_commit_and_not_from_the_workspace(checkout):
    good, wrong = log_run(checkout, {"auroc": 0.8}), log_run(checkout, {"auroc": 0.9})
    (checkout / "data/number.txt").write_text("0.1")
    assert "all 1 metrics agree" in reproduce(good, 1e-6)
    with pytest.raises(RareAlertError, match=r"1 of 1 metrics.*auroc"):
        reproduce(wrong, 1e-6)
    assert worktrees(checkout) == [checkout]
    assert (checkout / "data/number.txt").read_text() == "0.1"
    assert not (checkout / "build").exists()


UPSTREAM = "import pathlib; pathlib.Path('build/number.txt').write_text(str(0.4))"


@pytest.mark.slow  # DVC and a new MLflow database in a worktree
def test_a_stage_runs_alone_on_the_inputs_that_its_run_recorded(checkout):
    (checkout / "build").mkdir()
    pipeline = yaml.safe_load((checkout / "dvc.yaml").read_text())
    upstream = {"cmd": f'{sys.executable} -c "{UPSTREAM}"', "outs": ["build/number.txt"]}
    score = pipeline["stages"]["score"] | {"deps": ["build/number.txt", "src/room"]}
    (checkout / "dvc.yaml").write_text(
        yaml.safe_dump({"stages": {"upstream": upstream, "score": score}})
    )
    (checkout / CODE).write_text(STAGE.replace("data/number", "build/number"))
    for command in (["dvc", "repro", "-q", "upstream"], ["git", "add", "-A"]):
        subprocess.run(command, cwd=checkout, check=True, capture_output=True)
    subprocess.run(["git", "commit", "-qm", "two stages"], cwd=checkout, check=True)
    lock = yaml.safe_load((checkout / "dvc.lock").read_text())
    digest = lock["stages"]["upstream"]["outs"][0]["md5"]
    known = log_run(checkout, {"auroc": 0.8}, inputs=[("build/number.txt", digest)])
    unknown = log_run(checkout, {"auroc": 0.8}, inputs=[("build/number.txt", "0" * 32)])
    assert "all 1 metrics agree" in reproduce(known, 1e-6, stage_only=True)
    with pytest.raises(BadInputError, match="--stage-only"):
        reproduce(unknown, 1e-6, stage_only=True)
    subprocess.run(["rm", "-rf", str(checkout / ".dvc/cache")], check=True)
    with pytest.raises(BadInputError, match="dvc pull"):
        reproduce(known, 1e-6, stage_only=True)


TEACH = """
import json, os, pathlib, mlflow
cache = pathlib.Path("build/teach/cache")
cache.mkdir(parents=True, exist_ok=True)
bought = not list(cache.iterdir())
if bought:
    (cache / "answers-1.jsonl").write_text("dear")
mlflow.set_tracking_uri(f"sqlite:///{pathlib.Path.cwd()}/mlruns/mlflow.db")
with mlflow.start_run() as run:
    may_ask = "PANEL_KEY" in os.environ or "RAREALERT_ENDPOINTS_CLOSED" not in os.environ
    mlflow.log_metrics({"answers_missing": bought, "endpoints": may_ask})
pathlib.Path("build/teach/run.json").write_text(json.dumps({"run_id": run.info.run_id}))
"""
PANEL = """
teachers:
- {id: a, kind: reasoner, method: red_flags}
- {id: b, kind: endpoint, base_url: "http://127.0.0.1:9/v1", model: m, key_variable: PANEL_KEY}
"""


@pytest.mark.slow  # DVC and a new MLflow database in a worktree, twice
def test_answers_of_endpoints_are_data_and_no_endpoint_is_called_again(checkout, monkeypatch):
    """In the usual order: the code is committed, the stage runs, then its lock is committed."""

    def run(*command):
        subprocess.run(command, cwd=checkout, check=True, capture_output=True)

    (checkout / "data/panel.yaml").write_text(PANEL)
    (checkout / "params.yaml").write_text("teach: {panel: data/panel.yaml}")
    (checkout / CODE).write_text(TEACH)
    teach = {
        "cmd": f"{sys.executable} {CODE}",
        "deps": ["data", "src/room"],
        "outs": [{"build/teach/cache": {"persist": True}}, "build/teach/run.json"],
    }
    (checkout / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"teach": teach}}))
    run("dvc", "add", "-q", "data")
    run("git", "add", "-A")
    run("git", "commit", "-qm", "a panel")
    pinned = yaml.safe_load((checkout / "data.dvc").read_text())["outs"][0]["md5"]
    figures = {"answers_missing": 0, "endpoints": 0}
    made = log_run(checkout, figures, [("data", pinned)], stage="teach")
    run("dvc", "repro", "-q", "teach")
    run("git", "add", "-A")
    run("git", "commit", "-qm", "what it made")
    monkeypatch.setenv("PANEL_KEY", "sk-not-to-be-seen")
    of_own_lock = log_run(checkout, figures, [("data", pinned)], stage="teach")
    for made_by, alone in ((made, False), (made, True), (of_own_lock, False)):
        assert "all 2 metrics agree" in reproduce(made_by, 1e-6, stage_only=alone)
    lock = yaml.safe_load((checkout / "dvc.lock").read_text())
    (held,) = [one for one in lock["stages"]["teach"]["outs"] if one["path"].endswith("cache")]
    (checkout / ".dvc/cache/files/md5" / held["md5"][:2] / held["md5"][2:]).unlink()
    for alone in (False, True):
        with pytest.raises(BadInputError, match="dvc pull build/teach"):
            reproduce(made, 1e-6, stage_only=alone)


def test_a_command_in_a_worktree_does_not_see_another_store(monkeypatch, tmp_path):
    for name in ("MLFLOW_REGISTRY_URI", "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID"):
        monkeypatch.setenv(name, "elsewhere")
    assert try_command(tmp_path, "sh", "-c", "env | grep elsewhere && exit 3; true") == ""


@pytest.mark.slow  # a command of its own, killed
def test_a_terminated_reproduction_leaves_neither_worktree_nor_stage_behind(checkout):
    (checkout / CODE).write_text("import time; open('started', 'w'); time.sleep(600)")
    subprocess.run(["git", "commit", "-qam", "slow"], cwd=checkout, check=True)
    run = log_run(checkout, {"auroc": 0.8})
    command = [sys.executable, "-c", "from rarealert.cli import main; main()", "reproduce", run]
    with subprocess.Popen(command, cwd=checkout, stderr=subprocess.DEVNULL) as working:
        tree = wait_for_worktree(checkout, working)
        working.send_signal(signal.SIGTERM)
        assert working.wait(30) == 128 + signal.SIGTERM
    assert not tree.exists()
    assert worktrees(checkout) == [checkout]
    assert (
        str(tree) not in subprocess.run(["ps", "ax", "-ww"], capture_output=True, text=True).stdout
    )


def wait_for_worktree(checkout, working):
    """The worktree, once its stage runs."""
    until = time.monotonic() + 60
    while time.monotonic() < until and working.poll() is None:
        for tree in worktrees(checkout)[1:]:
            if (tree / "started").exists():
                return tree
        time.sleep(0.1)
    pytest.fail("the stage never started")


def worktrees(checkout):
    command = ["git", "-C", str(checkout), "worktree", "list", "--porcelain"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [Path(row.split()[1]) for row in done.stdout.splitlines() if row.startswith("worktree ")]


@pytest.mark.parametrize("tags", [{"git.dirty": "true"}, {"git.commit": "unknown"}])
def test_a_run_of_uncommitted_code_is_refused(checkout, tags):
    with pytest.raises(BadInputError, match="can't be reproduced"):
        reproduce(log_run(checkout, {"auroc": 0.8}, **tags), 1e-6)


def test_an_unknown_run_is_refused_without_naming_the_store(checkout, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{checkout}/mlruns/hunter2.db")
    with pytest.raises(BadInputError, match="nothing") as refused:
        reproduce("nothing", 1e-6)
    assert "hunter2" not in str(refused.value)
