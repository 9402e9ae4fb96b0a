"""A git worktree of some commit, and commands in it that know nothing of the checkout around.

What a reproduction reads, put into its worktree: data, recorded inputs, teachers' answers.

Answers of endpoints are bought once. They are taken from DVC's cache or not at all.

A run made again from its commit and its data: ``rarealert reproduce RUN``.

Everything is computed anew (``dvc repro --force``) in a git worktree with a tracking store of its
own; recorded answers of teachers are data and are taken from DVC's cache, and no endpoint is asked.
On request the run's own stage is made again alone, on the inputs of the digests that the run
recorded. Nothing in the checkout changes.
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
from rarealert.registry.workspace import stale_stages
from rarealert.tracking.lineage import ENDPOINTS_CLOSED, stage_inputs
from rarealert.tracking.sink import connect

_PLACES = ("MLFLOW_TRACKING", "MLFLOW_EXPERIMENT", "MLFLOW_RUN", "MLFLOW_REGISTRY")
"""Variables, some set by MLflow itself, that would lead the stages to another store."""


@contextmanager
def worktree(root: Path, commit: str) -> Iterator[Path]:
    """A worktree of ``commit`` of the repository at ``root``, removed at the end."""
    with TemporaryDirectory(prefix="rarealert-") as folder:
        tree = Path(folder) / "tree"
        run(root, "git", "worktree", "add", "--quiet", "--detach", str(tree), commit)
        try:
            yield tree
        finally:
            run(root, "git", "worktree", "remove", "--force", str(tree))


def failure(folder: Path, *command: str, without: Collection[str] = ()) -> str:
    """What a command says where it fails, empty where it does not.

    It runs in a process group of its own, which ends with this process: a stage that went on
    writing below a removed worktree would keep the machine busy for nothing. It asks no endpoint,
    finds the commands of this environment, and does not see the variables ``without``.
    """
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(_PLACES) and key not in without
    }
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=kept | {"PYTHONPATH": str(folder / "src"), ENDPOINTS_CLOSED: "1", "PATH": _path()},
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


def run(folder: Path, *command: str, without: Collection[str] = ()) -> None:
    """Run a command as ``failure`` does.

    Raises:
        RareAlertError: it fails; the sentence ends with the last line that it said.
    """
    said = failure(folder, *command, without=without)
    if said:
        raise RareAlertError(
            f"`{' '.join(command[:3])}` failed in a worktree of the run's commit: {said}"
        )


def _path() -> str:
    """``dvc`` and ``rarealert`` lie beside this Python, whether or not that is on the path."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


_ANSWERS = "build/teach/cache"
_TEACH = "teach"


def fill_data(tree: Path) -> None:
    """Data from the checkout's DVC cache, or made anew."""
    if failure(tree, "dvc", "checkout", "--quiet", "data.dvc"):
        run(tree, "rarealert", "data", "materialise")


def fill_recorded(tree: Path, root: Path, stage: str, recorded: Mapping[str, str]) -> None:
    """The stage's inputs of the recorded digests: from DVC's cache, or reports kept in git.

    A run is logged before its ``dvc.lock`` is committed, so the lock that pins what it read is its
    commit's or the checkout's.

    Raises:
        BadInputError: neither lock pins them, or they are gone.
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
    gone = failure(tree, "dvc", "checkout", "--quiet", *cached) if cached else ""
    if gone or any(_md5(tree / path) != recorded[path] for path in reports):
        raise BadInputError(
            f"What this run of {stage} read is no longer in DVC's cache or in reports/: `dvc pull` "
            "it, or leave --stage-only out."
        )


def _pins(root: Path, stage: str, recorded: Mapping[str, str]) -> bool:
    pinned = stage_inputs(root, stage)
    return bool(pinned) and all(recorded.get(one.path) == one.md5 for one in pinned)


def fill_answers(tree: Path, root: Path) -> None:
    """What the teachers have said, before the stage that would ask them is made again.

    The lock is the commit's where it was written by this code and these settings, else the
    checkout's: a run is made before its lock is committed, and the cache only ever grows.

    Raises:
        BadInputError: no answers are found, and the panel has endpoints to be paid again.
    """
    kept = _yaml(tree / "dvc.lock")
    for lock in _likely(tree, root):
        stages = {**kept.get("stages", {}), _TEACH: lock["stages"][_TEACH]}
        text = yaml.safe_dump({"schema": "2.0", **kept, "stages": stages})
        (tree / "dvc.lock").write_text(text, encoding="utf-8")
        if not failure(tree, "dvc", "checkout", "--quiet", _ANSWERS):
            return
    if endpoints(tree):
        raise BadInputError(
            "What the endpoints of this run's panel said is not in DVC's cache here, and nobody is "
            f"asked again: `dvc pull {_ANSWERS}` where a remote holds it."
        )


def _likely(tree: Path, root: Path) -> list[dict[str, Any]]:
    """The locks whose answers may be those of the commit, the likelier one first."""
    own, other = _yaml(tree / "dvc.lock"), _yaml(root / "dvc.lock")
    stages = list(_yaml(tree / "dvc.yaml").get("stages", {}))
    until = stages[: stages.index(_TEACH) + 1]
    pinning = [
        lock
        for lock in (own, other)
        if any(
            out["path"] == _ANSWERS
            for out in lock.get("stages", {}).get(_TEACH, {}).get("outs", [])
        )
    ]
    stale = any(line.split(":")[0] in until for line in stale_stages(tree, ""))
    return pinning[-1:] if stale else pinning


def is_taught(tree: Path, stage: str) -> bool:
    """Whether making ``stage`` again with all above it runs ``teach``."""
    stages = list(_yaml(tree / "dvc.yaml").get("stages", {}))
    return _TEACH in stages and stage in stages[stages.index(_TEACH) :]


def endpoints(tree: Path) -> list[dict[str, Any]]:
    """The entries of the tree's panel that are asked over a network, as its file has them."""
    name = str(_yaml(tree / "params.yaml").get(_TEACH, {}).get("panel", ""))
    packaged = tree / "src/rarealert/teachers/panels" / f"{name}.yaml"
    panel = _yaml(tree / name if name.endswith(".yaml") else packaged)
    return [one for one in panel.get("teachers", []) if one.get("kind") == "endpoint"]


def keys(tree: Path) -> set[str]:
    """The variables that hold the keys of those endpoints."""
    return {one["key_variable"] for one in endpoints(tree) if one.get("key_variable")}


def _yaml(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {} if path.is_file() else {}


def _md5(path: Path) -> str:
    """DVC's digest of a file."""
    if not path.is_file():
        return ""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


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
