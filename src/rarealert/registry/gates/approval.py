"""Gates asked at every promotion, of what the registry holds at that moment.

They need the registry alone, not the workspace: tags can be set by anybody, so digests are computed
again from the stored files.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

from rarealert.errors import RareAlertError
from rarealert.registry.gates.gate import GateResult
from rarealert.registry.identity import ADAPTER_CARD, identity_of
from rarealert.registry.promotion import settle
from rarealert.registry.versions import (
    CARD,
    JUDGED_RUN,
    JUDGEMENT,
    JUDGEMENT_DIGEST,
    digest_of,
    read_artifact,
    resolve,
)

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

_PARTS = {
    "adapter.sha256": "adapter",
    "base.sha256": "base model",
    "code.sha256": "code",
    "config.sha256": "configuration",
}
_COMPUTED = "RA001"
"""Its threshold is the champion's AUROC less the setting, where both were judged on other cases."""


@dataclass(frozen=True)
class Approval:
    """What the registry holds of a version that is to be promoted; digests are SHA-256."""

    name: str
    version: str
    judgement: Mapping[str, Any] | None
    """The file of the run that judged the version."""
    judgement_digest: str
    """Digest of that file, computed now."""
    noted_digest: str
    """Digest in the version's tag."""
    failed_in_run: float | None
    """Number of failed gates that the judging run logged."""
    limits: Mapping[str, float | None]
    """Gates that the judgement must contain, with the current setting of those with a threshold."""
    identity: Mapping[str, str]
    """Digests of the version's parts, computed now."""
    card: str | None
    card_of_adapter: str | None
    """The copy in the adapter's folder, which the adapter's digest leaves out."""
    log_fault: str | None


@dataclass(frozen=True)
class ApprovalGate(ABC):
    """A gate on what the registry holds."""

    code: ClassVar[str]
    title: ClassVar[str]
    param: ClassVar[str | None] = None

    def check(self, approval: Approval) -> GateResult:
        """Return the verdict with its first fault as the reason."""
        faults = list(self.faults(approval))
        reason = f"{(faults or [self.title])[0]}."
        return GateResult(self.code, self.title, not faults, float(len(faults)), 0.0, reason)

    @abstractmethod
    def faults(self, approval: Approval) -> Iterator[str]:
        """Yield why it does not pass, one phrase each."""


@dataclass(frozen=True)
class GenuineJudgement(ApprovalGate):
    """The judgement is complete, unchanged, of this very version, and passes every gate."""

    code: ClassVar[str] = "RA023"
    title: ClassVar[str] = "The approval is the judgement's own"

    def faults(self, approval: Approval) -> Iterator[str]:
        """Compare the judgement with its digests, the version's files and the judging run."""
        held = approval.judgement
        if held is None:
            yield f"Version {approval.version} was never judged; run dvc repro register"
            return
        if (held.get("model_name"), held.get("version")) != (approval.name, approval.version):
            yield "The judgement is that of another version"
        if not held.get("evidence") == approval.judgement_digest == approval.noted_digest:
            yield "The judgement was changed after it was made"
        judged = held.get("identity", {})
        for name, part in _PARTS.items():
            if not judged.get(name) or judged[name] != approval.identity.get(name):
                yield f"The {part} in the registry is not the one that was judged"
        results = {gate["code"]: gate["passed"] for gate in held.get("gates", [])}
        failed = sorted(code for code, passed in results.items() if passed is not True)
        if failed:
            yield f"The judgement failed {', '.join(failed)}"
        if missing := sorted(approval.limits.keys() - results.keys()):
            yield f"The judgement lacks {', '.join(missing)}"
        if approval.failed_in_run != len(failed):
            yield "The judging run logged another number of failures than the judgement"
        yield from _moved(held.get("gates", []), approval.limits)


def _moved(gates: Sequence[Mapping[str, Any]], limits: Mapping[str, float | None]) -> Iterator[str]:
    """Yield gates whose threshold has changed since; a margin is its setting below zero."""
    for gate in gates:
        code, used, limit = gate["code"], gate.get("threshold"), limits.get(gate["code"])
        if used is None or limit is None or (code == _COMPUTED and used > 0):
            continue
        if abs(used) != limit:
            yield (
                f"{code} was judged by {abs(used):g}, but params.yaml has {limit:g} now; run "
                "dvc repro"
            )


@dataclass(frozen=True)
class CardAttached(ApprovalGate):
    """The version carries its own model card."""

    code: ClassVar[str] = "RA024"
    title: ClassVar[str] = "The model card is attached"

    def faults(self, approval: Approval) -> Iterator[str]:
        """Look for the adapter's digest in the card: the card of another version has another."""
        if approval.card is None:
            yield "The version has no model card; run dvc repro -f register"
        elif approval.identity.get("adapter.sha256", "") not in approval.card:
            yield "The card is that of another adapter; run dvc repro -f register"
        elif approval.card_of_adapter not in (None, approval.card):
            yield "The adapter's card differs from the version's; run dvc repro -f register"


@dataclass(frozen=True)
class LogWhole(ApprovalGate):
    """The log of promotions is an unbroken chain that ends at the champion."""

    code: ClassVar[str] = "RA025"
    title: ClassVar[str] = "The log of promotions is whole"

    def faults(self, approval: Approval) -> Iterator[str]:
        """Report a changed or removed entry, or an alias that was moved without one."""
        if approval.log_fault is not None:
            yield approval.log_fault.rstrip(".")


APPROVAL_GATES: tuple[ApprovalGate, ...] = (GenuineJudgement(), CardAttached(), LogWhole())


def approve(name: str, version: str, limits: Mapping[str, float | None]) -> tuple[GateResult, ...]:
    """Return the verdicts of the approval gates on ``version`` of ``name``.

    ``limits`` are those of the gates that must have judged it, as ``catalogue.limits`` gives them.

    Raises:
        BadInputError: there is no such version.
    """
    with TemporaryDirectory(prefix="rarealert-") as folder:
        approval = _collect(resolve(name, version), limits, Path(folder))
    return tuple(gate.check(approval) for gate in APPROVAL_GATES)


def _collect(version: "ModelVersion", limits: Mapping[str, float | None], folder: Path) -> Approval:
    judgement = read_artifact(version, JUDGEMENT)
    files = _files(f"models:/{version.name}/{version.version}", folder)
    adapters = sorted(files.rglob("student.json")) if files else []
    return Approval(
        name=version.name,
        version=str(version.version),
        judgement=judgement,
        judgement_digest=digest_of(judgement) if judgement else "",
        noted_digest=version.tags.get(JUDGEMENT_DIGEST, ""),
        failed_in_run=_failed(version.tags.get(JUDGED_RUN)),
        limits=limits,
        identity=identity_of(files) if files else {},
        card=_text(files / CARD) if files else None,
        card_of_adapter=_text(adapters[0].parent / ADAPTER_CARD) if adapters else None,
        log_fault=_log_fault(version.name),
    )


def _text(file: Path) -> str | None:
    return file.read_text(encoding="utf-8") if file.is_file() else None


def _failed(run_id: str | None) -> float | None:
    import mlflow
    from mlflow.exceptions import MlflowException

    if run_id is None:
        return None
    try:
        # every value ever logged: a later value does not hide an earlier one
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
