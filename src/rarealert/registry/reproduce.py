"""A run recomputed from its commit and its data: ``rarealert reproduce RUN``.

``dvc repro --force`` runs in a git worktree with a separate tracking store, so nothing in the
checkout changes. Answers of teachers are data: they come from DVC's cache, and no endpoint is
called. With ``--stage-only`` the stage runs alone on the inputs whose digests its run recorded.
"""

import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from rarealert.errors import BadInputError, RareAlertError
from rarealert.paths import Paths
from rarealert.registry.workspace import dvc_status, stale_stages
from rarealert.tracking.lineage import (
    ENDPOINTS_CLOSED,
    locked_stages,
    pipeline_stages,
    stage_inputs,
)
from rarealert.tracking.sink import connect

_TEACH = "teach"
_ANSWERS = "build/teach/cache"

_MLFLOW = ("MLFLOW_TRACKING", "MLFLOW_EXPERIMENT", "MLFLOW_RUN", "MLFLOW_REGISTRY")
"""Variables, some set by MLflow itself, that would lead the stages to another store."""

_TIMINGS = ("second", "latency")
"""Parts of metric names that measure the machine."""

_OF_THE_CALLS = ("cases_that_instruct_the_model", "cache_lines_set_aside")
"""Metrics of ``teach`` about new answers and old files, which a later run does not find again."""

_SUMMED = {
    "answers_answered": "answers_present",
    "answers_cached": "answers_present",
    "answers_failed": "answers_absent",
    "answers_not_asked": "answers_absent",
}
"""Which answers were new depends on the day; their number is a result."""


def reproduce(run_id: str, tolerance: float, stage_only: bool = False) -> str:
    """Recompute the stage of ``run_id`` with all above it, and compare its metrics.

    ``tolerance`` is the absolute difference allowed in each metric. With ``stage_only`` the stage
    runs alone, on the inputs that the run recorded.

    Raises:
        BadInputError: there is no such run, or it can't be recomputed: its tree was not committed,
            or what it read is no longer pinned or cached.
        RareAlertError: a stage fails, or a metric differs by more than the tolerance.
    """
    paths = Paths.here()
    first = _find(run_id, paths.tracking_uri)
    stage, commit = first.data.tags["stage"], first.data.tags["git.commit"]
    with _ending_on_sigterm(), _worktree(paths.root, commit) as tree:
        _run(tree, "dvc", "config", "--local", "cache.dir", str(paths.root / ".dvc/cache"))
        if stage_only:
            _fetch_recorded(tree, paths.root, stage, _inputs_of(first))
        elif try_command(tree, "dvc", "checkout", "--quiet", "data.dvc"):
            _run(tree, "rarealert", "data", "materialise")
        if _runs_teach(tree, stage, stage_only):
            _fetch_answers(tree, paths.root)
        alone = ["--single-item"] if stage_only else []
        keys = {one["key_variable"] for one in _endpoints(tree) if one.get("key_variable")}
        _run(tree, "dvc", "repro", "--quiet", "--force", *alone, stage, without=keys)
        second = _metrics_of(tree, stage)
    return _verdict(
        stage, commit, compare_metrics(first.data.metrics, second, tolerance), tolerance
    )


def _find(run_id: str, tracking_uri: str) -> Any:
    import mlflow
    from mlflow.exceptions import MlflowException

    connect(tracking_uri)
    try:
        run = mlflow.get_run(run_id)
    except MlflowException as error:
        raise BadInputError(
            f"This tracking store has no run {run_id}; `make ui` lists the runs with their ids."
        ) from error
    tags = run.data.tags
    if "stage" not in tags or tags.get("git.commit", "unknown") == "unknown":
        raise BadInputError(
            f"Run {run_id} can't be reproduced: it is not a stage of a committed tree."
        )
    if tags.get("git.dirty") != "false":
        raise BadInputError(f"Run {run_id} can't be reproduced: its code was not committed.")
    return run


def _inputs_of(run: Any) -> dict[str, str]:
    """Return path → DVC's MD5 of what the run read."""
    found = (one.dataset for one in run.inputs.dataset_inputs)
    return {json.loads(one.source)["uri"]: one.digest for one in found}


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """Turn a scheduler's SIGTERM into an exception, so that the worktree is removed."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _worktree(root: Path, commit: str) -> Iterator[Path]:
    """Yield a worktree of ``commit`` of the repository at ``root``, removed at the end."""
    with TemporaryDirectory(prefix="rarealert-") as folder:
        tree = Path(folder) / "tree"
        _run(root, "git", "worktree", "add", "--quiet", "--detach", str(tree), commit)
        try:
            yield tree
        finally:
            _run(root, "git", "worktree", "remove", "--force", str(tree))


def try_command(folder: Path, *command: str, without: Collection[str] = ()) -> str:
    """Run a command in a worktree; return the last line of its output if it fails, else ``""``.

    It finds this environment's commands and the worktree's sources, calls no endpoint, and does
    not see the variables ``without``. It runs in a separate process group that ends with this
    process: a stage that continued in a removed worktree would only keep the machine busy.
    """
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(_MLFLOW) and key not in without
    }
    commands = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    kept |= {"PYTHONPATH": str(folder / "src"), "PATH": os.pathsep.join(commands)}
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=kept | {ENDPOINTS_CLOSED: "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    last = output.strip().splitlines() or [f"exit code {process.returncode}"]
    return last[-1] if process.returncode else ""


def _run(folder: Path, *command: str, without: Collection[str] = ()) -> None:
    error = try_command(folder, *command, without=without)
    if error:
        raise RareAlertError(
            f"`{' '.join(command[:3])}` failed in a worktree of the run's commit: {error}"
        )


def _fetch_recorded(tree: Path, root: Path, stage: str, recorded: Mapping[str, str]) -> None:
    """Put the stage's inputs with the recorded digests into the worktree.

    A run is logged before its ``dvc.lock`` is committed, so the lock that pins its inputs is its
    commit's or the checkout's. Reports are kept in git, everything else in DVC's cache.

    Raises:
        BadInputError: neither lock pins them, or they are gone.
    """
    lock = next((place for place in (tree, root) if _pins(place, stage, recorded)), None)
    if lock is None:
        raise BadInputError(
            f"The inputs of this run of {stage} are pinned neither by its commit nor by this "
            "checkout's dvc.lock; leave --stage-only out to recompute the stages above too."
        )
    if lock is root:
        shutil.copyfile(root / "dvc.lock", tree / "dvc.lock")
    paths = list(stage_inputs(lock, stage))
    reports = [path for path in paths if path.startswith("reports/")]
    for path in reports:
        if _md5(tree / path) != recorded[path] and _md5(root / path) == recorded[path]:
            shutil.copyfile(root / path, tree / path)
    cached = [path for path in paths if path not in reports]
    gone = try_command(tree, "dvc", "checkout", "--quiet", *cached) if cached else ""
    if gone or any(_md5(tree / path) != recorded[path] for path in reports):
        raise BadInputError(
            f"The inputs of this run of {stage} are no longer in DVC's cache or in reports/: "
            "`dvc pull` them, or leave --stage-only out."
        )


def _pins(root: Path, stage: str, recorded: Mapping[str, str]) -> bool:
    pinned = stage_inputs(root, stage)
    return bool(pinned) and all(recorded.get(path) == md5 for path, md5 in pinned.items())


def _md5(path: Path) -> str:
    """Return DVC's digest of a file."""
    if not path.is_file():
        return ""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _runs_teach(tree: Path, stage: str, stage_only: bool) -> bool:
    stages = list(pipeline_stages(tree))
    if stage_only or _TEACH not in stages:
        return stage == _TEACH
    return stage in stages[stages.index(_TEACH) :]


def _fetch_answers(tree: Path, root: Path) -> None:
    """Put the teachers' recorded answers into the worktree.

    Raises:
        BadInputError: they are not in the cache, and the panel has endpoints that cost money.
    """
    lock = tree / "dvc.lock"
    own = locked_stages(tree)
    for entry in _entries_of_answers(tree, root):
        text = yaml.safe_dump({"schema": "2.0", "stages": {**own, _TEACH: entry}})
        lock.write_text(text, encoding="utf-8")
        if not try_command(tree, "dvc", "checkout", "--quiet", _ANSWERS):
            return
    if _endpoints(tree):
        raise BadInputError(
            "The answers of this run's endpoints are not in DVC's cache, and endpoints are not "
            f"called again: `dvc pull {_ANSWERS}` where a remote has them."
        )


def _entries_of_answers(tree: Path, root: Path) -> list[dict[str, Any]]:
    """Return the entries of ``teach`` in both locks that pin answers, the better one first.

    It is the commit's where that was written by its code and settings, else the checkout's: a run
    is made before its lock is committed, and the cache only ever grows.
    """
    entries = [locked_stages(place).get(_TEACH, {}) for place in (tree, root)]
    pinning = [
        entry for entry in entries if any(out["path"] == _ANSWERS for out in entry.get("outs", []))
    ]
    stages = list(pipeline_stages(tree))
    until = stages[: stages.index(_TEACH) + 1]
    if len(pinning) > 1 and stale_stages(tree, until, dvc_status(tree, until)):
        return pinning[-1:]
    return pinning


def _endpoints(tree: Path) -> list[dict[str, Any]]:
    """Return the teachers of the worktree's panel that are called over a network."""
    name = str(_yaml(tree / "params.yaml").get(_TEACH, {}).get("panel", ""))
    packaged = tree / "src/rarealert/teachers/panels" / f"{name}.yaml"
    panel = _yaml(tree / name if name.endswith(".yaml") else packaged)
    return [one for one in panel.get("teachers", []) if one.get("kind") == "endpoint"]


def _yaml(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {} if path.is_file() else {}


def _metrics_of(tree: Path, stage: str) -> dict[str, float]:
    import mlflow

    record = json.loads((tree / "build" / stage / "run.json").read_text(encoding="utf-8"))
    client = mlflow.MlflowClient(f"sqlite:///{tree / 'mlruns' / 'mlflow.db'}")
    return dict(client.get_run(record["run_id"]).data.metrics)


def compare_metrics(
    first: Mapping[str, float], second: Mapping[str, float], tolerance: float
) -> dict[str, bool]:
    """Return metric → whether both runs have it and agree.

    Metrics that measure the machine are left out, and of answers only sums are compared.
    """
    first, second = _comparable(first), _comparable(second)
    return {
        name: name in first
        and name in second
        and math.isclose(first[name], second[name], rel_tol=0, abs_tol=tolerance)
        for name in sorted(first.keys() | second.keys())
    }


def _comparable(metrics: Mapping[str, float]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if name not in _OF_THE_CALLS and not any(part in name for part in _TIMINGS):
            found[_SUMMED.get(name, name)] = found.get(_SUMMED.get(name, name), 0.0) + value
    return found


def _verdict(stage: str, commit: str, found: Mapping[str, bool], tolerance: float) -> str:
    wrong = [name for name, agrees in found.items() if not agrees]
    if not found:
        raise RareAlertError(f"The run of {stage} logged no metric that could be compared.")
    if wrong:
        named = ", ".join(wrong[:5])
        raise RareAlertError(
            f"{len(wrong)} of {len(found)} metrics of {stage} differ by more than {tolerance:g} "
            f"from commit {commit[:10]}: {named}."
        )
    return f"{stage} of commit {commit[:10]}: all {len(found)} metrics agree within {tolerance:g}"
