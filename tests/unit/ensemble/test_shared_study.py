"""Several workers share one study in a PostgreSQL that the test starts."""

import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

_WORKER = """
    import math, sys
    import numpy as np
    from rarealert.ensemble.folds import TrainingSet
    from rarealert.ensemble.search import Judge
    from rarealert.ensemble.search import storage_of, tune

    rng = np.random.default_rng(8)
    rare = np.arange(90) % 2 == 0
    values = np.clip(rng.normal(0.5 + 0.1 * rare[:, None], 0.2, (90, 3)), 0, 1)
    disease = np.asarray([f"{n % 30}" for n in range(90)])
    judge = Judge(
        TrainingSet(values, rare, disease),
        {"risk": np.arange(3)}, np.arange(90) % 30 % 3, np.ones(90), 3,
    )
    found = tune(judge, ["naive_bayes"], trials=12, storage=storage_of("none"), deadline=math.inf)
    print(len(found), max(found, key=lambda one: one.auroc).name)
"""


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
def test_two_workers_share_one_study(postgres: str, tmp_path: Path) -> None:
    import optuna

    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(_WORKER))
    storage = optuna.storages.RDBStorage(postgres)
    optuna.create_study(storage=storage, study_name="tables")  # as a database that is in use
    environment = {**os.environ, "OPTUNA_STORAGE": postgres}
    workers = [
        subprocess.Popen(
            [sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [worker.communicate(timeout=250)[0].split() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert said[0] == said[1]  # both choose by the trials of both
    name = next(n for n in optuna.get_all_study_names(storage) if n.startswith("align-"))
    trials = optuna.load_study(study_name=name, storage=storage).trials
    storage.remove_session()
    storage.engine.dispose()  # psycopg warns of connections that are left open
    assert 12 <= len(trials) <= 13  # a race at the end may start one more, which nobody counts
    assert len({trial.number for trial in trials}) == len(trials)
