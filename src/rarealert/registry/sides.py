"""A registered version as one side of a comparison: what its judgement left in MLflow."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rarealert.errors import BadInputError
from rarealert.registry.approval import JUDGED_RUN, JUDGEMENT
from rarealert.registry.comparison import Side
from rarealert.registry.versions import FAILED_GATES, SCORED, aliased

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

_COSTS = {"RA008": "seconds for one visit", "RA020": "GiB of memory at the peak"}
_MIB = 2**20


def read_side(name: str, which: str) -> tuple[Side, str]:
    """The version of ``name`` that ``which`` means, and the lock of the test part it was judged on.

    ``which`` is an alias, a version's number, or the id of the run that judged it.

    Raises:
        BadInputError: there is no such version, or its run kept no risks.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    version = _find(name, which)
    run_id = version.tags.get(JUDGED_RUN, "")
    try:
        scored = mlflow.artifacts.load_dict(f"runs:/{run_id}/{SCORED}")
        judgement = mlflow.artifacts.load_dict(f"runs:/{run_id}/{JUDGEMENT}")
    except (MlflowException, OSError) as error:
        raise BadInputError(
            f"{name} version {version.version} has no risks to compare; run dvc repro -f register."
        ) from error
    label = f"version {version.version}"
    if not which.isdecimal() and len(which) < len(run_id):
        label = f"{which}, {label}"
    side = Side(
        label=label,
        version=str(version.version),
        risks={str(key): float(risk) for key, risk in scored["risks"].items()},
        alert=scored.get("alert"),
        costs=_costs(version, judgement, run_id),
        failed=version.tags.get(FAILED_GATES, ""),
    )
    return side, str(scored["test_lock"])


def _find(name: str, which: str) -> "ModelVersion":
    import mlflow
    from mlflow.exceptions import MlflowException

    client = mlflow.MlflowClient()
    try:
        if which.isdecimal():
            return client.get_model_version(name, which)
        found = aliased(name, which)
        judged = client.search_model_versions(f"name = '{name}'") if found is None else []
        found = found or next((v for v in judged if v.tags.get(JUDGED_RUN) == which), None)
    except MlflowException:
        found = None
    if found is None:
        raise BadInputError(
            f"{which!r} is no version of {name}: give a number, an alias such as champion, or "
            "the id of a register run."
        )
    return found


def _costs(version: "ModelVersion", judgement: dict[str, Any], run_id: str) -> dict[str, float]:
    values = {gate["code"]: gate["value"] for gate in judgement["gates"]}
    costs = {name: values[code] for code, name in _COSTS.items() if values.get(code) is not None}
    seconds = _pipeline_seconds(run_id)
    return costs | _sizes(version) | ({"seconds of its pipeline": seconds} if seconds else {})


def _sizes(version: "ModelVersion") -> dict[str, float]:
    import mlflow

    with TemporaryDirectory(prefix="rarealert-") as folder:
        uri = f"models:/{version.name}/{version.version}"
        place = Path(mlflow.artifacts.download_artifacts(uri, dst_path=folder))
        adapter = next((file.parent for file in place.rglob("student.json")), None)
        if adapter is None:
            return {}
        size = sum(file.stat().st_size for file in adapter.rglob("*") if file.is_file())
    return {"MiB of the adapter": round(size / _MIB, 3)}


def _pipeline_seconds(run_id: str) -> float | None:
    """Seconds of all finished runs that share the judging run's pipeline, itself included."""
    import mlflow

    run = mlflow.get_run(run_id)
    pipeline = run.data.tags.get("pipeline.id")
    if pipeline is None:
        return None
    runs = mlflow.MlflowClient().search_runs(
        [run.info.experiment_id], f"tags.\"pipeline.id\" = '{pipeline}' AND tags.stage != ''"
    )
    spent = [each.info.end_time - each.info.start_time for each in runs if each.info.end_time]
    return round(sum(spent) / 1000, 1) if spent else None
