"""Weigh the teachers and calibrate them into one risk (``rarealert align``).

Reads the training and validation parts and the teachers' answers to them, never the test part.
Writes the frozen ensemble, ``build/align/model.skops``, and the risks that the student learns
from, ``build/align/risk.parquet``: out-of-fold for training cases, the frozen model's for
validation. A case that no teacher answered has no risk and no row.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rarealert.errors import BadInputError
from rarealert.files import whole
from rarealert.params import AlignParams, Params
from rarealert.paths import Paths
from rarealert.stages.align_inputs import datasets, part_of, read_inputs
from rarealert.stages.align_report import report_items
from rarealert.stages.harness import run_stage
from rarealert.tracking.items import Child, Item, Metric, Parameters, Summary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rarealert.alignment.ensemble import Ensemble
    from rarealert.alignment.panel import Panel
    from rarealert.alignment.report import Outcome, Part
    from rarealert.alignment.search import Search, Trial
    from rarealert.alignment.targets import CrossFitted

_OPERATING_POINT = 0.95  # specificity or sensitivity at which the ensemble's thresholds lie


def align(params: Params, paths: Paths) -> Iterator[Item]:
    """Search, fit, calibrate and freeze; see the module.

    Raises:
        BadInputError: an input is missing, a class has too few diseases with an answered case, or
            the validation part lacks a class, so that no threshold can be chosen on it.
    """
    from rarealert.alignment.folds import check_learnable

    chosen = params.align
    inputs = read_inputs(paths)
    yield from datasets(paths, inputs)
    train, valid = part_of(inputs.train, inputs), part_of(inputs.valid, inputs)
    check_learnable(train.data, "build/split/train.parquet")
    _check_both_classes(valid)

    unanswered = len(inputs.train) + len(inputs.valid) - len(inputs.panel.case_ids)
    data = AlignData(train, valid, inputs.panel, inputs.blocks, inputs.visits, unanswered)
    found, fitted = search_and_fit(data, chosen, paths.build("align") / "study.log")
    yield from (_child(trial) for trial in found.trials)
    fitted.ensemble.save(paths.build("align") / "model.skops")
    _write_risks(paths.build("align") / "risk.parquet", train, found, valid, fitted)
    outcome = look_back(data, found, fitted, chosen)
    yield from report_items(outcome, paths.report("align"))
    yield Summary(_summary(outcome, chosen))


@dataclass(frozen=True)
class AlignData:
    """What the ensemble is made of: both parts, the answers behind them and what visits say.

    ``unanswered`` counts the cases of both parts that no teacher answered.
    """

    train: "Part"
    valid: "Part"
    panel: "Panel"
    blocks: tuple[tuple[str, ...], ...]
    visits: Mapping[str, Sequence[float]]
    unanswered: int


@dataclass(frozen=True)
class Fitted:
    """The frozen ensemble, the models that each missed a fold, and the risks of both parts."""

    ensemble: "Ensemble"
    crossed: "CrossFitted"
    out_of_fold: "NDArray[np.float64]"
    valid_risks: "NDArray[np.float64]"


def search_and_fit(data: AlignData, chosen: AlignParams, journal: Path) -> tuple["Search", Fitted]:
    """Screen, tune, fit and calibrate; the studies lie in ``journal``."""
    from rarealert.alignment.ensemble import Ensemble, fit_model
    from rarealert.alignment.selection import search
    from rarealert.alignment.study import storage_of
    from rarealert.alignment.targets import cross_fit
    from rarealert.alignment.uncertainty import conformal_cuts, learn_familiarity

    train, valid = data.train.data, data.valid.data
    found = search(
        train,
        data.train.features,
        folds=chosen.folds,
        repeats=chosen.repeats,
        trials=chosen.trials,
        timeout_s=chosen.timeout_s,
        most_cases=chosen.search_cases,
        seed=chosen.seed,
        storage=storage_of(journal),
    )
    crossed = cross_fit(train, found, chosen.folds, chosen.seed)
    model = fit_model(found.finalists(), train, found.columns, chosen.folds, chosen.seed)
    valid_risks = model.risks(valid.values)
    ensemble = Ensemble(
        data.blocks,
        model,
        _thresholds(data.valid, valid_risks),
        conformal_cuts(valid.rare, valid_risks),
        learn_familiarity(train.values, train.rare),
    )
    return found, Fitted(ensemble, crossed, crossed.risks(train.values), valid_risks)


def look_back(data: AlignData, found: "Search", fitted: Fitted, chosen: AlignParams) -> "Outcome":
    """What was found with its explanation: whom the ensemble hears, and what breaks it.

    Of more than ``align.search_cases`` cases a sample is explained, by the same models.
    """
    from rarealert.alignment.evidence import gather
    from rarealert.alignment.explain import teacher_reports
    from rarealert.alignment.report import Outcome
    from rarealert.alignment.robustness import troubles
    from rarealert.alignment.shapley import explain

    train = data.train
    heard = data.panel.among(train.features.case_ids)
    evidence = gather(heard, data.blocks, data.visits, train.data, fitted.crossed)
    sample = evidence.sample(chosen.search_cases, chosen.seed)
    return Outcome(
        train,
        data.valid,
        data.unanswered,
        len(sample.places),
        found,
        fitted.ensemble,
        fitted.out_of_fold,
        fitted.valid_risks,
        teacher_reports(sample, found, chosen.seed),
        troubles(sample, found, train.source[sample.places], chosen.seed),
        explain(evidence, train.features.names, chosen.explained_cases, chosen.seed),
    )


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
    name = "auroc_of_folds_done" if trial.pruned else "auroc"
    folds = (*trial.folds, *trial.repeated)
    return Child(
        trial.name,
        (
            Parameters({**settings, **candidate.settings, "pruned": trial.pruned}),
            Metric(name, trial.auroc),
            *(
                Metric("auroc_of_fold", auroc, step)
                for step, auroc in enumerate(folds)
                if auroc == auroc  # NaN, where a fold has one class, is no metric
            ),
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
    valid: "Part",
    fitted: Fitted,
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"case_id": case_id, "part": "train", "fold": int(fold), "risk": float(risk)}
        for case_id, fold, risk in zip(
            train.features.case_ids, found.fold, fitted.out_of_fold, strict=True
        )
    ]
    rows += [
        {"case_id": case_id, "part": "valid", "fold": None, "risk": float(risk)}
        for case_id, risk in zip(valid.features.case_ids, fitted.valid_risks, strict=True)
    ]
    schema = pa.schema(
        [
            pa.field("case_id", pa.string(), nullable=False),
            pa.field("part", pa.string(), nullable=False),
            pa.field("fold", pa.int16()),
            pa.field("risk", pa.float64(), nullable=False),
        ]
    )
    with whole(path) as partial:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), partial)


def _summary(outcome: "Outcome", chosen: AlignParams) -> str:
    from rarealert.alignment.report import metrics_of

    metrics = metrics_of(outcome)
    said = (
        f"{metrics['chosen']['blend']} of {len(outcome.ensemble.model.members)} models over "
        f"{len(outcome.ensemble.teachers)} teachers, AUROC "
        f"{metrics['out_of_fold']['auroc']:.3f} on unseen diseases"
    )
    best = metrics["best_teacher"]
    if best:
        said += f", best teacher {best['auroc']:.3f}"
        if best["cases"] < metrics["cases"]["train"]:
            said += f" on the {best['cases']:,} of {metrics['cases']['train']:,} cases it answered"
    if outcome.unanswered:
        said += f"; {outcome.unanswered} cases that nobody answered left out"
    if outcome.judged < metrics["cases"]["train"]:
        said += f"; tables of teachers and robustness on {outcome.judged:,} cases drawn"
    if outcome.found.out_of_time:
        said += f"; the search was cut at {chosen.timeout_s:g} s"
    return said


def main() -> None:
    """Run the stage in the current workspace."""
    run_stage("align", align)


if __name__ == "__main__":
    main()
