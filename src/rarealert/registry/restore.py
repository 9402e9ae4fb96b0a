"""Tracking rebuilt from DVC's files: ``rarealert track sync``.

A lost database costs no result: parameters and digests stand in ``dvc.lock``, metrics and pages in
``reports/``. Each stage whose run the store does not know gets one again, below one parent.

Registered versions rebuilt from what a lost database left on disk: ``rarealert track sync``.

The models' files and the runs that judged them lie below ``mlruns/artifacts``, the moves of aliases
beside the database (``ledger.read_copy``), the newest judgement in ``reports/register``. A version
whose files are gone keeps its number, so that no other takes it, and is named.
"""

import json
import math
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rarealert.errors import BadInputError
from rarealert.paths import Paths
from rarealert.registry.gates.approval import EVIDENCE, JUDGED_RUN, JUDGEMENT
from rarealert.registry.ledger import BrokenLedgerError, read_copy, read_ledger, write_back
from rarealert.registry.promotion import point, standing
from rarealert.registry.versions import (
    CHALLENGER,
    FAILED_GATES,
    IDENTITY,
    SCORED,
    file_sha256,
    versions,
)
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


_MODEL_FILE = "MLmodel"
_SQLITE = "sqlite:///"
_GONE = "gone"  # source of a version that only keeps its number
_UNFINISHED = "restoring"  # tag of a model whose restoration was begun


@dataclass(frozen=True)
class _Left:
    """A version as the disk holds it; ``model`` is ``None`` where its files are gone."""

    number: int
    judgement: Mapping[str, Any]
    run: Path
    model: Path | None


def restore_versions(paths: Paths) -> list[str]:
    """Give a registry that lost the model its versions and aliases; what came back, in sentences.

    A model that the registry knows is left alone, unless a killed restoration left it half-way.

    Raises:
        BadInputError: ``gates.json`` is damaged.
    """
    import mlflow

    name, store = _model_name(paths), mlflow.get_tracking_uri()
    if name is None or not store.startswith(_SQLITE) or not _lost(name):
        return []
    artifacts = Path(store.removeprefix(_SQLITE)).parent / "artifacts"
    left = {each.number: each for each in _left(artifacts, name)}
    if not any(each.model for each in left.values()):
        return [f"no version of {name} is left on disk; run dvc repro -f register"]
    said = [*_register(name, left), *_aliases(name, left)]
    mlflow.MlflowClient().delete_registered_model_tag(name, _UNFINISHED)
    return said


def _lost(name: str) -> bool:
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return _UNFINISHED in mlflow.MlflowClient().get_registered_model(name).tags
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return True


def _model_name(paths: Paths) -> str | None:
    """The model that the last judgement was of; ``None`` where none was made."""
    file = paths.report("register") / "gates.json"
    if not file.is_file():
        return None
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["model_name"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"{file} is damaged; restore it with git checkout.") from error


def _left(artifacts: Path, name: str) -> Iterator[_Left]:
    """Every version that a judgement names, with the newest of its judgements."""
    import yaml

    models: dict[tuple[str, ...], Path] = {}
    for file in sorted(artifacts.glob(f"models/*/artifacts/{_MODEL_FILE}")):
        held = yaml.safe_load(file.read_text(encoding="utf-8")).get("metadata") or {}
        models[tuple(str(held.get(key)) for key in IDENTITY)] = file.parent
    judged = sorted(
        artifacts.glob(f"*/artifacts/{JUDGEMENT}"), key=lambda file: file.stat().st_mtime
    )
    for file in judged:
        judgement = json.loads(file.read_text(encoding="utf-8"))
        if judgement.get("model_name") != name:
            continue
        key = tuple(str(judgement["identity"].get(part)) for part in IDENTITY)
        yield _Left(int(judgement["version"]), judgement, file.parent, models.get(key))


def _register(name: str, left: Mapping[int, _Left]) -> Iterator[str]:
    import mlflow
    from mlflow.exceptions import MlflowException

    client = mlflow.MlflowClient()
    try:
        client.create_registered_model(name, tags={_UNFINISHED: "true"})
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    known = {int(version.version) for version in versions(name)}
    for number in sorted(set(range(1, max(left) + 1)) - known):
        found = left.get(number)
        if found is None or found.model is None:
            client.create_model_version(name, _GONE, description="Its files are not on disk.")
            yield f"version {number} of {name} is gone: its files are not on disk"
        else:
            _bring_back(name, found, found.model)
            yield f"version {number} of {name} is back"


def _bring_back(name: str, found: _Left, files: Path) -> None:
    """Log the model's files and its judgement again, and register it under its number."""
    import mlflow
    from mlflow.models import Model

    failed = [gate["code"] for gate in found.judgement["gates"] if not gate["passed"]]
    with mlflow.start_run(run_name="restored version", tags={"stage": "register"}) as run:
        for kept in (JUDGEMENT, SCORED):
            if (found.run / kept).is_file():
                mlflow.log_artifact(str(found.run / kept))
        passed = len(found.judgement["gates"]) - len(failed)
        mlflow.log_metrics({"gates.failed": len(failed), "gates.passed": passed})
    client = mlflow.MlflowClient()
    logged = client.create_logged_model(run.info.experiment_id, "model", run.info.run_id)
    target = Path(logged.artifact_location.removeprefix("file://"))
    shutil.copytree(files, target)
    description = Model.load(str(target))
    description.model_id = description.model_uuid = logged.model_id
    description.run_id = run.info.run_id
    description.save(str(target / _MODEL_FILE))
    client.finalize_logged_model(logged.model_id, "READY")
    tags = {
        **{key: str(found.judgement["identity"][key]) for key in IDENTITY},
        EVIDENCE: str(found.judgement["evidence"]),
        JUDGED_RUN: run.info.run_id,
        FAILED_GATES: ",".join(failed) or "none",
    }
    client.create_model_version(name, f"models:/{logged.model_id}", tags=tags)


def _aliases(name: str, left: Mapping[int, _Left]) -> Iterator[str]:
    """Aliases as the log's copy says; without one nobody is made champion unasked."""
    import mlflow

    client = mlflow.MlflowClient()
    there = {str(number) for number, found in left.items() if found.model is not None}
    if str(max(left)) in there:
        client.set_registered_model_alias(name, CHALLENGER, str(max(left)))
    try:
        chain = read_copy(name)
    except BrokenLedgerError as error:
        yield str(error)
        return
    champion, _ = standing(chain)
    if not chain:
        yield f"no copy of the log of {name} is left: nobody is champion until one is promoted"
    elif champion and champion not in there:
        yield f"the champion, version {champion}, is gone: promote one that is back"
    else:
        write_back(chain[len(read_ledger(name)) :])
        point(name, chain)
        yield f"{len(chain)} moves are back in the log, champion: version {champion or 'none'}"
