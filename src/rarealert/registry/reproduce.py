"""A run made again from its commit and its data: ``rarealert reproduce RUN``.

Everything is computed anew (``dvc repro --force``) in a git worktree with a tracking store of its
own; recorded answers of teachers are data and are taken from DVC's cache. Nothing in the checkout
changes.
"""

import json
import math
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from rarealert.errors import BadInputError, RareAlertError
from rarealert.paths import Paths
from rarealert.tracking.sink import connect

_TIMINGS = ("second", "latency")
"""Parts of metric names that measure the machine."""

_PLACES = ("MLFLOW_TRACKING", "MLFLOW_EXPERIMENT", "MLFLOW_RUN")
"""Variables, some set by MLflow itself, that would lead the stages to another store."""

_ANSWERS = "build/teach/cache"


def reproduce(run_id: str, tolerance: float) -> str:
    """Make the stage of ``run_id`` and all above it again; the figures that were compared.

    ``tolerance`` is the absolute difference that each metric may show.

    Raises:
        BadInputError: there is no such run, or it can't be made again: its tree was not committed.
        RareAlertError: a stage fails, or a figure differs by more than the tolerance.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    paths = Paths.here()
    connect(paths.tracking_uri)
    try:
        run = mlflow.get_run(run_id)
    except MlflowException as error:
        raise BadInputError(f"{run_id} is no run of {paths.tracking_uri}.") from error
    stage, commit = run.data.tags.get("stage"), run.data.tags.get("git.commit", "unknown")
    if stage is None or commit == "unknown" or run.data.tags.get("git.dirty") != "false":
        raise BadInputError(
            f"Run {run_id} can't be made again: it is no stage of a pipeline, or its code was not "
            "committed."
        )
    with _worktree(paths.root, commit) as tree:
        _fill(tree, paths.root)
        _run(tree, "dvc", "repro", "--quiet", "--force", stage)
        made = _metrics_of(tree, stage)
    return _verdict(stage, commit, compare_metrics(run.data.metrics, made, tolerance), tolerance)


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


def _fill(tree: Path, root: Path) -> None:
    """Data and recorded answers from the checkout's DVC cache, or data made anew."""
    _run(tree, "dvc", "config", "--local", "cache.dir", str(root / ".dvc/cache"))
    if _failure(tree, "dvc", "checkout", "--quiet", "data.dvc"):
        _run(tree, "rarealert", "data", "materialise")
    _failure(tree, "dvc", "checkout", "--quiet", _ANSWERS)


def _metrics_of(tree: Path, stage: str) -> dict[str, float]:
    import mlflow

    record = json.loads((tree / "build" / stage / "run.json").read_text(encoding="utf-8"))
    client = mlflow.MlflowClient(f"sqlite:///{tree / 'mlruns' / 'mlflow.db'}")
    return dict(client.get_run(record["run_id"]).data.metrics)


def _failure(folder: Path, *command: str) -> str:
    """What a command says where it fails, empty where it does not."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(_PLACES)}
    environment = kept | {"PYTHONPATH": str(folder / "src")}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    said = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
    return said[-1] if done.returncode else ""


def _run(folder: Path, *command: str) -> None:
    failure = _failure(folder, *command)
    if failure:
        raise RareAlertError(
            f"`{' '.join(command[:3])}` failed in a worktree of the run's commit: {failure}"
        )
