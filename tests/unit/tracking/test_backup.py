"""The copy of the tracking database."""

import sqlite3
from contextlib import closing

import pytest

from rarealert.errors import RareAlertError
from rarealert.tracking.backup import back_up, bring_back


@pytest.fixture
def store(tmp_path):
    """A database with one version; MLflow's own are tested in tests/behaviour."""
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute("CREATE TABLE model_versions (version)")
        database.execute("INSERT INTO model_versions VALUES (1)")
        database.commit()
    return f"sqlite:///{tmp_path}/mlflow.db"


def test_a_lost_database_comes_back(store, tmp_path):
    back_up(store)
    (tmp_path / "mlflow.db").unlink()
    assert bring_back(store)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        assert database.execute("SELECT version FROM model_versions").fetchall() == [(1,)]


def test_a_damaged_copy_is_named(store, tmp_path):
    (tmp_path / "mlflow.db.copy").write_bytes(b"no database" * 1000)
    with pytest.raises(RareAlertError, match=r"mlflow\.db\.copy"):
        bring_back(store)


@pytest.mark.parametrize("uri", ["http://mlflow.example", "postgresql://db.example/mlflow"])
def test_a_servers_database_is_left_to_its_owner(uri):
    back_up(uri)
    assert not bring_back(uri)
