"""Training targets that do not know their answer.

A risk from a model that has seen the case, or another of its disease, leaks the label: an
overfitting model gives 1 to every rare case it was fitted on, and a student taught with such risks
learns a certainty that no new patient will bear out. Here each case's risk comes from a pipeline,
a calibrator and a choice of both that had no part in its fold of diseases.
"""

import numpy as np
from numpy.typing import NDArray

from rarealert.alignment.ensemble import fit_model
from rarealert.alignment.features import FeatureMatrix
from rarealert.alignment.folds import TrainingSet
from rarealert.alignment.search import Search


def out_of_fold_risks(
    data: TrainingSet, features: FeatureMatrix, found: Search, folds: int, seed: int
) -> NDArray[np.float64]:
    """The risk 0 to 1 of each case from a model that never saw its disease, shape ``(n_cases,)``.

    For each fold of ``found``: the candidate that is best on the other folds is fitted on them,
    and calibrated on out-of-fold scores inside them (nested cross-validation; Varma and Simon,
    BMC Bioinformatics 7:91, 2006).
    """
    risks = np.empty(len(data.rare))
    for number in np.unique(found.fold):
        out = found.fold == number
        candidate = found.best_without(int(number)).candidate
        chosen = data.only(features.columns(candidate.feature_set))
        model = fit_model(candidate, chosen.part(~out), folds, seed)
        risks[out] = model.risks(chosen.values[out])
    return risks
