"""Weigh the teachers and calibrate them into one risk (``rarealert align``).

Reads the training and validation parts and the teachers' answers to them, never the test part.
Writes the frozen ensemble, ``build/align/model.skops``, and the risks that the student learns
from, ``build/align/risk.parquet``: out-of-fold for training cases, the frozen model's for
validation. A case that no teacher answered has no risk and no row.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rarealert.cases.case import LabelledCase
from rarealert.cases.store import disease_groups, is_rare, read_cases
from rarealert.errors import BadInputError
from rarealert.params import AlignParams, Params
from rarealert.paths import Paths
from rarealert.stages.harness import run_stage
from rarealert.teachers.answer import read_answers
from rarealert.tracking.items import (
    Child,
    Dataset,
    Figure,
    Item,
    Metric,
    Parameters,
    Summary,
    Table,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rarealert.alignment.features import Panel
    from rarealert.alignment.report import Outcome, Part
    from rarealert.alignment.search import Search, Trial

_OPERATING_POINT = 0.95  # specificity or sensitivity at which the ensemble's thresholds lie
_BINS = 10  # of the calibration curves


def align(params: Params, paths: Paths) -> Iterator[Item]:
    """Search, fit, calibrate and freeze; see the module.

    Raises:
        BadInputError: an input is missing, a class has too few diseases with an answered case, or
            the validation part lacks a class, so that no threshold can be chosen on it.
    """
    from rarealert.alignment.ensemble import Ensemble, fit_model
    from rarealert.alignment.explain import teacher_reports
    from rarealert.alignment.folds import check_learnable
    from rarealert.alignment.report import Outcome
    from rarealert.alignment.search import search
    from rarealert.alignment.targets import out_of_fold_risks

    chosen = params.align
    inputs = _read(paths)
    yield from _datasets(paths, inputs)
    train = _part(inputs.train, inputs.panel, inputs.teachers)
    valid = _part(inputs.valid, inputs.panel, inputs.teachers)
    check_learnable(train.data, "build/split/train.parquet")
    _check_both_classes(valid)

    found = search(
        train.data,
        train.features,
        folds=chosen.folds,
        trials=chosen.trials,
        timeout_s=chosen.timeout_s,
        seed=chosen.seed,
    )
    yield from (_child(trial) for trial in found.trials)

    out_of_fold = out_of_fold_risks(train.data, train.features, found, chosen.folds, chosen.seed)
    best = found.best.candidate
    columns = train.features.columns(best.feature_set)
    model = fit_model(best, train.data.only(columns), chosen.folds, chosen.seed)
    valid_risks = model.risks(valid.data.values[:, columns])
    thresholds = _thresholds(valid, valid_risks)
    ensemble = Ensemble(inputs.teachers, best, model, thresholds)
    ensemble.save(paths.build("align") / "model.skops")
    _write_risks(
        paths.build("align") / "risk.parquet", train, found, out_of_fold, valid, valid_risks
    )

    trained_on = {case_id: inputs.panel[case_id] for case_id in train.features.case_ids}
    unanswered = sum(
        item.case.case_id not in inputs.panel for item in (*inputs.train, *inputs.valid)
    )
    reports = teacher_reports(trained_on, inputs.teachers, train.data, found, chosen.seed)
    outcome = Outcome(train, valid, unanswered, found, ensemble, out_of_fold, valid_risks, reports)
    yield from _report(outcome, chosen, paths.report("align"))


@dataclass(frozen=True)
class _Inputs:
    train: list[LabelledCase]
    valid: list[LabelledCase]
    panel: "Panel"
    teachers: tuple[str, ...]


def _read(paths: Paths) -> _Inputs:
    from rarealert.alignment.features import panel_of

    train = read_cases(paths.build("split") / "train.parquet")
    valid = read_cases(paths.build("split") / "valid.parquet")
    known = {item.case.case_id for item in (*train, *valid)}
    answers = read_answers(paths.build("rationales") / "answers.parquet")
    panel = panel_of(answer for answer in answers if answer.case_id in known)
    heard = {name for item in train for name in panel.get(item.case.case_id, ())}
    if not heard:
        raise BadInputError(
            "build/rationales/answers.parquet: no teacher answered a training case; check "
            "teach.panel and reports/rationales/coverage.json."
        )
    return _Inputs(train, valid, panel, tuple(sorted(heard)))


def _datasets(paths: Paths, inputs: _Inputs) -> Iterator[Dataset]:
    sizes = (
        ("train", paths.build("split") / "train.parquet", len(inputs.train)),
        ("valid", paths.build("split") / "valid.parquet", len(inputs.valid)),
        (
            "answers",
            paths.build("rationales") / "answers.parquet",
            sum(len(said) for said in inputs.panel.values()),
        ),
    )
    for name, path, rows in sizes:
        yield Dataset(name, path, sha256(path.read_bytes()).hexdigest(), rows, "align")


def _part(cases: Sequence[LabelledCase], panel: "Panel", teachers: tuple[str, ...]) -> "Part":
    import numpy as np

    from rarealert.alignment.features import build_features
    from rarealert.alignment.folds import TrainingSet
    from rarealert.alignment.report import Part

    ids = [item.case.case_id for item in cases]
    features = build_features({name: panel[name] for name in ids if name in panel}, teachers)
    rare = dict(zip(ids, is_rare(cases), strict=True))
    disease = dict(zip(ids, disease_groups(cases), strict=True))
    data = TrainingSet(
        features.values,
        np.asarray([rare[name] for name in features.case_ids], dtype=bool),
        np.asarray([disease[name] for name in features.case_ids], dtype=np.str_),
    )
    return Part(features, data)


def _check_both_classes(valid: "Part") -> None:
    for label, there in (("rare", valid.data.rare), ("nonrare", ~valid.data.rare)):
        if not there.any():
            raise BadInputError(
                f"build/split/valid.parquet: no case with label {label} has an answer, so no "
                "threshold can be chosen; raise split.valid_share or add cases."
            )


def _child(trial: "Trial") -> Child:
    candidate = trial.candidate
    settings = {"algorithm": candidate.algorithm, "feature_set": candidate.feature_set}
    pruned = trial.scores is None
    return Child(
        trial.name,
        (
            Parameters({**settings, **candidate.settings, "pruned": pruned}),
            Metric("auroc_of_folds_done" if pruned else "auroc", trial.auroc),
        ),
    )


def _thresholds(valid: "Part", risks: "NDArray[np.float64]") -> dict[str, float]:
    from rarealert.metrics.discrimination import (
        threshold_at_sensitivity,
        threshold_at_specificity,
    )

    rare = valid.data.rare
    return {
        "at_95_specificity": threshold_at_specificity(rare, risks, _OPERATING_POINT),
        "at_95_sensitivity": threshold_at_sensitivity(rare, risks, _OPERATING_POINT),
    }


def _write_risks(
    path: Path,
    train: "Part",
    found: "Search",
    out_of_fold: "NDArray[np.float64]",
    valid: "Part",
    valid_risks: "NDArray[np.float64]",
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"case_id": case_id, "part": "train", "fold": int(fold), "risk": float(risk)}
        for case_id, fold, risk in zip(
            train.features.case_ids, found.fold, out_of_fold, strict=True
        )
    ]
    rows += [
        {"case_id": case_id, "part": "valid", "fold": None, "risk": float(risk)}
        for case_id, risk in zip(valid.features.case_ids, valid_risks, strict=True)
    ]
    schema = pa.schema(
        [
            pa.field("case_id", pa.string(), nullable=False),
            pa.field("part", pa.string(), nullable=False),
            pa.field("fold", pa.int16()),
            pa.field("risk", pa.float64(), nullable=False),
        ]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), partial)
    partial.replace(path)


def _report(outcome: "Outcome", chosen: AlignParams, folder: Path) -> Iterator[Item]:
    import pandas as pd

    from rarealert.alignment.plots import calibration_plot, heat_map, weight_plot
    from rarealert.alignment.report import metrics_of, screening_of
    from rarealert.metrics.calibration import calibration_points

    metrics = metrics_of(outcome)
    cells, trials = screening_of(outcome.found)
    curves = {
        "train, out-of-fold": calibration_points(
            outcome.train.data.rare, outcome.out_of_fold, _BINS
        ),
        "valid": calibration_points(outcome.valid.data.rare, outcome.valid_risks, _BINS),
    }
    teachers = [asdict(report) for report in outcome.reports]
    _write_json(folder / "metrics.json", metrics)
    _write_json(folder / "screening.json", {"trials": trials})
    _write_json(folder / "teachers.json", {"teachers": teachers})
    _write_json(folder / "calibration.json", {key: rows.tolist() for key, rows in curves.items()})

    for part in ("out_of_fold", "valid"):
        yield from (Metric(f"{part}_{name}", value) for name, value in metrics[part].items())
    if metrics["best_teacher"]:
        yield Metric("best_teacher_auroc", metrics["best_teacher"]["auroc"])
    yield Parameters({f"chosen_{key}": value for key, value in metrics["chosen"].items()})
    yield Table("teachers.json", pd.DataFrame(teachers))
    yield Table("trials.json", pd.DataFrame(trials))
    yield Figure("screening.png", heat_map(cells))
    yield Figure("calibration.png", calibration_plot(curves))
    names = [report.teacher for report in outcome.reports]
    yield Figure("teachers.png", weight_plot(names, [item.weight for item in outcome.reports]))
    yield Summary(_summary(outcome, metrics, chosen))


def _summary(outcome: "Outcome", metrics: Mapping[str, Any], chosen: AlignParams) -> str:
    unanswered = metrics["cases"]["unanswered"]
    said = (
        f"{metrics['chosen']['algorithm']} over {len(outcome.ensemble.teachers)} teachers, AUROC "
        f"{metrics['out_of_fold']['auroc']:.3f} on unseen diseases"
    )
    if metrics["best_teacher"]:
        said += f", best teacher {metrics['best_teacher']['auroc']:.3f}"
    if unanswered:
        said += f"; {unanswered} cases that nobody answered left out"
    if outcome.found.out_of_time:
        said += f"; the search was cut at {chosen.timeout_s:g} s"
    return said


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    from rarealert.alignment.report import rounded

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    text = json.dumps(rounded(content), indent=2, sort_keys=True, allow_nan=False)
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)


def main() -> None:
    """Run the stage in the current workspace."""
    run_stage("align", align)


if __name__ == "__main__":
    main()
