"""Find what weighs the teachers best: every algorithm on every feature set, then Optuna.

Stage one screens each cell of algorithm and feature set with the algorithm's default settings, by
repeated cross-validation. Stage two tunes the best few algorithms, feature set included.
Everything is judged by the AUROC on folds of diseases the model never saw, weighted so that who
was asked tells nothing.

Stage two: Optuna on the best algorithms, in studies that outlive a kill and can be shared.

A study is named after its data, so a rerun goes on where it stopped and other data start afresh
beside it. It lies in a journal file, which ``optuna-dashboard`` opens, or, where
``OPTUNA_STORAGE`` names a database, there: then all workers that search the same data share it.

Stages one and two together: screen every cell, then tune the best algorithms.
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
from rarealert.ensemble.folds import TrainingSet, disease_folds, drawn_in_folds
from rarealert.errors import BadInputError

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


_NOT_PRUNED = 2  # folds before a trial may be given up: one fold's AUROC says too little
_STARTUP = 4  # trials drawn at random before TPE models them, and before any is pruned
_HEARTBEAT_S = 30  # of a worker on a shared study; three missed beats and its trial is given up
_POLL_S = 0.5  # between looks at trials that other workers still run
_DONE = (TrialState.COMPLETE, TrialState.PRUNED)


def storage_of(journal: Path) -> str:
    """Where studies lie: what ``OPTUNA_STORAGE`` names, else the file ``journal``."""
    return os.environ.get("OPTUNA_STORAGE") or str(journal)


def study_name(judge: Judge, algorithm: str) -> str:
    """A name that only the same data, folds and feature sets share."""
    digest = sha256()
    for array in (judge.data.values, judge.data.rare, judge.fold):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(repr((sorted(judge.columns), judge.seed, ALGORITHMS[algorithm].default)).encode())
    return f"align-{digest.hexdigest()[:12]}-{algorithm}"


def tune(
    judge: Judge, algorithms: Sequence[str], *, trials: int, storage: str, deadline: float
) -> list[Trial]:
    """``trials`` trials for each of ``algorithms``, fewer where ``deadline`` cuts them.

    ``deadline`` is in seconds of ``time.monotonic``. The same inputs give the same trials, bit for
    bit and however often the work was interrupted, unless time or another worker steps in.

    Raises:
        BadInputError: ``storage`` is a database that can't be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for algorithm in algorithms:  # created here, so that workers never race to make the tables
        _open(storage, study_name(judge, algorithm))
    left = deadline - time.monotonic()
    parallel = Parallel(workers_for(len(judge.data.rare)))
    found = parallel(
        delayed(_tune_one)(judge, algorithm, trials, storage, left) for algorithm in algorithms
    )
    return [trial for of_algorithm in found for trial in of_algorithm]


def _tune_one(
    judge: Judge, algorithm: str, trials: int, storage: str, seconds: float
) -> list[Trial]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    deadline = time.monotonic() + seconds
    study = _open(storage, study_name(judge, algorithm))
    if not _shared(storage):  # of a run that was killed
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)
    while time.monotonic() < deadline:
        underway = study.get_trials(deepcopy=False, states=(*_DONE, TrialState.RUNNING))
        if len(underway) < trials:
            # seeded by place, so that a resumed study draws what an unbroken one would have drawn
            study.sampler = optuna.samplers.TPESampler(
                seed=judge.seed + len(underway),
                n_startup_trials=_STARTUP,
                constant_liar=_shared(storage),
            )
            study.optimize(_objective(judge, algorithm), n_trials=1)
        elif any(trial.state == TrialState.RUNNING for trial in underway):
            optuna.storages.fail_stale_trials(study)
            time.sleep(_POLL_S)
        else:
            break
    finished = [trial for trial in study.get_trials(deepcopy=False) if trial.state in _DONE]
    return [_as_trial(trial, algorithm) for trial in finished[:trials]]


def _objective(judge: Judge, algorithm: str) -> Callable[[optuna.Trial], float]:
    """One trial, fold by fold, given up where it lags."""

    def objective(trial: optuna.Trial) -> float:
        feature_set = trial.suggest_categorical("feature_set", list(judge.columns))
        candidate = Candidate(algorithm, feature_set, ALGORITHMS[algorithm].suggest(trial))
        done: list[float] = []
        last = int(judge.fold.max())
        for number, auroc in enumerate(judge.folds(candidate)):
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
