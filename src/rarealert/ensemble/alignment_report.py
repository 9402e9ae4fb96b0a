"""The report of the alignment: files under ``reports/align`` and items for its run."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rarealert.calibration.conformal import fit_cuts
from rarealert.ensemble import alignment_plots as plots
from rarealert.ensemble.alignment import Outcome
from rarealert.ensemble.ensemble import CONFIDENCES
from rarealert.ensemble.explanation import best_teacher, importances, stability
from rarealert.ensemble.search import Search, Trial, mean_known
from rarealert.evaluation.metrics import UndefinedMetricError, auroc, calibration_points, measure
from rarealert.files import write_json
from rarealert.tracking.items import Child, Figure, Item, Metric, Parameters, Table

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_QUALITY = (
    "auroc",
    "auprc",
    "brier",
    "log_loss",
    "ece",
    "calibration_slope",
    "calibration_intercept",
)
_BINS = 10  # of the calibration curves
_UNFAMILIAR = 0.95  # share 0-1 of training cases that are more familiar
_KEPT = tuple(round(1 - 0.05 * step, 2) for step in range(16))  # shares of cases, 1 to 0.25
_DIGITS = 6  # of figures in reports: more is noise in a diff


def report_items(outcome: Outcome, folder: Path) -> Iterator[Item]:
    """Write the reports into ``folder`` and yield metrics, tables and figures."""
    metrics = metrics_of(outcome)
    cells, trials = screening_of(outcome.found)
    fitted, train, valid = outcome.fitted, outcome.data.train.data, outcome.data.valid.data
    curves = {
        "train, out-of-fold": calibration_points(train.rare, fitted.out_of_fold, _BINS),
        "valid": calibration_points(valid.rare, fitted.valid_risks, _BINS),
    }
    tables = tables_of(outcome)
    uncertainty = uncertainty_of(outcome)
    files: dict[str, Mapping[str, Any]] = {
        "metrics": metrics,
        "screening": {"trials": trials},
        "calibration": {name: points.tolist() for name, points in curves.items()},
        "uncertainty": uncertainty,
        **tables,
    }
    for name, content in files.items():
        write_json(folder / f"{name}.json", rounded(content))

    for part in ("out_of_fold", "valid"):
        yield from (Metric(f"{part}_{name}", value) for name, value in metrics[part].items())
    for row in uncertainty["conformal"]:
        yield Metric(f"coverage_at_{100 * row['confidence']:.0f}", row["covered"])
    if metrics["best_teacher"]:
        yield Metric("best_teacher_auroc", metrics["best_teacher"]["auroc"])
    chosen = metrics["chosen"]
    yield Parameters({f"chosen_{key}": chosen[key] for key in ("blend", "calibration")})
    yield Table("members.json", pd.DataFrame(chosen["members"]))
    yield Table("trials.json", pd.DataFrame(trials))
    for name, table in tables.items():
        yield Table(f"{name}.json", pd.DataFrame(table[name]))
    yield Figure("screening.png", plots.heat_map(cells))
    yield Figure("calibration.png", plots.calibration_plot(curves))
    weights = {report.teacher: report.weight for report in outcome.teachers}
    yield Figure("teachers.png", plots.weight_plot(weights, outcome.judged))
    yield Figure("abstention.png", plots.abstention_plot(uncertainty["abstention"]))
    yield from _explained(outcome)


def _explained(outcome: Outcome) -> Iterator[Figure]:
    """A beeswarm over the explained cases; waterfalls of the most wrong, right and undecided."""
    found, train = outcome.shapley, outcome.data.train
    if not found.names:
        return
    cells = train.features.cells(found.rows, found.names)
    yield Figure("shapley.png", plots.beeswarm(found.names, found.contributions, cells))
    risks, rare = outcome.fitted.out_of_fold[found.rows], train.data.rare[found.rows]
    wrong = np.abs(risks - rare)
    shown = {
        "most_wrong": np.argmax(wrong),
        "most_right": np.argmin(wrong),
        "most_torn": np.argmin(np.abs(risks - 0.5)),
    }
    for name, place in shown.items():
        figure = plots.waterfall(
            found.names,
            found.contributions[place],
            float(found.base[place]),
            train.features.case_ids[found.rows[place]],
            rare=bool(rare[place]),
        )
        yield Figure(f"waterfall_{name}.png", figure)


def metrics_of(outcome: Outcome) -> dict[str, Any]:
    """The content of ``reports/align/metrics.json``, free of NaN."""
    data, fitted = outcome.data, outcome.fitted
    rare, model = data.train.data.rare, fitted.ensemble.model
    of_source = {str(one): data.train.source == one for one in np.unique(data.train.source)}
    return {
        "best_teacher": best_teacher(outcome.teachers),
        "by_source": {
            source: _quality(rare[rows], fitted.out_of_fold[rows])
            for source, rows in of_source.items()
        },
        "cases": {
            "train": len(data.train.features.case_ids),
            "valid": len(data.valid.features.case_ids),
            "unanswered": data.unanswered,
        },
        "chosen": {
            "blend": model.blend.method,
            "calibration": model.calibrator.method,
            "members": [
                {
                    "algorithm": member.candidate.algorithm,
                    "feature_set": member.candidate.feature_set,
                    "weight": weight,
                    **member.candidate.settings,
                }
                for member, weight in zip(model.members, model.blend.weights, strict=True)
            ],
        },
        "out_of_fold": _quality(rare, fitted.out_of_fold),
        "valid": _quality(data.valid.data.rare, fitted.valid_risks),
        "thresholds": dict(fitted.ensemble.thresholds),
        "shapley_rank_correlation_of_folds": stability(outcome.shapley),
        "search": {
            "trials": len(outcome.found.trials),
            "pruned": sum(trial.pruned for trial in outcome.found.trials),
            "out_of_time": outcome.found.out_of_time,
        },
    }


def _quality(rare: Bools, risks: Floats) -> dict[str, float]:
    """The metrics that these cases define; the slope of a single risk, say, is left out."""
    found = {}
    for name in _QUALITY:
        with contextlib.suppress(UndefinedMetricError):
            found[name] = measure(name, rare, risks)
    return found


def tables_of(outcome: Outcome) -> dict[str, dict[str, Any]]:
    """The tables in ``reports/align`` by name, with the number of cases they rest on."""
    cases = len(outcome.data.train.features.case_ids)
    judged = {"cases": outcome.judged, "of": cases}
    explained = {"cases": len(outcome.shapley.rows), "of": cases}
    ranked = importances(outcome.shapley)
    by_name = {row.name: row for row in ranked}
    teachers = []
    for report in outcome.teachers:
        row = by_name.get(f"risk:{report.teacher}")
        shapley = {
            "shapley_mean_abs": row.mean if row else 0.0,
            "shapley_sd_over_folds": row.sd_over_folds if row else 0.0,
        }
        teachers.append(asdict(report) | shapley)
    return {
        "teachers": {"teachers": teachers, "judged_on": judged},
        "robustness": {
            "robustness": [asdict(row) for row in outcome.stress_tests],
            "judged_on": judged,
        },
        "shapley": {"shapley": [asdict(row) for row in ranked], "judged_on": explained},
    }


def uncertainty_of(outcome: Outcome) -> dict[str, Any]:
    """The content of ``reports/align/uncertainty.json``, free of NaN."""
    data, risks, ensemble = outcome.data, outcome.fitted.out_of_fold, outcome.fitted.ensemble
    rare = data.train.data.rare
    unfamiliar = ensemble.unfamiliarity(data.valid.data.values) > _UNFAMILIAR
    return {
        "abstention": abstention_curve(rare, risks),
        "conformal": coverages(rare, risks, outcome.found.fold),
        "cuts": {str(level): one.model_dump() for level, one in ensemble.cuts.items()},
        "valid_stranger_than_95_percent": float(unfamiliar.mean()),
    }


def coverages(rare: Bools, risks: Floats, fold: NDArray[np.intp]) -> list[dict[str, Any]]:
    """Measure the sets of each confidence on each fold, with cuts from the other folds.

    ``risks`` must be out-of-fold. A row holds the shares 0 to 1 of cases ``covered``, of either
    label and of each, and ``decided``.
    """
    rows = []
    for level in CONFIDENCES:
        covered, decided = np.zeros(len(rare), dtype=bool), np.zeros(len(rare), dtype=bool)
        for number in np.unique(fold):
            out = fold == number
            cuts = fit_cuts(rare[~out], risks[~out], level)
            covered[out] = cuts.covers(rare[out], risks[out])
            decided[out] = cuts.decides(risks[out])
        row = {
            "confidence": level,
            "covered": float(covered.mean()),
            "covered_rare": float(covered[rare].mean()),
            "covered_nonrare": float(covered[~rare].mean()),
            "decided": float(decided.mean()),
            "cases": len(rare),
        }
        rows.append(row)
    return rows


def abstention_curve(rare: Bools, risks: Floats) -> list[dict[str, float]]:
    """Accuracy, Brier score and AUROC of the cases kept when the least certain are left out.

    Certain is far from 0.5; one row for each share of cases that is kept.
    """
    order = np.argsort(-np.abs(risks - 0.5), kind="stable")
    rows = []
    for share in _KEPT:
        kept = order[: max(1, round(share * len(order)))]
        row = {
            "kept": share,
            "accuracy": float(((risks[kept] >= 0.5) == rare[kept]).mean()),
            "brier": float(((risks[kept] - rare[kept]) ** 2).mean()),
        }
        with contextlib.suppress(UndefinedMetricError):  # the most certain are all of one class
            row["auroc"] = auroc(rare[kept], risks[kept])
        rows.append(row)
    return rows


def screening_of(found: Search) -> tuple[dict[tuple[str, str], float], list[dict[str, Any]]]:
    """AUROC by algorithm and feature set over all repeats, and a row for every trial."""
    cells: dict[tuple[str, str], float] = {}
    rows = []
    for trial in found.trials:
        candidate = trial.candidate
        folds = (*trial.folds, *trial.repeated)
        known = [auroc for auroc in folds if not np.isnan(auroc)]
        if trial.name.startswith("screen "):
            cells[candidate.algorithm, candidate.feature_set] = mean_known(folds)
        rows.append(
            {
                "trial": trial.name,
                "algorithm": candidate.algorithm,
                "feature_set": candidate.feature_set,
                "auroc": mean_known(folds),
                "sd_of_folds": float(np.std(known)) if known else None,
                "folds": len(folds),
                "pruned": trial.pruned,
                "settings": json.dumps(rounded(dict(candidate.settings)), sort_keys=True),
            }
        )
    return cells, rows


def trial_item(trial: Trial) -> Child:
    """The child run of one trial; a fold without an AUROC has no metric."""
    candidate = trial.candidate
    settings = {"algorithm": candidate.algorithm, "feature_set": candidate.feature_set}
    name = "auroc_of_folds_done" if trial.pruned else "auroc"
    folds = (*trial.folds, *trial.repeated)
    of_folds = [
        Metric("auroc_of_fold", auroc, step)
        for step, auroc in enumerate(folds)
        if not np.isnan(auroc)
    ]
    parameters = Parameters({**settings, **candidate.settings, "pruned": trial.pruned})
    return Child(trial.name, (parameters, Metric(name, trial.auroc), *of_folds))


def summary_of(outcome: Outcome, timeout_s: float) -> str:
    """One sentence for the terminal and the run."""
    metrics, ensemble = metrics_of(outcome), outcome.fitted.ensemble
    cases = metrics["cases"]["train"]
    sentence = (
        f"{metrics['chosen']['blend']} of {len(ensemble.model.members)} models over "
        f"{len(ensemble.teachers)} teachers, AUROC {metrics['out_of_fold']['auroc']:.3f} on "
        "unseen diseases"
    )
    best = metrics["best_teacher"]
    if best:
        sentence += f", best teacher {best['auroc']:.3f}"
        if best["cases"] < cases:
            sentence += f" on the {best['cases']:,} of {cases:,} cases it answered"
    if outcome.data.unanswered:
        sentence += f"; {outcome.data.unanswered} unanswered cases left out"
    if outcome.judged < cases:
        sentence += f"; tables of teachers and robustness on {outcome.judged:,} cases drawn"
    if outcome.found.out_of_time:
        sentence += f"; the search was cut at {timeout_s:g} s"
    return sentence


def rounded(value: Any) -> Any:
    """``value`` with all floats inside it rounded for a report."""
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, Mapping):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    return value
