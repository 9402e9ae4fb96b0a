"""Gates at the door: asked at every promotion, of what the registry holds at that moment.

Collects what the registry holds of a version, for the gates at the door.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

from rarealert.errors import RareAlertError
from rarealert.registry.gates.gate import GateResult
from rarealert.registry.promotion import settle
from rarealert.registry.versions import ADAPTER_CARD, identity_of

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class Approval:
    """What the registry holds of a version when somebody wants to promote it.

    ``judgement`` is the file of the run that judged it; digests are sha256.
    """

    name: str
    version: str
    judgement: Mapping[str, Any] | None
    judgement_digest: str
    """Of the judgement as it is now, computed anew."""
    noted_digest: str
    """Of the judgement as the version's tag says."""
    failed_in_run: float | None
    """Failed gates by the metric that the judging run logged."""
    limits: Mapping[str, float | None]
    """Gates that a judgement must have put, with today's setting where it is their threshold."""
    identity: Mapping[str, str]
    """Digests of what the version is made of, as the registry holds it, computed anew."""
    card: str | None
    card_of_adapter: str | None
    """The copy in the adapter's folder, which leaves it out of its digest."""
    log_fault: str | None

    @property
    def adapter_digest(self) -> str:
        """Of the adapter; empty where there is none."""
        return self.identity.get("adapter.sha256", "")


_PARTS = {
    "adapter.sha256": "adapter",
    "base.sha256": "base model",
    "code.sha256": "code",
    "config.sha256": "configuration",
}
_COMPUTED = "RA001"
"""Its threshold is the champion's AUROC less the setting, where both were judged on other cases."""


@dataclass(frozen=True)
class ApprovalGate(ABC):
    """A gate that needs the registry alone, not the workspace."""

    code: ClassVar[str]
    title: ClassVar[str]
    param: ClassVar[str | None] = None

    def check(self, approval: Approval) -> GateResult:
        """The verdict with its reason in one sentence."""
        faults = self.faults(approval)
        said = f"{faults[0]}." if faults else f"{self.title}."
        return GateResult(self.code, self.title, not faults, float(len(faults)), 0.0, said)

    @abstractmethod
    def faults(self, approval: Approval) -> list[str]:
        """Why it does not pass, one phrase each."""


@dataclass(frozen=True)
class GenuineJudgement(ApprovalGate):
    """The judgement is whole, unchanged, of this very version, and passes every gate."""

    code: ClassVar[str] = "RA023"
    title: ClassVar[str] = "The approval is the judgement's own"

    def faults(self, approval: Approval) -> list[str]:
        """Tags alone prove nothing: anybody may set them."""
        held = approval.judgement
        if held is None:
            return [f"Version {approval.version} was never judged; run dvc repro register"]
        found = []
        if (held.get("model_name"), held.get("version")) != (approval.name, approval.version):
            found.append("The judgement is that of another version")
        if not held.get("evidence") == approval.judgement_digest == approval.noted_digest:
            found.append("The judgement was changed after it was made")
        judged = held.get("identity", {})
        found += [
            f"The {part} in the registry is not the one that was judged"
            for name, part in _PARTS.items()
            if not judged.get(name) or judged[name] != approval.identity.get(name)
        ]
        results = {gate["code"]: gate["passed"] for gate in held.get("gates", [])}
        failed = sorted(code for code, passed in results.items() if passed is not True)
        missing = sorted(approval.limits.keys() - results.keys())
        if failed:
            found.append(f"The judgement failed {', '.join(failed)}")
        if missing:
            found.append(f"The judgement did not ask {', '.join(missing)}")
        if approval.failed_in_run != len(failed):
            found.append("The judging run counted other failures than the judgement names")
        return found + _moved(held.get("gates", []), approval.limits)


def _moved(gates: Sequence[Mapping[str, Any]], limits: Mapping[str, float | None]) -> list[str]:
    """Gates that judged by another threshold than today's; a margin is its setting below zero."""
    found = []
    for gate in gates:
        code, used, limit = gate["code"], gate.get("threshold"), limits.get(gate["code"])
        if used is None or limit is None or (code == _COMPUTED and used > 0):
            continue
        if abs(used) != limit:
            found.append(
                f"{code} judged by {abs(used):g} and params.yaml says {limit:g} now; run dvc repro"
            )
    return found


@dataclass(frozen=True)
class CardAttached(ApprovalGate):
    """The version carries its own model card."""

    code: ClassVar[str] = "RA024"
    title: ClassVar[str] = "The model card is attached"

    def faults(self, approval: Approval) -> list[str]:
        """A card of another version names another adapter."""
        if approval.card is None:
            return ["The version has no model card; run dvc repro -f register"]
        if approval.adapter_digest not in approval.card:
            return ["The card is that of another adapter; run dvc repro -f register"]
        if approval.card_of_adapter not in (None, approval.card):
            return ["The adapter's card differs from the version's; run dvc repro -f register"]
        return []


@dataclass(frozen=True)
class LogWhole(ApprovalGate):
    """The log of promotions is an unbroken chain that ends at the champion."""

    code: ClassVar[str] = "RA025"
    title: ClassVar[str] = "The log of promotions is whole"

    def faults(self, approval: Approval) -> list[str]:
        """Broken where an entry was changed or removed, or the alias moved without one."""
        return [] if approval.log_fault is None else [approval.log_fault.rstrip(".")]


APPROVAL_GATES: tuple[ApprovalGate, ...] = (GenuineJudgement(), CardAttached(), LogWhole())


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
