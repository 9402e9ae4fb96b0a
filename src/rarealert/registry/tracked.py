"""What MLflow holds of a judged version: its files, its figures, its risks case by case."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rarealert.registry.gates.approval import EVIDENCE, JUDGED_RUN, JUDGEMENT
from rarealert.registry.judged import Champion
from rarealert.registry.versions import (
    ADAPTER,
    ADAPTER_CARD,
    CHAMPION,
    SCORED,
    Registered,
    aliased,
    tag_version,
)

_AUROC = "auroc"
_TAGGED = (_AUROC, "auprc", "brier", "ece", "calibration_slope", "sensitivity_at_95_specificity")
"""The few figures that the registry's list of versions has room for; the rest is in the run."""


@contextmanager
def tracked_folders(builds: Path, version: Registered) -> Iterator[dict[str, Path]]:
    """The artifact folders of this run, of the runs that made the build, and of the version.

    ``builds`` holds ``<stage>/run.json`` of each stage. Artifacts on a server are fetched to a
    temporary folder; runs that this store does not know have nothing in it to search.
    """
    import mlflow

    active = mlflow.active_run()
    places = {path.parent.name: _artifacts(_run_id(path)) for path in builds.glob("*/run.json")}
    if active is not None:
        places["register"] = _artifacts(active.info.run_id)
    places["model"] = version.uri
    with TemporaryDirectory(prefix="rarealert-") as folder:
        found = {
            shown: _local(place, Path(folder) / shown)
            for shown, place in places.items()
            if place is not None
        }
        yield {shown: place for shown, place in found.items() if place is not None}


def log_judgement(
    version: Registered,
    judgement: Mapping[str, Any],
    scored: Mapping[str, Any],
    figures: Mapping[str, float],
) -> None:
    """Keep what a promotion asks for and what a later challenger is compared with.

    ``judgement`` (every gate's verdict) and ``scored`` (the lock of the test part and the risk
    of each of its cases) go to the active run, the foremost ``figures`` to the version's tags.
    """
    import mlflow

    failed = sum(not gate["passed"] for gate in judgement["gates"])
    mlflow.log_dict(dict(judgement), JUDGEMENT)
    mlflow.log_dict(dict(scored), SCORED)
    mlflow.log_metrics({"gates.failed": failed, "gates.passed": len(judgement["gates"]) - failed})
    active = mlflow.active_run()
    assert active is not None, "logging has opened a run"
    noted = {EVIDENCE: str(judgement["evidence"]), JUDGED_RUN: active.info.run_id}
    tag_version(version, {**noted, **_rounded(figures)})


def read_champion(challenger: Registered, lock: str) -> Champion | None:
    """The champion with its risks, if it was judged on the test part with this lock."""
    held = aliased(challenger.name, CHAMPION)
    if held is None:
        return None
    auroc = held.tags.get(_AUROC)
    return Champion(
        version=str(held.version),
        same_as_challenger=str(held.version) == challenger.version,
        risks=_risks(held.tags.get(JUDGED_RUN), lock),
        auroc=None if auroc is None else float(auroc),
    )


def attach(version: Registered, description: str, card: Path) -> None:
    """Describe the version, and lay the card beside the model's files and beside its adapter's."""
    import mlflow

    client = mlflow.MlflowClient()
    client.update_model_version(version.name, version.version, description)
    logged = model_id(version)
    if logged is None:
        return
    client.log_model_artifact(logged, str(card))
    with TemporaryDirectory(prefix="rarealert-") as folder:
        copy = Path(folder) / ADAPTER_CARD
        copy.write_bytes(card.read_bytes())
        client.log_model_artifact(logged, str(copy), f"artifacts/{ADAPTER}")


def model_id(version: Registered) -> str | None:
    """The logged model behind a version; the SQL registry keeps it in the source alone."""
    import mlflow

    held = mlflow.MlflowClient().get_model_version(version.name, version.version)
    source = str(held.source)
    return source.removeprefix("models:/") if source.startswith("models:/m-") else None


def _risks(run_id: str | None, lock: str) -> dict[str, float]:
    import mlflow
    from mlflow.exceptions import MlflowException

    if run_id is None:
        return {}
    try:
        held: dict[str, Any] = mlflow.artifacts.load_dict(f"runs:/{run_id}/{SCORED}")
    except (MlflowException, OSError):  # the run was deleted; the AUROC in the tags remains
        return {}
    return dict(held["risks"]) if held["test_lock"] == lock else {}


def _rounded(figures: Mapping[str, float]) -> dict[str, str]:
    return {key: f"{figures[key]:.4f}" for key in _TAGGED if key in figures}


def _run_id(record: Path) -> str:
    run_id: str = json.loads(record.read_text(encoding="utf-8"))["run_id"]
    return run_id


def _artifacts(run_id: str) -> str | None:
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return str(mlflow.get_run(run_id).info.artifact_uri)
    except MlflowException:
        return None


def _local(place: str, target: Path) -> Path | None:
    import mlflow
    from mlflow.exceptions import MlflowException

    if place.startswith("file:"):
        from urllib.parse import unquote, urlparse

        folder = Path(unquote(urlparse(place).path))
        return folder if folder.is_dir() else None
    target.mkdir(parents=True)
    try:
        return Path(mlflow.artifacts.download_artifacts(place, dst_path=str(target)))
    except (MlflowException, OSError):
        return None
