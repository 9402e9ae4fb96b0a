"""Runs and versions rebuilt after the tracking database was lost: ``rarealert track sync``.

Versions, aliases and the log of promotions come from the copy beside a SQLite database. Runs that
the copy lacks come from DVC's files: parameters and digests from ``dvc.lock``, metrics and pages
from ``reports/``.
"""

import json
import math
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rarealert.errors import BadInputError
from rarealert.files import sha256_of_file
from rarealert.paths import Paths
from rarealert.tracking.backup import bring_back
from rarealert.tracking.items import Artifact, Metric
from rarealert.tracking.lineage import flat, locked_stages, pipeline_stages
from rarealert.tracking.sink import EXPERIMENT, Sink, connect

RESTORED = "restored.from"
"""Tag of a restored run: id of the run that the stage really made."""


def sync_tracking() -> str:
    """Rebuild what the store has lost; return one line about versions and one about runs.

    Raises:
        BadInputError: there is no ``dvc.lock``, so no stage has finished here.
    """
    paths = Paths.here()
    locked = locked_stages(paths.root)
    if not locked:
        raise BadInputError(f"{paths.root / 'dvc.lock'} is missing; run dvc repro first.")
    connect(paths.tracking_uri)
    lines = []
    if not _has_versions() and bring_back(paths.tracking_uri):
        connect(paths.tracking_uri)
        lines.append("restored versions, aliases and their log from the copy of the database")
    lost = {
        stage: run
        for stage in pipeline_stages(paths.root)
        if stage in locked and (run := _run_id(paths, stage)) and not _is_known(run)
    }
    if lost:
        _restore_runs(paths, lost, locked)
        lines.append(f"restored {len(lost)} runs from dvc.lock and reports/: {', '.join(lost)}")
    else:
        lines.append("tracking holds a run of every finished stage")
    if not _has_versions():
        lines.append("no version is registered; run dvc repro -f register")
    return "\n".join(lines)


def _has_versions() -> bool:
    import mlflow

    return bool(mlflow.MlflowClient().search_registered_models(max_results=1))


def _run_id(paths: Paths, stage: str) -> str | None:
    record = paths.build(stage) / "run.json"
    if not record.is_file():
        return None
    return str(json.loads(record.read_text(encoding="utf-8"))["run_id"])


def _is_known(run_id: str) -> bool:
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        mlflow.get_run(run_id)
    except MlflowException:
        client = mlflow.MlflowClient()
        experiment = mlflow.set_experiment(EXPERIMENT).experiment_id
        return bool(client.search_runs([experiment], f"tags.\"{RESTORED}\" = '{run_id}'"))
    return True


def _restore_runs(paths: Paths, lost: Mapping[str, str], locked: Mapping[str, Any]) -> None:
    """Log a run for each lost one, below one parent."""
    import mlflow

    lock = sha256_of_file(paths.root / "dvc.lock")
    tags = {
        "git.commit": _commit(paths.root),
        "dvc.lock.sha256": lock,
        "pipeline.id": f"restored-{lock[:12]}",
    }
    with mlflow.start_run(run_name="restored pipeline", tags=tags):
        for stage, run in lost.items():
            own = {**tags, "stage": stage, RESTORED: run}
            with mlflow.start_run(run_name=stage, nested=True, tags=own):
                _log_stage(paths, stage, locked[stage])


def _commit(root: Path) -> str:
    """Return the commit that last changed ``dvc.lock``: the runs are of that commit or older."""
    command = ["git", "-C", str(root), "log", "-1", "--format=%H", "--", "dvc.lock"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _log_stage(paths: Paths, stage: str, locked: Mapping[str, Any]) -> None:
    import mlflow

    for file in locked.get("params", {}).values():
        mlflow.log_params(flat("", file))
    data = [dep for dep in locked.get("deps", []) if not dep["path"].startswith("src/")]
    sink = Sink({dep["path"]: dep["md5"] for dep in data if "md5" in dep})
    for out in pipeline_stages(paths.root)[stage].get("metrics", []):
        file = paths.root / (next(iter(out)) if isinstance(out, dict) else out)
        if file.is_file():
            for name, value in flat("", json.loads(file.read_text(encoding="utf-8"))).items():
                if isinstance(value, (int, float)) and math.isfinite(value):
                    sink.log(Metric(name.replace(":", "."), float(value)))
    if paths.report(stage).is_dir():
        sink.log(Artifact(paths.report(stage)))
    sink.finish()
