"""Collect what the gates judge: outputs of the stages above, and the registered version itself."""

import json
import resource
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rarealert
from rarealert.errors import BadInputError, RareAlertError
from rarealert.evaluation.predictions import STUDENT, read_predictions
from rarealert.files import sha256_of_file
from rarealert.params import Params
from rarealert.paths import Paths
from rarealert.registry.judged import GateInput, TextScan
from rarealert.registry.text_scan import runs_of_words, scan
from rarealert.registry.versions import Registered, read_champion, tracked_folders
from rarealert.registry.workspace import changed_sources, check_workspace
from rarealert.splits.parts import lock_digest
from rarealert.visits.case import TEXT_FIELDS, Case, LabelledCase
from rarealert.visits.demographics import age_band
from rarealert.visits.store import read_cases

if TYPE_CHECKING:
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import PyFuncModel

_SCORED_AGAIN = 16  # test cases spread over the sorted ids
_TIMED = 5  # single visits timed; the median ignores one that the machine interrupted

Risks = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class StageOutputs:
    """Outputs of the stages above: cases by part, risks by part and model, report, student."""

    cases: Mapping[str, Sequence[LabelledCase]]
    predicted: Mapping[str, Risks]
    report: Mapping[str, Any]
    student: Mapping[str, Any]
    adapter: Path

    @property
    def risks(self) -> Risks:
        """Model → case → risk on the test part."""
        return self.predicted["test"]

    @property
    def calibration_prevalence(self) -> float:
        """Share of rare cases in the validation part, which the calibrator is fitted on."""
        valid = self.cases["valid"]
        return sum(item.label.label == "rare" for item in valid) / len(valid)

    @property
    def test_digest(self) -> str:
        """Digest of the test part's case ids, as the split locks it."""
        return lock_digest(item.case.case_id for item in self.cases["test"])

    @property
    def base_model(self) -> str:
        """Name of the base model; of a local folder only the last part, for readers elsewhere."""
        name = str(self.student["base_model"])
        return Path(name).name if Path(name).is_absolute() else name


def read_outputs(paths: Paths) -> StageOutputs:
    """Read everything on disk that a judgement needs.

    Raises:
        BadInputError: a stage above has not finished, or the predictions hold no student.
    """
    split = paths.build("split")
    cases = {part: read_cases(split / f"{part}.parquet") for part in ("train", "valid", "test")}
    predictions = read_predictions(paths.build("score") / "predictions.parquet")
    predicted: dict[str, dict[str, dict[str, float]]] = {"valid": {}, "test": {}}
    for row in predictions.to_dict("records"):
        of_part = predicted.setdefault(str(row["part"]), {})
        of_part.setdefault(str(row["model"]), {})[str(row["case_id"])] = float(row["risk"])
    if STUDENT not in predicted["test"]:
        raise BadInputError("predictions.parquet has no row of the student; run dvc repro score.")
    adapter = paths.build("distil") / "adapter"
    return StageOutputs(
        cases=cases,
        predicted=predicted,
        report=_read_json(paths.report("evaluate") / "metrics.json", "evaluate"),
        student=_read_json(adapter / "student.json", "distil"),
        adapter=adapter,
    )


def collect(outputs: StageOutputs, version: Registered, params: Params, paths: Paths) -> GateInput:
    """Collect everything that the gates need, measured on the registered version itself."""
    lock = str(_read_json(paths.report("split") / "lock.json", "split").get("test_lock"))
    test = outputs.cases["test"]
    probe = _probe(outputs, version)
    return GateInput(
        rare={item.case.case_id: item.label.label == "rare" for item in test},
        disease={item.case.case_id: item.label.disease_id for item in test},
        risks=outputs.risks,
        champion=read_champion(version, lock),
        report=outputs.report,
        test_lock=lock,
        test_digest=outputs.test_digest,
        leaks=_leaks(_read_json(paths.report("split") / "leakage.json", "split")),
        train_cases=frozenset(item.case.case_id for item in outputs.cases["train"]),
        target_folds=_folds(paths.build("align") / "risk.parquet"),
        reloaded=probe.risks,
        latency_s=probe.latency_s,
        load_error=probe.error,
        memory_gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        schema_faults=probe.schema_faults,
        base_model=outputs.base_model,
        cells=subgroup_cells(test),
        sources=params.ingest.sources,
        thresholds=_thresholds(outputs),
        trained_on=_trained_on(outputs, paths),
        scan=scan_artifacts(outputs, version, paths),
        workspace=check_workspace(paths.root, "register"),
        dirty=changed_sources(paths.root),
    )


@dataclass(frozen=True)
class _Probe:
    """Answers of the registered version, freshly loaded; ``error`` where it can't be loaded."""

    risks: Mapping[str, float]
    latency_s: float | None
    schema_faults: tuple[str, ...]
    error: str | None


def _probe(outputs: StageOutputs, version: Registered) -> _Probe:
    import mlflow

    from rarealert.screening import pyfunc

    try:
        model = mlflow.pyfunc.load_model(version.uri)
        risks, latency_s = _score_again(model, [item.case for item in outputs.cases["test"]])
        answered: Any = model.predict(pyfunc.input_example())
    except RareAlertError as error:
        return _Probe({}, None, ("The version can't be loaded",), str(error))
    columns = list(answered.columns)
    faults = tuple(_schema_faults(model.metadata.signature, pyfunc.signature(), columns))
    return _Probe(risks, latency_s, faults, None)


def _score_again(model: "PyFuncModel", cases: Sequence[Case]) -> tuple[dict[str, float], float]:
    """Return risks 0-1 of some ``cases`` scored together, and median seconds for one visit."""
    from rarealert.screening.pyfunc import request_frame

    ordered = sorted(cases, key=lambda case: case.case_id)
    chosen = ordered[:: max(1, len(ordered) // _SCORED_AGAIN)][:_SCORED_AGAIN]
    answers: Any = model.predict(request_frame(chosen))
    risks = {str(row["case_id"]): float(row["risk"]) for row in answers.to_dict("records")}
    seconds = []
    for case in chosen[:_TIMED]:
        started = time.perf_counter()
        model.predict(request_frame([case]))
        seconds.append(time.perf_counter() - started)
    return risks, statistics.median(seconds)


def _schema_faults(
    held: "ModelSignature | None", expected: "ModelSignature", columns: Sequence[str]
) -> Iterator[str]:
    if held is None:
        yield "The version has no signature"
        return
    for side in ("inputs", "outputs", "params"):
        if getattr(held, side) != getattr(expected, side):
            yield f"The signature's {side} are not those of screening"
    required = [str(column.name) for column in expected.outputs if column.required]
    missing = [name for name in required if name not in columns]
    if missing:
        yield f"The answer has no column {', '.join(missing)}"


def subgroup_cells(test: Sequence[LabelledCase]) -> dict[str, dict[str, str]]:
    """Return kind of subgroup → case → cell: Orphanet head (rare cases), source, age band, sex."""
    cells: dict[str, dict[str, str]] = {"head": {}, "source": {}, "age": {}, "sex": {}}
    for item in test:
        case, key = item.case, item.case.case_id
        cells["source"][key] = case.source
        if item.label.orphanet_head is not None:
            cells["head"][key] = item.label.orphanet_head
        if case.sex is not None:
            cells["sex"][key] = case.sex
        if case.age_years is not None:
            low, high = age_band(case.age_years)
            cells["age"][key] = f"{low} to {high - 1} years"
    return cells


def _thresholds(outputs: StageOutputs) -> dict[str, tuple[float, float]]:
    """Return the packaged bands beside those that the validation predictions give."""
    import numpy as np

    from rarealert.calibration.bands import fit_bands

    risks = outputs.predicted["valid"].get(STUDENT, {})
    cases = [item for item in outputs.cases["valid"] if item.case.case_id in risks]
    rare = np.array([item.label.label == "rare" for item in cases], dtype=np.bool_)
    used = outputs.student.get("bands", {})
    if not rare.any() or rare.all():
        return {}
    found = fit_bands(np.array([risks[item.case.case_id] for item in cases]), rare)
    return {name: (float(used[name]), getattr(found, name)) for name in sorted(used)}


def _trained_on(outputs: StageOutputs, paths: Paths) -> dict[str, tuple[str | None, str]]:
    noted = outputs.student.get("training_data", {})
    split = paths.build("split")
    return {
        part: (noted.get(part), sha256_of_file(split / f"{part}.parquet"))
        for part in ("train", "valid")
    }


def scan_artifacts(outputs: StageOutputs, version: Registered, paths: Paths) -> TextScan:
    """Search the tracked artifacts for text of any case, of every part."""
    cases = [item.case for part in outputs.cases.values() for item in part]
    texts = (getattr(case, name) or "" for case in cases for name in TEXT_FIELDS)
    with tracked_folders(paths.root / "build", version) as folders:
        return scan(folders, runs_of_words(texts), known=[Path(rarealert.__file__).parent])


def _leaks(report: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what the leakage report counts on two sides; without counts it proves nothing."""
    counts = dict(_two_sided(report))
    if not counts:
        return ("it has no counts",)
    return tuple(f"{count} {name}" for name, count in sorted(counts.items()) if count)


def _two_sided(report: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for key, value in report.items():
        if isinstance(value, dict):
            yield from _two_sided(value)
        elif key.endswith("_on_two_sides"):
            yield key.replace("_", " "), int(value)


def _folds(file: Path) -> dict[str, int | None]:
    import pandas as pd

    if not file.is_file():
        raise BadInputError(f"{file} is missing; run dvc repro align.")
    targets = pd.read_parquet(file, columns=["case_id", "part", "fold"])
    train = targets[targets["part"] == "train"]
    return {
        str(row["case_id"]): None if pd.isna(row["fold"]) else int(row["fold"])
        for row in train.to_dict("records")
    }


def _read_json(file: Path, stage: str) -> dict[str, Any]:
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInputError(f"{file} is missing; run dvc repro {stage}.") from error
    except ValueError as error:
        raise BadInputError(f"{file} is not valid JSON; run dvc repro -f {stage}.") from error
    if not isinstance(held, dict):
        raise BadInputError(f"{file} is not a JSON object; run dvc repro -f {stage}.")
    return held
