"""The search for the best algorithms, feature sets and settings.

First, every cell of algorithm and feature set is screened with the algorithm's default settings, by
repeated cross-validation. Then Optuna tunes the best few algorithms, feature set included, in
studies that survive a kill and can be shared. The criterion is the AUROC on folds of diseases that
the model never saw, weighted so that label and answering teachers are independent.

A study is named after its data, so a rerun continues where it stopped and other data start another
study. It is stored in a journal file, which ``optuna-dashboard`` opens, or in the database that
``OPTUNA_STORAGE`` names: then all workers that search the same data share it.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from joblib import Parallel, delayed  # type: ignore[import-untyped]
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState
from sklearn.metrics import roc_auc_score

from rarealert.ensemble.algorithms import (
    ALGORITHMS,
    Settings,
    algorithms_for,
    fit_pipeline,
    raw_scores,
)
from rarealert.ensemble.features import FeatureMatrix
from rarealert.ensemble.training_set import TrainingSet, draw_in_folds
from rarealert.errors import BadInputError
from rarealert.params import AlignParams

Floats = NDArray[np.float64]
Columns = Mapping[str, NDArray[np.intp]]
"""Positions of the columns of each feature set."""

FINALISTS = 3  # algorithms that are tuned; each costs align.trials fits a fold

_SCREENING = 0.6  # share of the time that screening may take before tuning must begin
_NOT_PRUNED = 2  # folds before a trial may be pruned: one fold's AUROC is too noisy
_STARTUP = 4  # trials drawn at random before TPE models them, and before any is pruned
_HEARTBEAT_S = 30  # of a worker on a shared study; after three missed beats its trial has failed
_POLL_S = 0.5  # between checks for trials that other workers still run
_DONE = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Candidate:
    """What can be fitted: an algorithm, its settings and a feature set."""

    algorithm: str
    feature_set: str
    settings: Settings


@dataclass(frozen=True)
class Trial:
    """A candidate with its AUROC on each fold that was run; NaN where it has none.

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
    """All trials in the order in which they ran, and the fold of each case, ``(n_cases,)``."""

    trials: tuple[Trial, ...]
    fold: NDArray[np.intp]
    columns: Columns
    out_of_time: bool

    @property
    def best(self) -> Trial:
        """The finished trial of the highest AUROC; of equals the one that ran first."""
        return max(self._finished(), key=_auroc)

    def finalists(self, without: int | None = None) -> list[Candidate]:
        """The best candidate of each of the best algorithms, best first.

        ``without`` leaves the AUROC on that fold out of the choice.
        """

        def merit(trial: Trial) -> float:
            return trial.auroc if without is None else trial.without(without)

        chosen: dict[str, Candidate] = {}
        for trial in sorted(self._finished(), key=merit, reverse=True):
            chosen.setdefault(trial.candidate.algorithm, trial.candidate)
        return list(chosen.values())[:FINALISTS]

    def _finished(self) -> list[Trial]:
        return [trial for trial in self.trials if not trial.pruned]


def _auroc(trial: Trial) -> float:
    return trial.auroc


def weighted_auroc(rare: NDArray[np.bool_], scores: Floats, weights: Floats) -> float:
    """Area under the ROC curve of weighted cases, 0 to 1; NaN for one class."""
    if np.unique(rare).size < 2:
        return float("nan")
    return float(roc_auc_score(rare, scores, sample_weight=weights))


@dataclass(frozen=True)
class CrossValidation:
    """The cross-validation of candidates on one training set, whose cases have ``weights``."""

    data: TrainingSet
    columns: Columns
    fold: NDArray[np.intp]
    weights: Floats
    seed: int

    def aurocs(self, candidate: Candidate) -> Iterator[float]:
        """Yield the AUROC of ``candidate`` on one fold after the other.

        NaN where a fold has no case, or the others have cases of one class only: a teacher who
        answered on few diseases leaves such folds.
        """
        data, columns = self.data, self.columns[candidate.feature_set]
        for number in range(int(self.fold.max()) + 1):
            out = self.fold == number
            inside = data.part(~out)
            if not out.any() or np.unique(inside.rare).size < 2:
                yield float("nan")
                continue
            model = fit_pipeline(
                candidate.algorithm,
                candidate.settings,
                inside.values[:, columns],
                inside.rare,
                inside.weights(),
                self.seed,
            )
            scores = raw_scores(model, data.values[out][:, columns])
            yield weighted_auroc(data.rare[out], scores, self.weights[out])


def cross_validation(
    data: TrainingSet, features: FeatureMatrix, fold: NDArray[np.intp], seed: int
) -> CrossValidation:
    """The cross-validation of ``data``, which has the columns of ``features``, on given folds."""
    columns = {name: features.columns(name) for name in features.useful_sets()}
    return CrossValidation(data, columns, fold, data.weights(), seed)


def workers_for(cases: int) -> int:
    """Processes that pay: a few hundred cases are done before a second one has started."""
    from joblib import cpu_count

    return 1 if cases < 400 else min(2, int(cpu_count()))


def search(data: TrainingSet, features: FeatureMatrix, params: AlignParams, storage: str) -> Search:
    """Screen all cells, then tune the best algorithms.

    Of more than ``params.search_cases`` cases, that many are drawn in all folds to search on; only
    algorithms that can be fitted on every case take part. The same inputs give the same search,
    bit for bit, unless ``params.timeout_s`` ends it early, which ``out_of_time`` reports.

    Args:
        data: the training set.
        features: the matrix whose values ``data`` has, with the names of its columns.
        params: folds, repeats, trials, seed and limits.
        storage: of the studies, as from ``storage_of``.

    Raises:
        BadInputError: ``storage`` is a database that can't be reached.
    """
    started = time.monotonic()
    fold = data.folds(params.folds, params.seed)
    drawn = draw_in_folds(data.rare, fold, params.search_cases, params.seed)
    validation = cross_validation(data.part(drawn), features, fold[drawn], params.seed)
    screened = screen(
        validation,
        algorithms_for(len(data.rare)),
        repeats=params.repeats,
        deadline=started + _SCREENING * params.timeout_s,
    )
    tuned = tune(
        validation,
        _best_algorithms(screened),
        trials=params.trials,
        storage=storage,
        deadline=started + params.timeout_s,
    )
    late = time.monotonic() > started + params.timeout_s
    return Search((*screened, *tuned), fold, validation.columns, late)


def screen(
    validation: CrossValidation, algorithms: Sequence[str], *, repeats: int, deadline: float
) -> list[Trial]:
    """Cross-validate every cell of ``algorithms`` and feature sets ``repeats`` times.

    The first repeat has the folds of ``validation``, each other one its own. Cells that come after
    ``deadline``, in seconds of ``time.monotonic``, are left out, but never all.
    """
    folds = int(validation.fold.max()) + 1
    repeated = [validation]
    for repeat in range(1, repeats):
        fold = validation.data.folds(folds, validation.seed + repeat)
        repeated.append(replace(validation, fold=fold))
    trials: list[Trial] = []
    with Parallel(workers_for(len(validation.data.rare))) as parallel:
        for feature_set in validation.columns:
            for algorithm in algorithms:
                if trials and time.monotonic() > deadline:
                    return trials
                candidate = Candidate(algorithm, feature_set, ALGORITHMS[algorithm].default)
                first, *others = parallel(delayed(_aurocs)(one, candidate) for one in repeated)
                further = tuple(auroc for aurocs in others for auroc in aurocs)
                name = f"screen {algorithm} {feature_set}"
                trials.append(Trial(name, candidate, first, repeated=further))
    return trials


def _aurocs(validation: CrossValidation, candidate: Candidate) -> tuple[float, ...]:
    return tuple(validation.aurocs(candidate))  # a generator can't leave its process


def _best_algorithms(screened: Sequence[Trial]) -> list[str]:
    ranked = sorted(screened, key=_auroc, reverse=True)
    return list(dict.fromkeys(trial.candidate.algorithm for trial in ranked))[:FINALISTS]


def storage_of(journal: Path) -> str:
    """The storage of studies: what ``OPTUNA_STORAGE`` names, else the file ``journal``."""
    return os.environ.get("OPTUNA_STORAGE") or str(journal)


def study_name(validation: CrossValidation, algorithm: str) -> str:
    """A name that only the same data, folds and feature sets share."""
    digest = sha256()
    for array in (validation.data.values, validation.data.rare, validation.fold):
        digest.update(np.ascontiguousarray(array).tobytes())
    chosen = sorted(validation.columns), validation.seed, ALGORITHMS[algorithm].default
    digest.update(repr(chosen).encode())
    return f"align-{digest.hexdigest()[:12]}-{algorithm}"


def tune(
    validation: CrossValidation,
    algorithms: Sequence[str],
    *,
    trials: int,
    storage: str,
    deadline: float,
) -> list[Trial]:
    """Run ``trials`` trials for each of ``algorithms``, fewer where ``deadline`` ends them.

    ``deadline`` is in seconds of ``time.monotonic``. The same inputs give the same trials, bit for
    bit and however often the work was interrupted, unless time or another worker intervenes.

    Raises:
        BadInputError: ``storage`` is a database that can't be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for algorithm in algorithms:  # created here, so that workers never race to make the tables
        _open(storage, study_name(validation, algorithm))
    left = deadline - time.monotonic()
    parallel = Parallel(workers_for(len(validation.data.rare)))
    found = parallel(
        delayed(_tune_one)(validation, algorithm, trials, storage, left) for algorithm in algorithms
    )
    return [trial for of_algorithm in found for trial in of_algorithm]


def _tune_one(
    validation: CrossValidation, algorithm: str, trials: int, storage: str, seconds: float
) -> list[Trial]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    deadline = time.monotonic() + seconds
    study = _open(storage, study_name(validation, algorithm))
    if not _shared(storage):  # of a run that was killed
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)
    while time.monotonic() < deadline:
        underway = study.get_trials(deepcopy=False, states=(*_DONE, TrialState.RUNNING))
        if len(underway) < trials:
            # seeded by place, so that a resumed study draws what an unbroken one would have drawn
            study.sampler = optuna.samplers.TPESampler(
                seed=validation.seed + len(underway),
                n_startup_trials=_STARTUP,
                constant_liar=_shared(storage),
            )
            study.optimize(_objective(validation, algorithm), n_trials=1)
        elif any(trial.state == TrialState.RUNNING for trial in underway):
            optuna.storages.fail_stale_trials(study)
            time.sleep(_POLL_S)
        else:
            break
    finished = [trial for trial in study.get_trials(deepcopy=False) if trial.state in _DONE]
    return [_as_trial(trial, algorithm) for trial in finished[:trials]]


def _objective(validation: CrossValidation, algorithm: str) -> Callable[[optuna.Trial], float]:
    """One trial, fold by fold, pruned where it lags."""

    def objective(trial: optuna.Trial) -> float:
        feature_set = trial.suggest_categorical("feature_set", list(validation.columns))
        candidate = Candidate(algorithm, feature_set, ALGORITHMS[algorithm].suggest(trial))
        done: list[float] = []
        last = int(validation.fold.max())
        for number, auroc in enumerate(validation.aurocs(candidate)):
            done.append(auroc)
            trial.set_user_attr("folds", [None if np.isnan(one) else one for one in done])
            trial.report(mean_known(done), number)
            if number < last and trial.should_prune():
                raise optuna.TrialPruned
        return mean_known(done)

    return objective


def _as_trial(stored: FrozenTrial, algorithm: str) -> Trial:
    settings = dict(stored.params)
    candidate = Candidate(algorithm, settings.pop("feature_set"), settings)
    folds = tuple(np.nan if one is None else one for one in stored.user_attrs["folds"])
    name = f"tune {algorithm} {stored.number}"
    return Trial(name, candidate, folds, pruned=stored.state == TrialState.PRUNED)


def _shared(storage: str) -> bool:
    return "://" in storage


def _open(storage: str, name: str) -> optuna.Study:
    return optuna.create_study(
        storage=_backend(storage),
        study_name=name,
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(
            n_startup_trials=_STARTUP, n_warmup_steps=_NOT_PRUNED - 1
        ),
    )


def _backend(storage: str) -> Any:
    if not _shared(storage):
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        Path(storage).parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(storage))
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return optuna.storages.RDBStorage(
            storage, heartbeat_interval=_HEARTBEAT_S, grace_period=3 * _HEARTBEAT_S
        )
    except (SQLAlchemyError, ImportError) as error:
        raise BadInputError(
            f"OPTUNA_STORAGE can't be used ({type(error).__name__}); check the address, or unset "
            "it to search in a file. For PostgreSQL: pip install 'rarealert[postgres]'."
        ) from error
