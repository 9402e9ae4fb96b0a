"""Stage two: Optuna on the best algorithms, in studies that outlive a kill and can be shared.

A study is named after its data, so a rerun goes on where it stopped and other data start afresh
beside it. It lies in a journal file, which ``optuna-dashboard`` opens, or, where
``OPTUNA_STORAGE`` names a database, there: then all workers that search the same data share it.
"""

import os
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from joblib import Parallel, delayed  # type: ignore[import-untyped]
from optuna.trial import FrozenTrial, TrialState

from rarealert.alignment.algorithms import ALGORITHMS
from rarealert.alignment.search import Candidate, Judge, Trial, mean_known, workers_for
from rarealert.errors import BadInputError

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
