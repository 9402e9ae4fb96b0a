"""Tracking rebuilt from DVC's files: ``rarealert track sync``.

A lost database costs no result: parameters and digests stand in ``dvc.lock``, metrics and pages in
``reports/``. Each stage whose run the store does not know gets one again, below one parent.
"""

import json
import math
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from rarealert.errors import BadInputError
from rarealert.paths import Paths
from rarealert.registry.digests import file_sha256
from rarealert.registry.restore_versions import restore_versions
from rarealert.tracking.items import Artifact, Metric
from rarealert.tracking.sink import EXPERIMENT, Sink, connect

RESTORED = "restored.from"
"""Tag of a restored run: the id of the run that the stage really made."""


def sync_tracking() -> str:
    """Give every finished stage that the store does not know a run, and versions back.

    Returns what was done, a line for runs and one for each version or alias.

    Raises:
        BadInputError: there is no ``dvc.lock``, so no stage has finished here.
    """
    paths = Paths.here()
    lock = paths.root / "dvc.lock"
    if not lock.is_file():
        raise BadInputError(f"{lock} is missing; run dvc repro first.")
    entries = _yaml(lock).get("stages", {})
    stages = _yaml(paths.root / "dvc.yaml").get("stages", {})
    connect(paths.tracking_uri)
    lost = {
        stage: run
        for stage in stages
        if stage in entries and (run := _run_id(paths, stage)) and not _known(run)
    }
    said = "tracking holds a run of every finished stage"
    if lost:
        _restore(paths, lost, entries, stages)
        said = f"restored {len(lost)} runs from dvc.lock and reports/: {', '.join(lost)}"
    return "\n".join([said, *restore_versions(paths)])


def _restore(
    paths: Paths, lost: dict[str, str], entries: dict[str, Any], stages: dict[str, Any]
) -> None:
    import mlflow

    tags = {
        "git.commit": _commit(paths.root),
        "dvc.lock.sha256": file_sha256(paths.root / "dvc.lock"),
        "pipeline.id": f"restored-{file_sha256(paths.root / 'dvc.lock')[:12]}",
    }
    with mlflow.start_run(run_name="restored pipeline", tags=tags):
        for stage, run in lost.items():
            own = {**tags, "stage": stage, RESTORED: run}
            with mlflow.start_run(run_name=stage, nested=True, tags=own):
                _refill(paths, stage, entries[stage], stages[stage])


def _refill(paths: Paths, stage: str, entry: dict[str, Any], said: dict[str, Any]) -> None:
    import mlflow

    for file in entry.get("params", {}).values():
        mlflow.log_params({name: value for key in file for name, value in _leaves(key, file[key])})
    data = [dep for dep in entry.get("deps", []) if not dep["path"].startswith("src/")]
    sink = Sink({dep["path"]: dep["md5"] for dep in data if "md5" in dep})
    for out in said.get("metrics", []):
        file = paths.root / (next(iter(out)) if isinstance(out, dict) else out)
        if file.is_file():
            for metric in _metrics(json.loads(file.read_text(encoding="utf-8"))):
                sink.log(metric)
    if paths.report(stage).is_dir():
        sink.log(Artifact(paths.report(stage)))
    sink.finish()


def _metrics(held: Any) -> Iterator[Metric]:
    for name, value in _leaves("", held):
        if isinstance(value, (int, float)) and math.isfinite(value):
            yield Metric(name.replace(":", "."), float(value))


def _leaves(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(f"{prefix}.{name}" if prefix else str(name), inner)
    elif not isinstance(value, list) or prefix:
        yield prefix, value


def _run_id(paths: Paths, stage: str) -> str | None:
    record = paths.build(stage) / "run.json"
    if not record.is_file():
        return None
    return str(json.loads(record.read_text(encoding="utf-8"))["run_id"])


def _known(run_id: str) -> bool:
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        mlflow.get_run(run_id)
    except MlflowException:
        client = mlflow.MlflowClient()
        experiment = mlflow.set_experiment(EXPERIMENT).experiment_id
        return bool(client.search_runs([experiment], f"tags.\"{RESTORED}\" = '{run_id}'"))
    return True


def _commit(root: Path) -> str:
    """The commit that last changed ``dvc.lock``: the runs are of that commit or older."""
    command = ["git", "-C", str(root), "log", "-1", "--format=%H", "--", "dvc.lock"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _yaml(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {} if path.is_file() else {}
