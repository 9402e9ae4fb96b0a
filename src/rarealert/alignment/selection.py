"""Stages one and two together: screen every cell, then tune the best algorithms."""

import time

import numpy as np
from numpy.typing import NDArray

from rarealert.alignment.algorithms import algorithms_for
from rarealert.alignment.features import FeatureMatrix
from rarealert.alignment.folds import TrainingSet, disease_folds
from rarealert.alignment.search import Search, best_algorithms, make_judge, screen
from rarealert.alignment.study import tune

_SCREENING = 0.6  # share of the time that screening may take before tuning must begin


def search(
    data: TrainingSet,
    features: FeatureMatrix,
    *,
    folds: int,
    repeats: int,
    trials: int,
    timeout_s: float,
    most_cases: int,
    seed: int,
    storage: str,
) -> Search:
    """Screen all cells, then tune the best algorithms with ``trials`` Optuna trials each.

    ``data.values`` and ``features`` hold the same rows. Of more than ``most_cases`` cases, whole
    diseases are drawn to search on; only algorithms that can be fitted on all of them stand for
    election. ``storage`` is where the studies lie (``study.storage_of``). The same inputs give the
    same search, bit for bit, unless ``timeout_s`` ends it early, which ``out_of_time`` tells.
    """
    started = time.monotonic()
    fold = disease_folds(data, folds, seed)
    drawn = _whole_diseases(data, most_cases, seed)
    judge = make_judge(data.part(drawn), features, fold[drawn], seed)
    screened = screen(
        judge,
        algorithms_for(len(data.rare)),
        repeats=repeats,
        deadline=started + _SCREENING * timeout_s,
    )
    tuned = tune(
        judge,
        best_algorithms(screened),
        trials=trials,
        storage=storage,
        deadline=started + timeout_s,
    )
    late = time.monotonic() > started + timeout_s
    return Search((*screened, *tuned), fold, judge.columns, late)


def _whole_diseases(data: TrainingSet, most: int, seed: int) -> NDArray[np.bool_]:
    """Which cases to search on: all, or those of randomly drawn diseases up to ``most`` cases."""
    if len(data.rare) <= most:
        return np.ones(len(data.rare), dtype=bool)
    diseases, which, sizes = np.unique(data.disease, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(diseases))
    enough = np.searchsorted(np.cumsum(sizes[order]), most) + 1
    return np.isin(which, order[:enough])
