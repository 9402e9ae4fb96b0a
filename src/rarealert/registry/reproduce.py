"""A run made again from its commit and its data: ``rarealert reproduce RUN``.

Everything is computed anew (``dvc repro --force``) in a git worktree with a tracking store of its
own; recorded answers of teachers are data and are taken from DVC's cache, and no endpoint is asked.
On request the run's own stage is made again alone, on the inputs of the digests that the run
recorded. Nothing in the checkout changes.
"""

import json
import math
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rarealert.errors import BadInputError, RareAlertError
from rarealert.paths import Paths
from rarealert.registry.refill import fill_answers, fill_data, fill_recorded, is_taught, keys
from rarealert.registry.worktree import run, worktree
from rarealert.tracking.sink import connect

_TIMINGS = ("second", "latency")
"""Parts of metric names that measure the machine."""

_OF_THE_CALLS = ("cases_that_instruct_the_model", "cache_lines_set_aside")
"""What ``teach`` counts of new answers and of old files: nothing that a later run finds again."""

_SUMMED = {
    "answers_answered": "answers_had",
    "answers_cached": "answers_had",
    "answers_failed": "answers_lacking",
    "answers_not_asked": "answers_lacking",
}
"""Which answers were new is a matter of the day, how many there are is a result."""


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
    first = _find(run_id, paths.tracking_uri)
    stage, commit = first.data.tags["stage"], first.data.tags["git.commit"]
    with _ending_on_sigterm(), worktree(paths.root, commit) as tree:
        run(tree, "dvc", "config", "--local", "cache.dir", str(paths.root / ".dvc/cache"))
        if stage_only:
            fill_recorded(tree, paths.root, stage, _inputs_of(first))
        else:
            fill_data(tree)
        if stage == "teach" if stage_only else is_taught(tree, stage):
            fill_answers(tree, paths.root)
        alone = ["--single-item"] if stage_only else []
        run(tree, "dvc", "repro", "--quiet", "--force", *alone, stage, without=keys(tree))
        made = _metrics_of(tree, stage)
    return _verdict(stage, commit, compare_metrics(first.data.metrics, made, tolerance), tolerance)


def _find(run_id: str, tracking_uri: str) -> Any:
    import mlflow
    from mlflow.exceptions import MlflowException

    connect(tracking_uri)
    try:
        run = mlflow.get_run(run_id)
    except MlflowException as error:
        raise BadInputError(
            f"{run_id} is no run of this tracking store; its runs and their ids: make ui."
        ) from error
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
    """Metric → whether both runs have it and agree.

    Those that measure the machine are left out, and of answers only sums are compared.
    """
    first, second = _comparable(first), _comparable(second)
    names = sorted(first.keys() | second.keys())
    return {
        name: name in first
        and name in second
        and math.isclose(first[name], second[name], rel_tol=0, abs_tol=tolerance)
        for name in names
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


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """A scheduler's SIGTERM ends the block like an error, so that the worktree is removed."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _metrics_of(tree: Path, stage: str) -> dict[str, float]:
    import mlflow

    record = json.loads((tree / "build" / stage / "run.json").read_text(encoding="utf-8"))
    client = mlflow.MlflowClient(f"sqlite:///{tree / 'mlruns' / 'mlflow.db'}")
    return dict(client.get_run(record["run_id"]).data.metrics)
