"""What the alignment reports of itself: plain figures, free of NaN, for files and runs."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rarealert.calibration.conformal import fit_cuts
from rarealert.ensemble.ensemble import CONFIDENCES, Ensemble
from rarealert.ensemble.explanation import (
    Shapley,
    TeacherReport,
    best_teacher,
    importances,
    stability,
)
from rarealert.ensemble.features import FeatureMatrix
from rarealert.ensemble.folds import TrainingSet
from rarealert.ensemble.robustness import Trouble
from rarealert.ensemble.search import Search, mean_known
from rarealert.evaluation.metrics import UndefinedMetricError, auroc, measure

_QUALITY = (
    "auroc",
    "auprc",
    "brier",
    "log_loss",
    "ece",
    "calibration_slope",
    "calibration_intercept",
)
_STRANGE = 0.95  # share 0-1 of training cases that are more familiar
_KEPT = tuple(round(1 - 0.05 * step, 2) for step in range(16))  # shares of cases, 1 to 0.25
_DIGITS = 6  # of figures in reports: more is noise in a diff


@dataclass(frozen=True)
class Part:
    """The cases of a part that someone answered, in the order of their ids.

    ``source`` is that of each case, shape ``(n_cases,)``.
    """

    features: FeatureMatrix
    data: TrainingSet
    source: NDArray[np.str_]


@dataclass(frozen=True)
class Outcome:
    """All that a run of the alignment found.

    ``out_of_fold`` has a risk for each case of ``train``, ``valid_risks`` for each of ``valid``;
    ``unanswered`` counts the cases of both parts that no teacher answered, ``judged`` those of
    ``train`` that the tables of teachers and of what breaks the ensemble rest on.
    """

    train: Part
    valid: Part
    unanswered: int
    judged: int
    found: Search
    ensemble: Ensemble
    out_of_fold: NDArray[np.float64]
    valid_risks: NDArray[np.float64]
    reports: list[TeacherReport]
    broken: list[Trouble]
    shapley: Shapley


def metrics_of(outcome: Outcome) -> dict[str, Any]:
    """What ``reports/align/metrics.json`` holds, free of NaN."""
    train, valid, model = outcome.train, outcome.valid, outcome.ensemble.model
    return {
        "best_teacher": best_teacher(outcome.reports),
        "by_source": {
            str(source): quality(
                train.data.rare[train.source == source],
                outcome.out_of_fold[train.source == source],
            )
            for source in np.unique(train.source)
        },
        "cases": {
            "train": len(train.features.case_ids),
            "valid": len(valid.features.case_ids),
            "unanswered": outcome.unanswered,
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
        "out_of_fold": quality(train.data.rare, outcome.out_of_fold),
        "valid": quality(valid.data.rare, outcome.valid_risks),
        "thresholds": dict(outcome.ensemble.thresholds),
        "shapley_rank_correlation_of_folds": stability(outcome.shapley),
        "search": {
            "trials": len(outcome.found.trials),
            "pruned": sum(trial.pruned for trial in outcome.found.trials),
            "out_of_time": outcome.found.out_of_time,
        },
    }


def tables_of(outcome: Outcome) -> dict[str, dict[str, Any]]:
    """What the tables in ``reports/align`` hold, by name, with the cases they rest on."""
    cases = len(outcome.train.features.case_ids)
    judged = {"cases": outcome.judged, "of": cases}
    explained = {"cases": len(outcome.shapley.rows), "of": cases}
    return {
        "teachers": {"teachers": teachers_of(outcome), "judged_on": judged},
        "robustness": {
            "robustness": [asdict(row) for row in outcome.broken],
            "judged_on": judged,
        },
        "shapley": {
            "shapley": [asdict(row) for row in importances(outcome.shapley)],
            "judged_on": explained,
        },
    }


def teachers_of(outcome: Outcome) -> list[dict[str, Any]]:
    """A row for each teacher: its weight, its Shapley values, what is lost without it."""
    by_name = {row.name: row for row in importances(outcome.shapley)}
    rows = []
    for report in outcome.reports:
        told = by_name.get(f"risk:{report.teacher}")
        rows.append(
            asdict(report)
            | {
                "shapley_mean_abs": told.mean if told else 0.0,
                "shapley_sd_over_folds": told.sd_over_folds if told else 0.0,
            }
        )
    return rows


def uncertainty_of(outcome: Outcome) -> dict[str, Any]:
    """What ``reports/align/uncertainty.json`` holds, free of NaN."""
    rare, fold = outcome.train.data.rare, outcome.found.fold
    cuts = outcome.ensemble.cuts
    strange = outcome.ensemble.strangeness(outcome.valid.data.values)
    return {
        "abstention": abstention_curve(rare, outcome.out_of_fold),
        "conformal": [asdict(row) for row in coverages(rare, outcome.out_of_fold, fold)],
        "cuts": {str(level): one.model_dump() for level, one in cuts.items()},
        "valid_stranger_than_95_percent": float((strange > _STRANGE).mean()),
    }


@dataclass(frozen=True)
class Coverage:
    """What sets of a stated ``confidence`` did on diseases that did not set their cuts."""

    confidence: float
    covered: float
    covered_rare: float | None
    covered_nonrare: float | None
    decided: float
    cases: int


def coverages(
    rare: NDArray[np.bool_], risks: NDArray[np.float64], fold: NDArray[np.intp]
) -> list[Coverage]:
    """Coverage on each fold with cuts from the others; ``risks`` must be out-of-fold."""
    held = np.zeros((len(CONFIDENCES), len(rare)), dtype=bool)
    decided = np.zeros_like(held)
    for number in np.unique(fold):
        out = fold == number
        for place, level in enumerate(CONFIDENCES):
            cuts = fit_cuts(rare[~out], risks[~out], level)
            held[place, out] = cuts.covers(rare[out], risks[out])
            decided[place, out] = cuts.decides(risks[out])
    return [
        Coverage(
            level,
            float(held[place].mean()),
            float(held[place, rare].mean()) if rare.any() else None,
            float(held[place, ~rare].mean()) if (~rare).any() else None,
            float(decided[place].mean()),
            len(rare),
        )
        for place, level in enumerate(CONFIDENCES)
    ]


def abstention_curve(rare: NDArray[np.bool_], risks: NDArray[np.float64]) -> list[dict[str, float]]:
    """Accuracy, Brier score and AUROC of the cases kept when the least sure are sent on.

    Sure is far from 0.5; a row for each share of cases that is kept.
    """
    order = np.argsort(-np.abs(risks - 0.5), kind="stable")
    rows = []
    for share in _KEPT:
        kept = order[: max(1, round(share * len(order)))]
        wrong = risks[kept] - rare[kept]
        row = {
            "kept": share,
            "accuracy": float(((risks[kept] >= 0.5) == rare[kept]).mean()),
            "brier": float((wrong**2).mean()),
        }
        with contextlib.suppress(UndefinedMetricError):  # the surest are all of one class
            row["auroc"] = auroc(rare[kept], risks[kept])
        rows.append(row)
    return rows


def quality(rare: NDArray[np.bool_], risks: NDArray[np.float64]) -> dict[str, float]:
    """Metrics that these cases define; a slope of one single risk, say, is left out."""
    found = {}
    for name in _QUALITY:
        try:
            found[name] = measure(name, rare, risks)
        except UndefinedMetricError:
            continue
    return found


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


def rounded(value: Any) -> Any:
    """``value`` with all floats inside it rounded for a report."""
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, Mapping):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    return value
