"""Folds, draws, cross-validation, and studies that resume and can be shared."""

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from wsgiref.util import setup_testing_defaults

import numpy as np
import pytest

from rarealert.ensemble.algorithms import ALGORITHMS
from rarealert.ensemble.features import FeatureMatrix
from rarealert.ensemble.search import (
    Candidate,
    CrossValidation,
    search,
    storage_of,
    study_name,
    tune,
)
from rarealert.ensemble.training_set import TrainingSet, check_learnable, draw_in_folds
from rarealert.errors import BadInputError
from rarealert.params import AlignParams


def one_huge_disease(size: int) -> TrainingSet:
    """Six rare diseases, and seven others, of which one has ``size`` cases."""
    sizes = [20] * 6 + [size] + [20] * 6
    disease = np.repeat([f"d{place}" for place in range(13)], sizes).astype(np.str_)
    rare = np.repeat(np.arange(13) < 6, sizes)
    values = np.random.default_rng(1).normal(size=(len(rare), 3)) + rare[:, None]
    return TrainingSet(values, rare, disease, values)


@pytest.mark.parametrize("seed", range(8))
def test_a_draw_to_search_on_keeps_every_fold_and_label(seed: int) -> None:
    data = one_huge_disease(1500)
    fold = data.folds(5, seed)
    drawn = draw_in_folds(data.rare, fold, 300, seed)
    assert drawn.sum() == 300
    strata = set(zip(fold.tolist(), data.rare.tolist(), strict=True))
    kept = set(zip(fold[drawn].tolist(), data.rare[drawn].tolist(), strict=True))
    assert kept == strata
    assert draw_in_folds(data.rare, fold, len(fold), seed).all()


@pytest.mark.parametrize("seed", range(4))
def test_a_search_on_a_draw_survives_one_huge_disease(seed: int, tmp_path: Path) -> None:
    data = one_huge_disease(900)
    names = ("risk:a", "risk:b", "risk:c")
    features = FeatureMatrix(tuple(map(str, range(len(data.rare)))), names, data.values)
    params = AlignParams(
        seed=seed,
        folds=5,
        repeats=2,
        search_cases=200,
        explained_cases=1,
        trials=1,
        timeout_s=0.1,
    )
    found = search(data, features, params, str(tmp_path / "study.log"))
    assert all(not np.isnan(trial.auroc) for trial in found.trials)


def test_a_fold_without_cases_or_with_one_class_beside_it_has_no_auroc(noise) -> None:
    data = noise(60, 2, 3)
    fold = np.where(data.rare, 0, 2)  # all rare cases in the first, none in the second
    candidate = Candidate("logistic", "risk", ALGORITHMS["logistic"].default)
    for _ in range(2):
        validation = CrossValidation(data, {"risk": np.arange(2)}, fold, np.ones(60), 1)
        assert np.isnan(list(validation.aurocs(candidate))).tolist() == [True, True, True]
        fold[::2] = 0


def test_a_training_set_of_one_class_is_refused(noise) -> None:
    data = noise(30, 1, 2)
    data.rare[:] = True
    with pytest.raises(BadInputError, match=r"train\.parquet: 0 diseases with label nonrare"):
        check_learnable(data, "train.parquet")


def validation_of(cases: int = 90) -> CrossValidation:
    random = np.random.default_rng(8)
    rare = np.arange(cases) % 2 == 0
    values = np.clip(random.normal(0.5 + 0.1 * rare[:, None], 0.2, (cases, 3)), 0, 1)
    data = TrainingSet(values, rare, (np.arange(cases) % 30).astype(str), values)
    columns = {"risk": np.arange(2), "risk+spread": np.arange(3)}
    return CrossValidation(data, columns, np.arange(cases) % 30 % 3, np.ones(cases), 3)


def tuned(trials: int, journal: Path) -> list[tuple[object, ...]]:
    validation = validation_of()
    found = tune(validation, ["logistic"], trials=trials, storage=str(journal), deadline=math.inf)
    return [(one.candidate, one.folds, one.pruned) for one in found]


def test_an_interrupted_study_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    import optuna

    whole = tuned(7, tmp_path / "whole.log")
    first = tuned(5, tmp_path / "broken.log")
    assert whole[:5] == first
    # a kill in the middle of the sixth trial leaves it running
    file = optuna.storages.journal.JournalFileBackend(str(tmp_path / "broken.log"))
    study = optuna.load_study(
        study_name=study_name(validation_of(), "logistic"),
        storage=optuna.storages.JournalStorage(file),
    )
    study.ask()
    assert tuned(7, tmp_path / "broken.log") == whole


def test_other_data_are_another_study() -> None:
    assert study_name(validation_of(), "logistic") != study_name(validation_of(93), "logistic")


def test_studies_open_in_the_dashboard(tmp_path: Path) -> None:
    dashboard = pytest.importorskip("optuna_dashboard")
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    tuned(2, tmp_path / "study.log")
    page = dashboard.wsgi(JournalStorage(JournalFileBackend(str(tmp_path / "study.log"))))
    statuses: list[str] = []
    request: dict[str, object] = {"PATH_INFO": "/api/studies/0"}
    setup_testing_defaults(request)
    body = b"".join(page(request, lambda status, *_: statuses.append(status)))
    assert statuses == ["200 OK"]
    assert len(json.loads(body)["trials"]) == 2


@pytest.fixture
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an empty database, for SQLAlchemy."""
    with pytest.MonkeyPatch.context() as patch:  # pgserver makes its lock there on import
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        pgserver = pytest.importorskip("pgserver")
    # PostgreSQL refuses to run as root: pgserver then becomes a user of its own, who must get in,
    # and pytest's own folders are closed to others
    with tempfile.TemporaryDirectory(prefix="rarealert-pg-") as place:
        Path(place).chmod(0o755)
        server = pgserver.get_server(Path(place) / "data", cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


@pytest.mark.scale
def test_two_workers_share_one_study(postgres: str) -> None:
    import optuna

    storage = optuna.storages.RDBStorage(postgres)
    optuna.create_study(storage=storage, study_name="tables")  # as a database that is in use
    environment = {**os.environ, "OPTUNA_STORAGE": postgres}
    workers = [
        subprocess.Popen(
            [sys.executable, __file__], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    printed = [worker.communicate(timeout=250)[0].split() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert printed[0] == printed[1]  # both choose by the trials of both
    name = next(n for n in optuna.get_all_study_names(storage) if n.startswith("align-"))
    trials = optuna.load_study(study_name=name, storage=storage).trials
    storage.remove_session()
    storage.engine.dispose()  # psycopg warns of connections that are left open
    assert 12 <= len(trials) <= 13  # a race at the end may start one more, which is not counted
    assert len({trial.number for trial in trials}) == len(trials)


def work() -> None:
    """Be one of the workers of the test above."""
    storage = storage_of(Path("none"))
    found = tune(validation_of(), ["logistic"], trials=12, storage=storage, deadline=math.inf)
    print(len(found), max(found, key=lambda one: one.auroc).name)


if __name__ == "__main__":
    work()
