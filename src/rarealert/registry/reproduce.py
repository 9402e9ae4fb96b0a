"""A run made again from its commit and its data: ``rarealert reproduce RUN``.

Everything is computed anew (``dvc repro --force``) in a git worktree with a tracking store of its
own; recorded answers of teachers are data and are taken from DVC's cache. On request the run's own
stage is made again alone, on the inputs of the digests that the run recorded. Nothing in the
checkout changes.
"""

import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rarealert.errors import BadInputError, RareAlertError
from rarealert.paths import Paths
from rarealert.tracking.lineage import stage_inputs
from rarealert.tracking.sink import connect

_TIMINGS = ("second", "latency")
"""Parts of metric names that measure the machine."""

_PLACES = ("MLFLOW_TRACKING", "MLFLOW_EXPERIMENT", "MLFLOW_RUN")
"""Variables, some set by MLflow itself, that would lead the stages to another store."""

_ANSWERS = "build/teach/cache"


def reproduce(run_id: str, tolerance: float, stage_only: bool = False) -> str:
    """Make the stage of ``run_id`` and all above it again; the figures that were compared.

    ``tolerance`` is the absolute difference that each metric may show. With ``stage_only`` the
    stage alone is computed, on the inputs that the run recorded.

    Raises:
        BadInputError: there is no such run, or it can't be made again: its tree was not committed,
            or what it read is no longer pinned or cached.
        RareAlertError: a stage fails, or a figure differs by more than the tolerance.
    """
    paths = Paths.here()
    run = _find(run_id, paths.tracking_uri)
    stage, commit = run.data.tags["stage"], run.data.tags["git.commit"]
    with _ending_on_sigterm(), _worktree(paths.root, commit) as tree:
        _run(tree, "dvc", "config", "--local", "cache.dir", str(paths.root / ".dvc/cache"))
        if stage_only:
            _fill_recorded(tree, paths.root, stage, _inputs_of(run))
            _run(tree, "dvc", "repro", "--quiet", "--force", "--single-item", stage)
        else:
            _fill(tree)
            _run(tree, "dvc", "repro", "--quiet", "--force", stage)
        made = _metrics_of(tree, stage)
    return _verdict(stage, commit, compare_metrics(run.data.metrics, made, tolerance), tolerance)


def _find(run_id: str, tracking_uri: str) -> Any:
    import mlflow
    from mlflow.exceptions import MlflowException

    connect(tracking_uri)
    try:
        run = mlflow.get_run(run_id)
    except MlflowException as error:
        raise BadInputError(f"{run_id} is no run of {tracking_uri}.") from error
    tags = run.data.tags
    if "stage" not in tags or tags.get("git.commit", "unknown") == "unknown":
        raise BadInputError(
            f"Run {run_id} can't be made again: it is no stage of a committed tree."
        )
    if tags.get("git.dirty") != "false":
        raise BadInputError(f"Run {run_id} can't be made again: its code was not committed.")
    return run


def _inputs_of(run: Any) -> dict[str, str]:
    """Path → DVC's MD5 of what the run read; its sources are the paths."""
    found = (one.dataset for one in run.inputs.dataset_inputs)
    return {json.loads(one.source)["uri"]: one.digest for one in found}


def compare_metrics(
    first: Mapping[str, float], second: Mapping[str, float], tolerance: float
) -> dict[str, bool]:
    """Metric → whether both runs have it and agree; those that measure the machine are left out."""
    names = sorted(
        name for name in first.keys() | second.keys() if not any(part in name for part in _TIMINGS)
    )
    return {
        name: name in first
        and name in second
        and math.isclose(first[name], second[name], rel_tol=0, abs_tol=tolerance)
        for name in names
    }


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


@contextmanager
def _worktree(root: Path, commit: str) -> Iterator[Path]:
    with TemporaryDirectory(prefix="rarealert-") as folder:
        tree = Path(folder) / "tree"
        _run(root, "git", "worktree", "add", "--quiet", "--detach", str(tree), commit)
        try:
            yield tree
        finally:
            _run(root, "git", "worktree", "remove", "--force", str(tree))


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """A scheduler's SIGTERM ends the block like an error, so that the worktree is removed."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _fill(tree: Path) -> None:
    """Data and recorded answers from the checkout's DVC cache, or data made anew."""
    if _failure(tree, "dvc", "checkout", "--quiet", "data.dvc"):
        _run(tree, "rarealert", "data", "materialise")
    _failure(tree, "dvc", "checkout", "--quiet", _ANSWERS)


def _fill_recorded(tree: Path, root: Path, stage: str, recorded: Mapping[str, str]) -> None:
    """The stage's inputs of the recorded digests: from DVC's cache, or reports kept in git.

    A run is logged before its ``dvc.lock`` is committed, so the lock that pins what it read is its
    commit's or the checkout's.
    """
    lock = next((place for place in (tree, root) if _pins(place, stage, recorded)), None)
    if lock is None:
        raise BadInputError(
            f"What this run of {stage} read is pinned neither by its commit nor by this "
            "checkout's dvc.lock: leave --stage-only out, and all above it is made again too."
        )
    if lock is root:
        shutil.copyfile(root / "dvc.lock", tree / "dvc.lock")
    wanted = [one.path for one in stage_inputs(lock, stage)]
    reports = [path for path in wanted if path.startswith("reports/")]
    for path in reports:
        if _md5(tree / path) != recorded[path] and _md5(root / path) == recorded[path]:
            shutil.copyfile(root / path, tree / path)
    cached = [path for path in wanted if path not in reports]
    gone = _failure(tree, "dvc", "checkout", "--quiet", *cached) if cached else ""
    if gone or any(_md5(tree / path) != recorded[path] for path in reports):
        raise BadInputError(
            f"What this run of {stage} read is no longer in DVC's cache or in reports/: `dvc pull` "
            "it, or leave --stage-only out."
        )


def _pins(root: Path, stage: str, recorded: Mapping[str, str]) -> bool:
    pinned = stage_inputs(root, stage)
    return bool(pinned) and all(recorded.get(one.path) == one.md5 for one in pinned)


def _md5(path: Path) -> str:
    """DVC's digest of a file."""
    if not path.is_file():
        return ""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _metrics_of(tree: Path, stage: str) -> dict[str, float]:
    import mlflow

    record = json.loads((tree / "build" / stage / "run.json").read_text(encoding="utf-8"))
    client = mlflow.MlflowClient(f"sqlite:///{tree / 'mlruns' / 'mlflow.db'}")
    return dict(client.get_run(record["run_id"]).data.metrics)


def _failure(folder: Path, *command: str) -> str:
    """What a command says where it fails, empty where it does not.

    It runs in a process group of its own, which ends with this process: a stage that went on
    writing below a removed worktree would keep the machine busy for nothing.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith(_PLACES)}
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=kept | {"PYTHONPATH": str(folder / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    last = said.strip().splitlines() or [f"exit code {process.returncode}"]
    return last[-1] if process.returncode else ""


def _run(folder: Path, *command: str) -> None:
    failure = _failure(folder, *command)
    if failure:
        raise RareAlertError(
            f"`{' '.join(command[:3])}` failed in a worktree of the run's commit: {failure}"
        )
