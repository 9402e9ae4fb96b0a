"""Load the model that screens: a registered version by its alias, or a model's folder."""

import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rarealert.errors import BadInputError, RareAlertError
from rarealert.language.base import CARRIED_VARIABLE
from rarealert.params import load_params
from rarealert.paths import Paths
from rarealert.screening.answer import Scorer

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc import PyFuncModel

_FAILED = "gates.failed"
_DIGEST = "adapter.sha256"
_OTHER_RELEASE = (
    "This version was registered by an earlier RareAlert and can't be used by this one; run dvc "
    "repro register, or name another --alias."
)
_NOT_FOUND = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""MLflow's error codes for a model, and for an alias, that a registry does not have."""


@dataclass(frozen=True)
class ScreeningModel:
    """A loaded version; each answer names the version and the digest of its adapter."""

    name: str
    version: str
    digest: str
    scorer: Scorer


def load_model(name: str, alias: str, tracking_uri: str) -> ScreeningModel:
    """Load the version of ``name`` that ``alias`` points at.

    Raises:
        RareAlertError: nothing is registered, or nothing has the alias; the message names the
            gates that the newest version failed, and what to do.
        BadInputError: the base model on this machine is not the one trained on.
    """
    version = _find(name, alias, tracking_uri)
    loaded = _load(f"models:/{name}/{version.version}")
    digest = version.tags.get(_DIGEST, "")
    return ScreeningModel(name, str(version.version), digest, _scorer(loaded))


def version_of(name: str, alias: str, tracking_uri: str) -> str:
    """The number of the version of ``name`` that ``alias`` points at now.

    Raises:
        RareAlertError: as ``load_model``.
    """
    return str(_find(name, alias, tracking_uri).version)


def load_folder(folder: Path) -> ScreeningModel:
    """Load the model in ``folder``, without a registry.

    In a bundle, ``bundle.json`` beside ``folder`` names the version, and ``base`` holds its base
    model.

    Raises:
        BadInputError: ``folder`` is not a model's, or the base model on this machine is not the
            one trained on.
    """
    if not (folder / "MLmodel").is_file():
        raise BadInputError(f"{folder} holds no MLmodel file; name a model's folder.")
    beside = folder.parent / "bundle.json"
    marks = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
    if beside.is_file():
        os.environ.setdefault(CARRIED_VARIABLE, str(folder.parent / "base"))
    loaded = _load(str(folder))
    digest = str((loaded.metadata.metadata or {}).get(_DIGEST, ""))
    name, version = str(marks.get("name", folder.name)), str(marks.get("version", "folder"))
    return ScreeningModel(name, version, digest, _scorer(loaded))


def loader(folder: Path | None, alias: str) -> Callable[[], ScreeningModel]:
    """A function that loads the model in ``folder``, or this workspace's version ``alias``.

    Raises:
        BadInputError: no folder is given, and there is no workspace here.
    """
    if folder is not None:
        return partial(load_folder, folder)
    paths = Paths.here()
    name = load_params(paths.params).register_.model_name
    return partial(load_model, name, alias, paths.tracking_uri)


def _load(uri: str) -> "PyFuncModel":
    # GNU's OpenMP spins by default, and on a busy machine each thread then spends its share of the
    # processor on waiting; it reads the variable (OpenMP 5.0, 6.7) when torch is imported
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with warnings.catch_warnings():  # mlflow 3.17 warns of its own type hints when imported
        warnings.simplefilter("ignore", UserWarning)
        import mlflow.pyfunc
    from mlflow.exceptions import MlflowException

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        loaded: PyFuncModel = mlflow.pyfunc.load_model(uri)
    except MlflowException as error:
        if isinstance(error.__cause__, ImportError):  # its code imports modules that moved since
            raise RareAlertError(_OTHER_RELEASE) from error
        raise
    return loaded


def _scorer(loaded: "PyFuncModel") -> Scorer:
    """The scorer of readings inside the loaded model.

    Raises:
        RareAlertError: the model has none, as those of an earlier RareAlert.
    """
    model = loaded.unwrap_python_model()  # type: ignore[no-untyped-call]
    scorer: Scorer | None = getattr(model, "scorer", None)
    if scorer is None:
        raise RareAlertError(_OTHER_RELEASE)
    return scorer


def _find(name: str, alias: str, tracking_uri: str) -> "ModelVersion":
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException

    database = tracking_uri.removeprefix("sqlite:///")
    if database != tracking_uri and not Path(database).is_file():
        raise RareAlertError(_why_none(name, alias, []))  # a client would create the database
    mlflow.set_tracking_uri(tracking_uri)
    try:
        client = mlflow.MlflowClient()
        return client.get_model_version_by_alias(name, alias)
    except UnsupportedModelRegistryStoreURIException as error:
        raise RareAlertError(
            "A registry in a database can't be read with what is installed here: install "
            "'rarealert[pipeline]', set MLFLOW_TRACKING_URI to an MLflow server, or name a "
            "model's folder with --model."
        ) from error
    except MlflowException as error:
        raise RareAlertError(_why_not(name, alias, client, error)) from error


def _why_not(name: str, alias: str, client: "MlflowClient", error: "MlflowException") -> str:
    from mlflow.exceptions import MlflowException

    try:
        if error.error_code in _NOT_FOUND:
            return _why_none(name, alias, list(client.search_model_versions(f"name = '{name}'")))
    except MlflowException:
        pass
    return (
        "The registry at MLFLOW_TRACKING_URI did not answer; check that the server runs and "
        "accepts this account, or name a model's folder with --model."
    )


def _why_none(name: str, alias: str, known: "list[ModelVersion]") -> str:
    if not known:
        return f"No model {name} is registered here; run make repro first."
    newest = max(known, key=lambda version: int(version.version))
    failed = newest.tags.get(_FAILED, "none")
    if alias == "champion" and failed != "none":
        noun = "gate" if "," not in failed else "gates"
        return (
            f"There is no champion of {name}: {noun} {failed.replace(',', ', ')} failed for "
            f"version {newest.version}; see reports/register/card.md, or use --alias challenger."
        )
    return (
        f"No version of {name} has the alias {alias!r}; the newest is version {newest.version}. "
        "Use --alias challenger, or run dvc repro register."
    )
