"""The whole graph on the repository's own configuration, shrunk: run, repeated, changed, killed.

All tests of this module share one workspace, in the order in which a user would take these steps.
"""

import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from rarealert.stages import STAGES

ROOT = Path(__file__).parents[2]
SHRUNK = {
    "data.simulated.rare_cases": 50,
    "data.simulated.nonrare_cases": 50,
    "validate.min_cases_per_label": 10,
    "teach.panel": "data/panel.yaml",
    "align.trials": 1,
    "align.folds": 3,
    "tune.trials": 1,
    "score.robustness_cases": 4,
    "tune.train_cases": 16,
    "tune.valid_cases": 16,
    "distil.max_prompt_tokens": 64,
    "distil.max_rationale_tokens": 16,
    "distil.epochs": 1,
    "distil.correction_rationales": 2,
    "distil.rationale_cases": 4,
    "distil.rationale_epochs": 1,
    "distil.rationale_layers": 2,
    "distil.knowledge_cases": 8,
    "evaluate.resamples": 50,
}
"""The real configuration with fewer cases, trials and passes; every other value stays."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _new_workspace(tmp_path_factory.mktemp("workspace"))


def _new_workspace(root: Path) -> Path:
    shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "dvc.yaml", root)
    shutil.copy(ROOT / ".gitignore", root)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for key, value in SHRUNK.items():
        *sections, name = key.split(".")
        place = params
        for section in sections:
            place = place[section]
        place[name] = value
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    _run(root, "git", "init", "-q")
    _run(root, "git", "config", "user.name", "test")
    _run(root, "git", "config", "user.email", "test@example.org")
    _run(root, "dvc", "init", "-q")
    shutil.copy(ROOT / ".dvcignore", root)  # compiled files lie inside the rooms
    shutil.copytree(ROOT / ".dvc/plots", root / ".dvc/plots")
    _run(root, "dvc", "config", "core.analytics", "false")
    _run(root, "rarealert", "data", "materialise")
    panel = (ROOT / "src/rarealert/teachers/panels/embedded.yaml").read_text(encoding="utf-8")
    # the language model takes seconds a case
    (root / "data/panel.yaml").write_text(re.sub(r"cases: \d+", "cases: 1", panel))
    _run(root, "dvc", "add", "-q", "data")
    _run(root, "git", "add", "-A")
    _run(root, "git", "commit", "-qm", "start")
    return root


def _environment(root: Path) -> dict[str, str]:
    # The copied sources come first, so that a changed module is the one that runs.
    bins = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    return kept | {"PATH": bins, "PYTHONPATH": str(root / "src"), "HF_HUB_OFFLINE": "1"}


def _run(root: Path, *command: str) -> str:
    done = subprocess.run(
        command, cwd=root, env=_environment(root), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout + done.stderr


def _run_states(root: Path) -> dict[str, str]:
    try:
        with sqlite3.connect(f"file:{root}/mlruns/mlflow.db?mode=ro", uri=True) as store:
            return dict(store.execute("select run_uuid, status from runs").fetchall())
    except sqlite3.OperationalError:  # the first stage has not made it yet
        return {}


def _ran(output: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", output)


def _status(root: Path) -> set[str]:
    changed = json.loads(_run(root, "dvc", "status", "--json").splitlines()[0])
    return set(changed)


def _repro_killed_in(root: Path, stage: str, after: float, *target: str) -> None:
    """Run `dvc repro` and kill it, children too, ``after`` seconds into the work of ``stage``."""
    process = subprocess.Popen(
        ["dvc", "repro", *target],
        cwd=root,
        env=_environment(root),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if f"Running stage '{stage}'" in line:
            while "RUNNING" not in _run_states(root).values():
                time.sleep(0.1)
            time.sleep(after)
            os.killpg(process.pid, signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()


def test_killed_stage_is_finished_by_running_again(workspace: Path) -> None:
    _repro_killed_in(workspace, "validate", 0, "split")
    assert not (workspace / "build/validate/run.json").exists()
    assert _ran(_run(workspace, "dvc", "repro", "split")) == ["validate", "split"]


@pytest.mark.scale
@pytest.mark.timeout(1800)  # eleven starts of the graph: ten minutes on a quiet machine
def test_every_stage_may_be_killed(tmp_path: Path) -> None:
    root = _new_workspace(tmp_path)
    moments = random.Random(4)
    for stage in STAGES:
        _repro_killed_in(root, stage, moments.uniform(0, 1.5))
    assert "registered" in _run(root, "dvc", "repro") + _run(root, "rarealert", "next")
    status = _run_states(root)
    records = [json.loads((root / f"build/{stage}/run.json").read_text()) for stage in STAGES]
    assert {status[record["run_id"]] for record in records} == {"FINISHED"}
    # a quick stage's run may have closed before the kill, with DVC yet to record it
    assert list(status.values()).count("KILLED") >= len(STAGES) - 2
    assert not list((root / "build").rglob("*.partial"))


def test_the_whole_graph_runs_and_leaves_its_record(workspace: Path) -> None:
    output = _run(workspace, "dvc", "repro")
    assert _ran(output) == list(STAGES[3:])
    runs = {s: json.loads((workspace / f"build/{s}/run.json").read_text()) for s in STAGES}
    status = _run_states(workspace)
    with sqlite3.connect(workspace / "mlruns/mlflow.db") as store:
        rows = store.execute("select run_uuid, key, value from tags").fetchall()
    tags: dict[str, dict[str, str]] = {}
    for run, key, value in rows:
        tags.setdefault(run, {})[key] = value
    for stage, record in runs.items():
        assert status[record["run_id"]] == "FINISHED"
        assert tags[record["run_id"]]["stage"] == stage
        assert len(tags[record["run_id"]]["git.commit"]) == 40
    assert len({tags[runs[stage]["run_id"]]["pipeline.id"] for stage in STAGES[3:]}) == 1
    assert "KILLED" in status.values()
    assert "registered" in _run(workspace, "rarealert", "next")


def test_metrics_keep_the_contract(workspace: Path) -> None:
    report = json.loads((workspace / "reports/evaluate/metrics.json").read_text())
    assert {"dataset", "models", "by_source", "by_category", "controls"} <= set(report)
    kinds = {name.split(":")[0] for name in report["models"]}
    assert kinds == {"teacher", "ensemble", "student", "baseline", "control"}
    for name, metrics in report["models"].items():
        auroc = metrics["auroc"]
        assert auroc["ci_low"] <= auroc["value"] <= auroc["ci_high"], name
        assert auroc["n"] > 0


def test_no_case_text_reaches_mlflow(workspace: Path) -> None:
    texts = []
    for line in (workspace / "data/simulated/cases.jsonl").read_text().splitlines():
        case = json.loads(line)["case"]
        texts.append(case["history_of_present_illness"] or case["chief_complaint"])
    probes = {text[10:50].encode() for text in texts if text and len(text) > 60}
    assert len(probes) > 50
    # The model contains the package itself, whose stock phrases simulated cases use.
    package = {file.read_bytes() for file in (workspace / "src").rglob("*") if file.is_file()}
    for file in (workspace / "mlruns").rglob("*"):
        if file.is_file() and (content := file.read_bytes()) not in package:
            assert not any(probe in content for probe in probes), file.name


def test_nothing_changed_means_nothing_runs(workspace: Path) -> None:
    assert _ran(_run(workspace, "dvc", "repro")) == []


@pytest.mark.parametrize(
    ("file", "before", "after", "stages"),
    [
        ("params.yaml", "max_ece: ", "max_ece: 0.9 # ", {"register"}),
        ("src/rarealert/quality/profile.py", "", "\n", {"validate"}),
        ("src/rarealert/ensemble/search.py", "", "\n", {"align", "score"}),
    ],
)
def test_a_change_concerns_only_the_stages_that_depend_on_it(
    workspace: Path, file: str, before: str, after: str, stages: set[str]
) -> None:
    kept = (workspace / file).read_text()
    (workspace / file).write_text(kept.replace(before, after) if before else kept + after)
    assert _status(workspace) == stages
    (workspace / file).write_text(kept)


def test_dvc_shows_metrics_and_plots(workspace: Path) -> None:
    shown = _run(workspace, "dvc", "metrics", "show", "--json")
    assert "auroc" in shown
    _run(workspace, "dvc", "plots", "show", "-o", "plots")
    assert (workspace / "plots/index.html").stat().st_size > 1000


def test_an_experiment_runs_in_place(workspace: Path) -> None:
    _run(workspace, "git", "add", "-A")
    _run(workspace, "git", "commit", "-qm", "a finished run")
    output = _run(workspace, "dvc", "exp", "run", "-S", "register.max_ece=0.5")
    assert _ran(output) == ["register"]


def test_visits_are_screened_with_the_registered_model(workspace: Path) -> None:
    cases = (workspace / "data/simulated/cases.jsonl").read_text().splitlines()[:4]
    visits = workspace / "visits.jsonl"
    rows = [json.dumps(json.loads(line)["case"]) for line in cases]
    visits.write_text("\n".join([*rows, '{"case_id": "bad", "age_years": 400}']) + "\n")
    out = workspace / "risks.jsonl"
    alias = ("--alias", "challenger")
    _run(workspace, "rarealert", "screen", str(visits), "--out", str(out), *alias)
    risks = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["case_id"] for row in risks] == [json.loads(row)["case_id"] for row in rows]
    assert all(0 <= row["risk"] <= 1 for row in risks)


def test_the_students_notebook_reads_a_finished_build(workspace: Path) -> None:
    notebook = json.loads((ROOT / "notebooks/03-student.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    checks = "assert trained and len(rows) == 3; print([row['visit'] for row in rows])"
    output = _run(workspace, sys.executable, "-W", "ignore", "-c", "\n".join([*cells, checks]))
    assert "['as written', 'without history_of_present_illness'" in output


def test_an_unknown_key_is_refused_without_a_traceback(workspace: Path) -> None:
    params = workspace / "params.yaml"
    kept = params.read_text()
    params.write_text(kept.replace("align:\n", "align:\n  folbs: 3\n"))
    done = subprocess.run(
        ["rarealert", "align"],
        cwd=workspace,
        env=_environment(workspace),
        capture_output=True,
        text=True,
        check=False,
    )
    params.write_text(kept)
    assert done.returncode == 2
    assert "align.folbs" in done.stderr
    assert "Traceback" not in done.stderr
