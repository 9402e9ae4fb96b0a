"""What the align stage reads: cases, answers to them, and both as features and labels.

What the align stage reports: files under ``reports/align`` and items for its run.

Weigh the teachers and calibrate them into one risk (``rarealert align``).

Reads the training and validation parts and the teachers' answers to them, never the test part.
Writes the frozen ensemble, ``build/align/model.skops``, and the risks that the student learns
from, ``build/align/risk.parquet``: out-of-fold for training cases, the frozen model's for
validation. A case that no teacher answered has no risk and no row.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rarealert.errors import BadInputError
from rarealert.files import sha256_of_file, whole, write_json
from rarealert.params import AlignParams, Params
from rarealert.paths import Paths
from rarealert.stages.harness import run_stage
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
from rarealert.visits.case import LabelledCase
from rarealert.visits.store import disease_groups, is_rare, read_cases

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rarealert.ensemble.ensemble import CrossFitted, Ensemble
    from rarealert.ensemble.report import Outcome, Part
    from rarealert.ensemble.search import Search, Trial
    from rarealert.ensemble.signals import Panel


@dataclass(frozen=True)
class Inputs:
    """Cases of both parts, all that teachers said of them, and what their visits say.

    ``blocks`` are the teachers as ``blocks_of`` groups them by the training part.
    """

    train: list[LabelledCase]
    valid: list[LabelledCase]
    panel: "Panel"
    blocks: tuple[tuple[str, ...], ...]
    visits: Mapping[str, tuple[float, ...]]


def read_inputs(paths: Paths) -> Inputs:
    """Read both parts and the answers to them; the test part is not looked at.

    Raises:
        BadInputError: a file is missing or damaged, or nobody answered a training case.
    """
    from rarealert.ensemble.features import blocks_of, visit_features
    from rarealert.ensemble.signals import read_panel

    train = read_cases(paths.build("split") / "train.parquet")
    valid = read_cases(paths.build("split") / "valid.parquet")
    cases = [item.case for item in (*train, *valid)]
    panel = read_panel(
        paths.build("rationales") / "answers.parquet", [case.case_id for case in cases]
    )
    trained_on = panel.among(item.case.case_id for item in train)
    heard = [
        name for place, name in enumerate(panel.teachers) if trained_on.answered()[:, place].any()
    ]
    if not heard:
        raise BadInputError(
            "build/rationales/answers.parquet: no teacher answered a training case; check "
            "teach.panel and reports/rationales/coverage.json."
        )
    blocks = blocks_of(trained_on.of(heard))
    return Inputs(train, valid, panel.of(heard), blocks, visit_features(cases))


def datasets(paths: Paths, inputs: Inputs) -> Iterator[Dataset]:
    """The files that were read, by digest and size."""
    sizes = (
        ("train", paths.build("split") / "train.parquet", len(inputs.train)),
        ("valid", paths.build("split") / "valid.parquet", len(inputs.valid)),
        (
            "answers",
            paths.build("rationales") / "answers.parquet",
            int(inputs.panel.answered().sum()),
        ),
    )
    for name, path, rows in sizes:
        yield Dataset(name, path, sha256_of_file(path), rows, "align")


def part_of(cases: Sequence[LabelledCase], inputs: Inputs) -> "Part":
    """Features and labels of those of ``cases`` that someone answered, by case id."""
    import numpy as np

    from rarealert.ensemble.features import build_features
    from rarealert.ensemble.folds import TrainingSet
    from rarealert.ensemble.report import Part

    of_case = {item.case.case_id: item for item in cases}
    features = build_features(inputs.panel.among(of_case), inputs.blocks, inputs.visits)
    answered = [of_case[name] for name in features.case_ids]
    data = TrainingSet(
        features.values,
        np.asarray(is_rare(answered), dtype=bool),
        np.asarray(disease_groups(answered), dtype=np.str_),
        features.values[:, features.columns("risk")],
    )
    source = np.asarray([item.case.source for item in answered], dtype=np.str_)
    return Part(features, data, source)


_BINS = 10  # of the calibration curves


def report_items(outcome: "Outcome", folder: Path) -> Iterator[Item]:
    """Write the reports into ``folder`` and yield metrics, tables and figures."""
    import pandas as pd

    from rarealert.ensemble.report import metrics_of, screening_of, tables_of, uncertainty_of
    from rarealert.evaluation.metrics import calibration_points

    metrics = metrics_of(outcome)
    cells, trials = screening_of(outcome.found)
    curves = {
        "train, out-of-fold": calibration_points(
            outcome.train.data.rare, outcome.out_of_fold, _BINS
        ),
        "valid": calibration_points(outcome.valid.data.rare, outcome.valid_risks, _BINS),
    }
    tables = tables_of(outcome)
    uncertainty = uncertainty_of(outcome)
    _write_json(folder / "metrics.json", metrics)
    _write_json(folder / "screening.json", {"trials": trials})
    _write_json(folder / "calibration.json", {key: rows.tolist() for key, rows in curves.items()})
    _write_json(folder / "uncertainty.json", uncertainty)
    for name, table in tables.items():
        _write_json(folder / f"{name}.json", table)

    for part in ("out_of_fold", "valid"):
        yield from (Metric(f"{part}_{name}", value) for name, value in metrics[part].items())
    for row in uncertainty["conformal"]:
        yield Metric(f"coverage_at_{row['confidence']:.0%}".replace("%", ""), row["covered"])
    if metrics["best_teacher"]:
        yield Metric("best_teacher_auroc", metrics["best_teacher"]["auroc"])
    chosen = metrics["chosen"]
    yield Parameters({f"chosen_{key}": chosen[key] for key in ("blend", "calibration")})
    yield Table("members.json", pd.DataFrame(chosen["members"]))
    yield Table("trials.json", pd.DataFrame(trials))
    for name, table in tables.items():
        yield Table(f"{name}.json", pd.DataFrame(table[name]))
    yield from _figures(outcome, cells, curves, uncertainty)


def _figures(
    outcome: "Outcome",
    cells: Mapping[tuple[str, str], float],
    curves: Mapping[str, Any],
    uncertainty: Mapping[str, Any],
) -> Iterator[Figure]:
    from rarealert.ensemble import plots

    yield Figure("screening.png", plots.heat_map(cells))
    yield Figure("calibration.png", plots.calibration_plot(curves))
    names = [report.teacher for report in outcome.reports]
    weights = [report.weight for report in outcome.reports]
    yield Figure("teachers.png", plots.weight_plot(names, weights, outcome.judged))
    yield Figure("abstention.png", plots.abstention_plot(uncertainty["abstention"]))
    yield from _explained(outcome)


def _explained(outcome: "Outcome") -> Iterator[Figure]:
    """A beeswarm over the explained cases; waterfalls of the most wrong, right and torn."""
    import numpy as np

    from rarealert.ensemble.plots import beeswarm, waterfall

    found, train = outcome.shapley, outcome.train
    if not found.names:
        return
    columns = [train.features.names.index(name) for name in found.names]
    yield Figure(
        "shapley.png",
        beeswarm(found.names, found.contributions, train.data.cells(found.rows, columns)),
    )
    risks, rare = outcome.out_of_fold[found.rows], train.data.rare[found.rows]
    wrong = np.abs(risks - rare)
    shown = {
        "most_wrong": np.argmax(wrong),
        "most_right": np.argmin(wrong),
        "most_torn": np.argmin(np.abs(risks - 0.5)),
    }
    for name, place in shown.items():
        figure = waterfall(
            found.names,
            found.contributions[place],
            float(found.base[place]),
            train.features.case_ids[found.rows[place]],
            rare=bool(rare[place]),
        )
        yield Figure(f"waterfall_{name}.png", figure)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    from rarealert.ensemble.report import rounded

    write_json(path, rounded(content))


_OPERATING_POINT = 0.95  # specificity or sensitivity at which the ensemble's thresholds lie


def align(params: Params, paths: Paths) -> Iterator[Item]:
    """Search, fit, calibrate and freeze; see the module.

    Raises:
        BadInputError: an input is missing, a class has too few diseases with an answered case, or
            the validation part lacks a class, so that no threshold can be chosen on it.
    """
    from rarealert.ensemble.folds import check_learnable

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
    from rarealert.ensemble.ensemble import cross_fit, fit_model, freeze
    from rarealert.ensemble.search import search, storage_of

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
    thresholds = _thresholds(data.valid, valid_risks)
    ensemble = freeze(data.blocks, model, thresholds, (valid.rare, valid_risks), train.values)
    return found, Fitted(ensemble, crossed, crossed.risks(train.values), valid_risks)


def look_back(data: AlignData, found: "Search", fitted: Fitted, chosen: AlignParams) -> "Outcome":
    """What was found with its explanation: whom the ensemble hears, and what breaks it.

    Of more than ``align.search_cases`` cases a sample is explained, by the same models.
    """
    from rarealert.ensemble.explanation import explain, teacher_reports
    from rarealert.ensemble.report import Outcome
    from rarealert.ensemble.robustness import gather, troubles

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
    from rarealert.evaluation.metrics import threshold_at_sensitivity, threshold_at_specificity

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
    from rarealert.ensemble.report import metrics_of

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
