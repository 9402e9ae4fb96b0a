"""Does judging candidates by models that had seen a fold flatter the risks of that fold?

Command: ``python benchmarks/nested_choice.py noise 30`` (repetitions on labels that nothing can
tell, where an AUROC above 0.5 is flattery; screening only) or ``workspace KEPT`` in a workspace
whose ``rationales`` ran (all three stages; folds that are done lie in the folder ``KEPT``). Both
compare ``cross_fit`` as ``align`` does it, where the choice for a fold is judged on the other folds
by models that had seen it, with a choice that is searched for anew inside each fold's training
part. Prints one line of JSON.
"""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from nested import nested_risks, searched

from rarealert.ensemble.ensemble import CrossFitted, cross_fit, fit_model
from rarealert.ensemble.features import FeatureMatrix
from rarealert.ensemble.search import Search, cross_validation, screen
from rarealert.ensemble.training_set import TrainingSet
from rarealert.evaluation.intervals import delong
from rarealert.evaluation.metrics import auroc, measure
from rarealert.params import load_params
from rarealert.paths import Paths
from rarealert.stages.align import read_data
from rarealert.visits.store import read_cases

QUICK = ("logistic", "svm_linear", "svm_rbf", "extra_trees")
FOLDS, SEED = 5, 11
CASES, DISEASES, TEACHERS = 240, 120, 10


def screened(data: TrainingSet, features: FeatureMatrix, algorithms: Sequence[str]) -> Search:
    """The screening of ``align`` on ``data``."""
    fold = data.folds(FOLDS, SEED)
    validation = cross_validation(data, features, fold, SEED)
    trials = screen(validation, algorithms, repeats=1, deadline=math.inf)
    return Search(tuple(trials), fold, validation.columns, out_of_time=False)


def both(
    data: TrainingSet, features: FeatureMatrix, algorithms: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Out-of-fold risks by a screening as ``align`` does it, and by one nested in each fold."""
    found = screened(data, features, algorithms)
    ours = cross_fit(data, found, FOLDS, SEED).risks(data.values)
    models = []
    for number in np.unique(found.fold):
        rows = found.fold != number
        inside = data.part(rows)
        kept = tuple(np.asarray(features.case_ids)[rows])
        within = FeatureMatrix(kept, features.names, inside.values)
        inner = screened(inside, within, algorithms)
        models.append(fit_model(inner.finalists(), inside, inner.columns, FOLDS, SEED))
    return ours, CrossFitted(tuple(models), found.fold).risks(data.values)


def on_noise(repetitions: int) -> dict[str, float]:
    """Mean AUROC of both on labels drawn by lot, and its standard error."""
    names = tuple(f"{group}:{n}" for group in ("risk", "spread") for n in range(TEACHERS))
    told = []
    for repetition in range(repetitions):
        rng = np.random.default_rng(repetition)
        number = np.arange(CASES) % DISEASES
        rare = rng.permutation(np.arange(DISEASES) % 2 == 0)[number]
        values = rng.normal(0.5, 0.2, (CASES, len(names)))
        data = TrainingSet(values, rare, number.astype(str), values)
        features = FeatureMatrix(tuple(f"{n:04d}" for n in range(CASES)), names, values)
        told.append([auroc(rare, risks) for risks in both(data, features, QUICK)])
    rows = np.asarray(told)
    error = rows.std(axis=0, ddof=1) / np.sqrt(repetitions)
    gap = rows[:, 0] - rows[:, 1]
    return {
        "repetitions": repetitions,
        "as_align_does": rows[:, 0].mean(),
        "as_align_does_se": error[0],
        "nested": rows[:, 1].mean(),
        "nested_se": error[1],
        "difference": gap.mean(),
        "difference_se": gap.std(ddof=1) / np.sqrt(repetitions),
    }


def on_workspace(kept: Path) -> dict[str, float]:
    """Both on the training part of the current workspace, with DeLong's test."""
    paths = Paths.here()
    chosen, inputs = load_params(paths.params).align, read_data(paths)
    part, train = inputs.train, read_cases(paths.build("split") / "train.parquet")
    rare, features = part.data.rare, part.features
    found = searched(part.data, features, chosen)
    ours = cross_fit(part.data, found, chosen.folds, chosen.seed).risks(part.data.values)
    apart = nested_risks(train, inputs.signals, inputs.visits, chosen, kept)
    nested = np.asarray([apart[case_id] for case_id in features.case_ids])
    test = delong(rare, ours, nested)
    return {
        "cases": len(ours),
        "feature_sets": len(found.columns),
        "candidates": len(found.trials),
        "as_align_does": auroc(rare, ours),
        "nested": auroc(rare, nested),
        "difference": test.difference,
        "difference_se": test.standard_error,
        "p": test.p_value,
        "slope_as_align_does": measure("calibration_slope", rare, ours),
        "slope_nested": measure("calibration_slope", rare, nested),
        "ece_as_align_does": measure("ece", rare, ours),
        "ece_nested": measure("ece", rare, nested),
    }


def main() -> None:
    """Measure what the command line names."""
    kind, *rest = sys.argv[1:]
    found = on_noise(int(rest[0])) if kind == "noise" else on_workspace(Path(rest[0]))
    print(json.dumps({name: round(value, 4) for name, value in found.items()}))


if __name__ == "__main__":
    main()
