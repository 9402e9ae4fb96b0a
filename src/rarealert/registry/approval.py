"""Collects what the registry holds of a version, for the gates at the door."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rarealert.errors import RareAlertError
from rarealert.registry.digests import ADAPTER_CARD
from rarealert.registry.gates.approval import APPROVAL_GATES, Approval
from rarealert.registry.gates.gate import GateResult
from rarealert.registry.promotion import settle
from rarealert.registry.versions import identity_of

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

JUDGEMENT = "judgement.json"
"""Artifact of the run that judged a version: every gate's verdict, with their digest."""

EVIDENCE = "evidence.sha256"
"""Tag of a version: digest of its judgement."""

JUDGED_RUN = "judged.run"
"""Tag of a version: the run that judged it."""

CARD = "card.md"


def digest_of(judgement: Mapping[str, Any]) -> str:
    """Sha256 of a judgement without its own digest."""
    held = {key: value for key, value in judgement.items() if key != "evidence"}
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()


def approve(name: str, version: str, limits: Mapping[str, float | None]) -> tuple[GateResult, ...]:
    """The verdict of the gates at the door on ``version`` of ``name``.

    ``limits`` are those of the gates that must have judged it, as ``catalogue.limits`` gives them.

    Raises:
        RareAlertError: there is no such version.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        held = mlflow.MlflowClient().get_model_version(name, version)
    except MlflowException as error:
        raise RareAlertError(f"{name} has no version {version}; see rarealert log.") from error
    with TemporaryDirectory(prefix="rarealert-") as folder:
        approval = _collect(held, limits, Path(folder))
    return tuple(gate.check(approval) for gate in APPROVAL_GATES)


def read_judgement(name: str, version: str) -> dict[str, Any]:
    """The judgement that the gates at the door have let pass.

    Raises:
        RareAlertError: there is none.
    """
    import mlflow

    held = mlflow.MlflowClient().get_model_version(name, version)
    judgement = _judgement(held.tags.get(JUDGED_RUN))
    if judgement is None:
        raise RareAlertError(f"Version {version} of {name} was never judged.")
    return judgement


def _collect(version: "ModelVersion", limits: Mapping[str, float | None], folder: Path) -> Approval:
    judgement = _judgement(version.tags.get(JUDGED_RUN))
    files = _files(f"models:/{version.name}/{version.version}", folder)
    adapters = sorted(files.rglob("student.json")) if files else []
    adapter = adapters[0].parent if adapters else None
    return Approval(
        name=version.name,
        version=str(version.version),
        judgement=judgement,
        judgement_digest=digest_of(judgement) if judgement else "",
        noted_digest=version.tags.get(EVIDENCE, ""),
        failed_in_run=_failed(version.tags.get(JUDGED_RUN)),
        limits=limits,
        identity=identity_of(files) if files else {},
        card=_text(files / CARD if files else None),
        card_of_adapter=_text(adapter / ADAPTER_CARD if adapter else None),
        log_fault=_log_fault(version.name),
    )


def _text(file: Path | None) -> str | None:
    return file.read_text(encoding="utf-8") if file and file.is_file() else None


def _judgement(run_id: str | None) -> dict[str, Any] | None:
    import mlflow
    from mlflow.exceptions import MlflowException

    if run_id is None:
        return None
    try:
        held: dict[str, Any] = mlflow.artifacts.load_dict(f"runs:/{run_id}/{JUDGEMENT}")
    except (MlflowException, OSError, ValueError):
        return None
    return held


def _failed(run_id: str | None) -> float | None:
    import mlflow
    from mlflow.exceptions import MlflowException

    if run_id is None:
        return None
    try:
        # every value ever logged: one that was put over another does not hide it
        history = mlflow.MlflowClient().get_metric_history(run_id, "gates.failed")
    except MlflowException:
        return None
    return max((float(metric.value) for metric in history), default=None)


def _files(uri: str, folder: Path) -> Path | None:
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder)))
    except (MlflowException, OSError):
        return None


def _log_fault(name: str) -> str | None:
    try:
        settle(name)
    except RareAlertError as error:
        return str(error)
    return None
