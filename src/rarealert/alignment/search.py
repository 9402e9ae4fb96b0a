"""Find what weighs the teachers best: every algorithm on every feature set, then Optuna.

Stage one screens each cell of algorithm and feature set with the algorithm's default settings, by
repeated cross-validation. Stage two tunes the best few algorithms, feature set included.
Everything is judged by the AUROC on folds of diseases the model never saw, weighted so that who
was asked tells nothing.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from joblib import Parallel, delayed  # type: ignore[import-untyped]
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from rarealert.alignment.algorithms import (
    ALGORITHMS,
    Settings,
    fit_pipeline,
    raw_scores,
)
from rarealert.alignment.features import FeatureMatrix
from rarealert.alignment.folds import TrainingSet, disease_folds

FINALISTS = 3  # algorithms that are tuned; each costs align.trials fits a fold

Columns = Mapping[str, NDArray[np.intp]]
"""Positions of the columns of each feature set."""


@dataclass(frozen=True)
class Candidate:
    """What can be fitted: an algorithm, its settings and a feature set."""

    algorithm: str
    feature_set: str
    settings: Settings


@dataclass(frozen=True)
class Trial:
    """A candidate with the AUROC on each fold that was done; NaN where it has none.

    ``repeated`` holds the folds' AUROC of further repeats of the cross-validation.
    """

    name: str
    candidate: Candidate
    folds: tuple[float, ...]
    pruned: bool = False
    repeated: tuple[float, ...] = ()

    @property
    def auroc(self) -> float:
        """The mean over the folds that all trials share."""
        return mean_known(self.folds)

    def without(self, fold: int) -> float:
        """The mean over the other folds."""
        return mean_known([auroc for number, auroc in enumerate(self.folds) if number != fold])


def mean_known(folds: Sequence[float]) -> float:
    """The mean of what is not NaN; 0.5, which is chance, where nothing is known."""
    known = [auroc for auroc in folds if not np.isnan(auroc)]
    return float(np.mean(known)) if known else 0.5


@dataclass(frozen=True)
class Search:
    """All trials in the order in which they ran, and the folds they were judged on."""

    trials: tuple[Trial, ...]
    fold: NDArray[np.intp]
    columns: Columns
    out_of_time: bool

    @property
    def best(self) -> Trial:
        """The finished trial of the highest AUROC; of equals the one that ran first."""
        return max((trial for trial in self.trials if not trial.pruned), key=_auroc)

    def finalists(self, without: int | None = None) -> list[Candidate]:
        """The best candidate of each of the best algorithms, best first.

        ``without`` leaves the AUROC on that fold out of the choice.
        """

        def merit(trial: Trial) -> float:
            return trial.auroc if without is None else trial.without(without)

        ranked = sorted((one for one in self.trials if not one.pruned), key=merit, reverse=True)
        chosen: dict[str, Candidate] = {}
        for trial in ranked:
            chosen.setdefault(trial.candidate.algorithm, trial.candidate)
        return list(chosen.values())[:FINALISTS]


def _auroc(trial: Trial) -> float:
    return trial.auroc


def weighted_auroc(
    rare: NDArray[np.bool_], scores: NDArray[np.float64], weights: NDArray[np.float64]
) -> float:
    """Area under the ROC curve of weighted cases, 0 to 1; NaN for one class."""
    if np.unique(rare).size < 2:
        return float("nan")
    return float(roc_auc_score(rare, scores, sample_weight=weights))


@dataclass(frozen=True)
class Judge:
    """Judges candidates fold by fold on one training set."""

    data: TrainingSet
    columns: Columns
    fold: NDArray[np.intp]
    weights: NDArray[np.float64]
    seed: int

    def folds(self, candidate: Candidate) -> Iterator[float]:
        """The AUROC of ``candidate`` on one fold after the other.

        NaN where a fold has no case, or the others have cases of one class only: a teacher who
        answered on few diseases leaves such folds.
        """
        data = self.data.only(self.columns[candidate.feature_set])
        for number in range(int(self.fold.max()) + 1):
            out = self.fold == number
            inside = data.part(~out)
            if not out.any() or np.unique(inside.rare).size < 2:
                yield float("nan")
                continue
            model = fit_pipeline(
                candidate.algorithm,
                candidate.settings,
                inside.values,
                inside.rare,
                self.seed,
                inside.weights(),
            )
            scores = raw_scores(model, data.values[out])
            yield weighted_auroc(data.rare[out], scores, self.weights[out])


def make_judge(
    data: TrainingSet, features: FeatureMatrix, fold: NDArray[np.intp], seed: int
) -> Judge:
    """A judge of ``data``, which has the columns of ``features``, on the folds given."""
    columns = {name: features.columns(name) for name in features.useful_sets()}
    return Judge(data, columns, fold, data.weights(), seed)


def workers_for(cases: int) -> int:
    """Processes that pay: a few hundred cases are done before a second one has started."""
    from joblib import cpu_count

    return 1 if cases < 400 else min(2, int(cpu_count()))


def screen(
    judge: Judge, algorithms: Sequence[str], *, repeats: int, deadline: float
) -> list[Trial]:
    """Stage one: every cell, by ``repeats`` cross-validations grouped by disease.

    The first repeat has the folds of ``judge``, the others as many, drawn anew.

    Cells that come after ``deadline``, in seconds of ``time.monotonic``, are left out, never all.
    """
    folds = int(judge.fold.max()) + 1
    judges = [judge]
    for repeat in range(1, repeats):
        fold = disease_folds(judge.data, folds, judge.seed + repeat)
        judges.append(replace(judge, fold=fold))
    done: list[Trial] = []
    with Parallel(workers_for(len(judge.data.rare))) as parallel:
        for feature_set in judge.columns:
            for algorithm in algorithms:
                if done and time.monotonic() > deadline:
                    return done
                candidate = Candidate(algorithm, feature_set, ALGORITHMS[algorithm].default)
                aurocs = parallel(delayed(_all_folds)(one, candidate) for one in judges)
                repeated = tuple(auroc for later in aurocs[1:] for auroc in later)
                name = f"screen {algorithm} {feature_set}"
                done.append(Trial(name, candidate, aurocs[0], repeated=repeated))
    return done


def _all_folds(judge: Judge, candidate: Candidate) -> tuple[float, ...]:
    return tuple(judge.folds(candidate))


def best_algorithms(screened: Sequence[Trial]) -> list[str]:
    """The algorithms with the best cells, best first."""
    ranked = sorted(screened, key=_auroc, reverse=True)
    return list(dict.fromkeys(trial.candidate.algorithm for trial in ranked))[:FINALISTS]
