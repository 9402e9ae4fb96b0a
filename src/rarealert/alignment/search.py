"""Find what weighs the teachers best: every algorithm on every feature set, then Optuna.

Stage one screens each cell of algorithm and feature set with the algorithm's default settings.
Stage two tunes the best few algorithms, feature set included. Everything is judged by the AUROC
of scores for diseases the model never saw, weighted so that who was asked tells nothing.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import optuna
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from rarealert.alignment.algorithms import ALGORITHMS, Settings, fit_pipeline, raw_scores
from rarealert.alignment.balance import independence_weights
from rarealert.alignment.features import FeatureMatrix
from rarealert.alignment.folds import TrainingSet, disease_folds

_FINALISTS = 3  # algorithms that are tuned; the fourth never came within seed noise of the first
_NOT_PRUNED = 2  # folds before a trial may be given up: one fold's AUROC says too little


@dataclass(frozen=True)
class Candidate:
    """What can be fitted: an algorithm, its settings and a feature set."""

    algorithm: str
    feature_set: str
    settings: Settings


@dataclass(frozen=True)
class Trial:
    """A candidate with its out-of-fold ``scores``, shape ``(n_cases,)``, and their AUROC.

    ``scores`` are ``None`` and ``auroc`` is that of the folds done where the trial was pruned.
    """

    name: str
    candidate: Candidate
    auroc: float
    scores: NDArray[np.float64] | None = field(repr=False)


@dataclass(frozen=True)
class Search:
    """All trials in the order in which they ran, and the folds they were judged on."""

    trials: tuple[Trial, ...]
    fold: NDArray[np.intp]
    weights: NDArray[np.float64]
    rare: NDArray[np.bool_]
    out_of_time: bool

    @property
    def best(self) -> Trial:
        """The finished trial of the highest AUROC; of equals the one that ran first."""
        return max((trial for trial in self.trials if trial.scores is not None), key=_auroc)

    def best_without(self, fold: int) -> Trial:
        """The best trial judged on the other folds alone, so that ``fold`` has no say."""
        rows = self.fold != fold
        best, highest = self.best, -1.0
        for trial in self.trials:
            if trial.scores is not None:
                auroc = weighted_auroc(self.rare[rows], trial.scores[rows], self.weights[rows])
                if auroc > highest:
                    best, highest = trial, auroc
        return best


def _auroc(trial: Trial) -> float:
    return trial.auroc


def weighted_auroc(
    rare: NDArray[np.bool_], scores: NDArray[np.float64], weights: NDArray[np.float64]
) -> float:
    """Area under the ROC curve of weighted cases, 0 to 1."""
    return float(roc_auc_score(rare, scores, sample_weight=weights))


class _Judge:
    """Fits a candidate fold by fold on one training set."""

    def __init__(self, data: TrainingSet, features: FeatureMatrix, folds: int, seed: int) -> None:
        self.data = data
        self.columns = {name: features.columns(name) for name in features.useful_sets()}
        self.fold = disease_folds(data, folds, seed)
        self.weights = independence_weights(data.values, data.rare)
        self.seed = seed

    def run(self, name: str, candidate: Candidate, trial: optuna.Trial | None = None) -> Trial:
        """Out-of-fold scores of ``candidate``; ``trial`` may prune it between folds."""
        data = self.data.only(self.columns[candidate.feature_set])
        scores = np.full(len(data.rare), np.nan)
        auroc = np.nan
        for number in range(int(self.fold.max()) + 1):
            out = self.fold == number
            model = fit_pipeline(
                candidate.algorithm,
                candidate.settings,
                data.values[~out],
                data.rare[~out],
                self.seed,
            )
            scores[out] = raw_scores(model, data.values[out])
            done = ~np.isnan(scores)
            auroc = weighted_auroc(data.rare[done], scores[done], self.weights[done])
            if trial is not None:
                trial.report(auroc, number)
                if trial.should_prune() and not done.all():
                    return Trial(name, candidate, auroc, None)
        return Trial(name, candidate, auroc, scores)


def search(
    data: TrainingSet,
    features: FeatureMatrix,
    *,
    folds: int,
    trials: int,
    timeout_s: float,
    seed: int,
) -> Search:
    """Screen all cells, then tune the best algorithms with ``trials`` Optuna trials each.

    ``data.values`` and ``features`` hold the same rows. The same inputs give the same search, bit
    for bit, unless ``timeout_s`` ends it early, which ``out_of_time`` tells.
    """
    deadline = time.monotonic() + timeout_s
    judge = _Judge(data, features, folds, seed)
    done: list[Trial] = []
    for feature_set in judge.columns:
        for name, algorithm in ALGORITHMS.items():
            if done and time.monotonic() > deadline:
                break
            candidate = Candidate(name, feature_set, algorithm.default)
            done.append(judge.run(f"screen {name} {feature_set}", candidate))
    for name in _finalists(done):
        done.extend(_tune(judge, name, trials, deadline, seed))
    late = time.monotonic() > deadline
    return Search(tuple(done), judge.fold, judge.weights, data.rare, late)


def _finalists(screened: Sequence[Trial]) -> list[str]:
    """The algorithms with the best cells, best first."""
    ranked = sorted(screened, key=_auroc, reverse=True)
    return list(dict.fromkeys(trial.candidate.algorithm for trial in ranked))[:_FINALISTS]


def _tune(judge: _Judge, algorithm: str, trials: int, deadline: float, seed: int) -> list[Trial]:
    """Optuna's trials for one algorithm, seeded and pruned by the median after two folds."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=_NOT_PRUNED - 1),
    )
    done: list[Trial] = []

    def objective(trial: optuna.Trial) -> float:
        feature_set = trial.suggest_categorical("feature_set", list(judge.columns))
        candidate = Candidate(algorithm, feature_set, ALGORITHMS[algorithm].suggest(trial))
        result = judge.run(f"tune {algorithm} {trial.number}", candidate, trial)
        done.append(result)
        if result.scores is None:
            raise optuna.TrialPruned
        return result.auroc

    for _ in range(trials):
        if time.monotonic() > deadline:
            break
        study.optimize(objective, n_trials=1)
    return done
