"""Training targets that do not know their answer.

A risk from a model that has seen the case, or another of its disease, leaks the label: an
overfitting model gives 1 to every rare case it was fitted on, and a student taught with such risks
learns a certainty that no new patient will bear out. Here each case's risk comes from members, a
blend and a calibrator fitted on folds other than its own. The choice of algorithm and features is
judged on the other folds too, by models that had seen this one: a choice among a few dozen.
"""

from dataclasses import dataclass

import numpy as np
from joblib import Parallel, delayed  # type: ignore[import-untyped]
from numpy.typing import NDArray

from rarealert.alignment.ensemble import FittedModel, fit_model
from rarealert.alignment.folds import TrainingSet
from rarealert.alignment.search import Search, workers_for


@dataclass(frozen=True)
class CrossFitted:
    """One model a fold, none of which saw that fold, and the fold of each case, ``(n_cases,)``."""

    models: tuple[FittedModel, ...]
    fold: NDArray[np.intp]

    def risks(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The risk 0 to 1 of each case from the model that never saw its disease.

        ``values`` has the rows of the training set, shape ``(n_cases, n_features)``.
        """
        risks = np.empty(len(values))
        for number, model in enumerate(self.models):
            out = self.fold == number
            risks[out] = model.risks(values[out])
        return risks


def cross_fit(data: TrainingSet, found: Search, folds: int, seed: int) -> CrossFitted:
    """For each fold of ``found``, the model that its other folds make.

    The candidates that are best on the other folds are fitted on them, and joined and calibrated
    on out-of-fold scores inside them (nested cross-validation; Varma and Simon, BMC
    Bioinformatics 7:91, 2006).
    """
    models = Parallel(workers_for(len(data.rare)))(
        delayed(fit_model)(
            found.finalists(without=int(number)),
            data.part(found.fold != number),
            found.columns,
            folds,
            seed,
        )
        for number in np.unique(found.fold)
    )
    return CrossFitted(tuple(models), found.fold)
