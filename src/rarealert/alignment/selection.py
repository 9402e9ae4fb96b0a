"""Stages one and two together: screen every cell, then tune the best algorithms."""

import time

from rarealert.alignment.algorithms import algorithms_for
from rarealert.alignment.features import FeatureMatrix
from rarealert.alignment.folds import TrainingSet, disease_folds, drawn_in_folds
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

    ``data.values`` and ``features`` hold the same rows. Of more than ``most_cases`` cases, that
    many are drawn in all folds to search on; only algorithms that can be fitted on every case
    stand for election. ``storage`` is where the studies lie (``study.storage_of``). The same inputs
    give the same search, bit for bit, unless ``timeout_s`` ends it early, which ``out_of_time``
    tells.
    """
    started = time.monotonic()
    fold = disease_folds(data, folds, seed)
    drawn = drawn_in_folds(data.rare, fold, most_cases, seed)
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
