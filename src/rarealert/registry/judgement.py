"""What the gates judge, read from the stages above and measured on the registered version."""

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
from rarealert.params import Params
from rarealert.paths import Paths
from rarealert.registry.judged import Evidence, TextScan
from rarealert.registry.text_scan import runs_of_words, scan
from rarealert.registry.tracked import read_champion, tracked_folders
from rarealert.registry.versions import Registered, file_sha256
from rarealert.registry.workspace import changed_sources, check_inputs, stale_stages
from rarealert.splits.parts import lock_digest
from rarealert.visits.case import TEXT_FIELDS, Case, LabelledCase
from rarealert.visits.demographics import age_band
from rarealert.visits.store import read_cases

if TYPE_CHECKING:
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import PyFuncModel

_ASKED_AGAIN = 16  # test cases spread over the sorted ids
_TIMED = 5  # single visits timed; the median forgives one that the machine interrupted

Risks = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Study:
    """What the stages above left: cases by part, risks by part and model, report, student."""

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
        """The base model's name; a folder of this machine tells readers elsewhere nothing."""
        name = str(self.student["base_model"])
        return Path(name).name if Path(name).is_absolute() else name


def read_study(paths: Paths) -> Study:
    """Everything on disk that a judgement needs.

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
        raise BadInputError("The predictions hold no student; run dvc repro score.")
    adapter = paths.build("distil") / "adapter"
    return Study(
        cases=cases,
        predicted=predicted,
        report=_read_json(paths.report("evaluate") / "metrics.json", "evaluate"),
        student=_read_json(adapter / "student.json", "distil"),
        adapter=adapter,
    )


def collect(study: Study, version: Registered, params: Params, paths: Paths) -> Evidence:
    """Everything the gates ask for, measured on the registered version itself."""
    lock = str(_read_json(paths.report("split") / "lock.json", "split").get("test_lock"))
    test = study.cases["test"]
    probe = _probe(study, version)
    return Evidence(
        challenger=STUDENT,
        rare={item.case.case_id: item.label.label == "rare" for item in test},
        disease={item.case.case_id: item.label.disease_id for item in test},
        risks=study.risks,
        champion=read_champion(version, lock),
        reported=study.report,
        test_lock=lock,
        test_digest=study.test_digest,
        leaks=_leaks(_read_json(paths.report("split") / "leakage.json", "split")),
        train_cases=frozenset(item.case.case_id for item in study.cases["train"]),
        target_folds=_folds(paths.build("align") / "risk.parquet"),
        reloaded=probe.risks,
        latency_s=probe.latency_s,
        load_error=probe.error,
        memory_gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        schema_faults=probe.schema_faults,
        base_model=study.base_model,
        cells=test_cells(test),
        sources=params.ingest.sources,
        thresholds=_thresholds(study),
        trained_on=_trained_on(study, paths),
        stale=stale_stages(paths.root, "register"),
        scan=_scan(study, version, paths),
        inputs=check_inputs(paths.root, "register"),
        dirty=changed_sources(paths.root),
    )


@dataclass(frozen=True)
class _Probe:
    """What the registered version, loaded anew, answered; ``error`` where it can't be loaded."""

    risks: Mapping[str, float]
    latency_s: float | None
    schema_faults: tuple[str, ...]
    error: str | None


def _probe(study: Study, version: Registered) -> _Probe:
    import mlflow

    from rarealert.screening import pyfunc

    try:
        model = mlflow.pyfunc.load_model(version.uri)
        risks, latency_s = _ask_again(model, [item.case for item in study.cases["test"]])
        answered: Any = model.predict(pyfunc.input_example())
        columns = list(answered.columns)
    except RareAlertError as error:
        return _Probe({}, None, ("The version can't be asked",), str(error))
    signature = model.metadata.signature
    faults = tuple(_schema_faults(signature, pyfunc.signature(), columns))
    return _Probe(risks, latency_s, faults, None)


def _ask_again(model: "PyFuncModel", cases: Sequence[Case]) -> tuple[dict[str, float], float]:
    """Risks 0-1 of a spread of ``cases`` scored together, and the median seconds for one visit."""
    from rarealert.screening.pyfunc import request_frame

    ordered = sorted(cases, key=lambda case: case.case_id)
    chosen = ordered[:: max(1, len(ordered) // _ASKED_AGAIN)][:_ASKED_AGAIN]
    answers: Any = model.predict(request_frame(chosen))
    risks = {str(row["case_id"]): float(row["risk"]) for row in answers.to_dict("records")}
    seconds = []
    for case in chosen[:_TIMED]:
        started = time.perf_counter()
        model.predict(request_frame([case]))
        seconds.append(time.perf_counter() - started)
    return risks, statistics.median(seconds)


def _schema_faults(
    held: "ModelSignature | None", wanted: "ModelSignature", columns: Sequence[str]
) -> Iterator[str]:
    if held is None:
        yield "The version has no signature"
        return
    for side in ("inputs", "outputs", "params"):
        if getattr(held, side) != getattr(wanted, side):
            yield f"The signature's {side} are not those of screening"
    required = [column.name for column in wanted.outputs if column.required]
    lacking = [name for name in required if name not in columns]
    if lacking:
        yield f"The answer lacks {', '.join(map(str, lacking))}"


def test_cells(test: Sequence[LabelledCase]) -> dict[str, dict[str, str]]:
    """Kind of subgroup → case → cell, as the gates and the comparison take them."""
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


def _thresholds(study: Study) -> dict[str, tuple[float, float]]:
    """The packaged bands beside those that the validation predictions give."""
    import numpy as np

    from rarealert.calibration.bands import fit_bands

    risks = study.predicted["valid"].get(STUDENT, {})
    cases = [item for item in study.cases["valid"] if item.case.case_id in risks]
    rare = np.array([item.label.label == "rare" for item in cases], dtype=np.bool_)
    used = study.student.get("bands", {})
    if not rare.any() or rare.all():
        return {}
    found = fit_bands(np.array([risks[item.case.case_id] for item in cases]), rare)
    return {name: (float(used[name]), getattr(found, name)) for name in sorted(used)}


def _trained_on(study: Study, paths: Paths) -> dict[str, tuple[str | None, str]]:
    noted = study.student.get("training_data", {})
    split = paths.build("split")
    return {
        part: (noted.get(part), file_sha256(split / f"{part}.parquet"))
        for part in ("train", "valid")
    }


def _scan(study: Study, version: Registered, paths: Paths) -> TextScan:
    cases = [item.case for part in study.cases.values() for item in part]
    texts = (getattr(case, name) or "" for case in cases for name in TEXT_FIELDS)
    with tracked_folders(paths.root / "build", version) as folders:
        return scan(folders, runs_of_words(texts), known=[Path(rarealert.__file__).parent])


def _leaks(report: Mapping[str, Any]) -> tuple[str, ...]:
    """What the leakage report counts on two sides; a report without such counts is no proof."""
    counts = dict(_two_sided(report))
    if not counts:
        return ("it counts nothing",)
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
