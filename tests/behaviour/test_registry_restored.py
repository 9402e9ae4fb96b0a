"""The tracking database is lost, and `rarealert track sync` brings the registry back."""

import shutil
import sqlite3

import pytest
from small_workspace import NAME

from rarealert.errors import RareAlertError
from rarealert.registry.commands import promote_version, roll_back
from rarealert.registry.ledger import read_ledger
from rarealert.registry.restore import sync_tracking
from rarealert.screening.champion import load_model


@pytest.fixture
def workspace(workspace, monkeypatch):
    workspace.run()
    monkeypatch.chdir(workspace.root)
    return workspace


@pytest.fixture
def lose_the_store(workspace, request):
    """Replaces the database by an empty one, as the next command after a loss would."""
    empty = request.getfixturevalue("_mlflow_template")

    def lose():
        import mlflow

        mlflow.set_tracking_uri(None)
        shutil.copy(empty, workspace.root / "mlruns/mlflow.db")
        mlflow.set_tracking_uri(workspace.paths.tracking_uri)

    return lose


def test_versions_aliases_and_the_log_come_back(workspace, lose_the_store):
    workspace.next_version()
    roll_back("too many alerts")
    before = read_ledger(NAME)
    assert sync_tracking().splitlines() == ["tracking holds a run of every finished stage"]

    lose_the_store()
    assert "restored versions" in sync_tracking()
    assert read_ledger(NAME) == before
    aliases = [workspace.alias(name) for name in ("champion", "previous", "challenger")]
    assert aliases == ["1", "2", "2"]
    assert load_model(NAME, "champion", workspace.paths.tracking_uri).version == "1"
    assert len(sync_tracking().splitlines()) == 1

    failed, summary = workspace.run()
    assert failed == []
    assert summary.startswith("version 2 (unchanged)")
    assert (workspace.alias("champion"), workspace.alias("previous")) == ("2", "1")


def test_an_edited_copy_of_the_log_stops_every_promotion(workspace, lose_the_store):
    with sqlite3.connect(workspace.root / "mlruns/mlflow.db.copy") as copy:
        changed = "UPDATE model_version_tags SET value = '7' WHERE key = 'entry.version'"
        assert copy.execute(changed).rowcount == 1
    lose_the_store()
    sync_tracking()
    with pytest.raises(RareAlertError, match="RA025"):
        promote_version()


def test_an_empty_database_never_replaces_the_copy(workspace, lose_the_store):
    from rarealert.tracking.sink import open_run

    lose_the_store()
    record = workspace.root / "build/other/run.json"
    with open_run("other", workspace.root, workspace.paths.tracking_uri, record):
        pass
    assert "restored versions" in sync_tracking()
    assert workspace.alias("champion") == "1"


def test_without_a_copy_the_version_has_to_be_registered_again(workspace, lose_the_store):
    (workspace.root / "mlruns/mlflow.db.copy").unlink()
    lose_the_store()
    assert "run dvc repro -f register" in sync_tracking()
