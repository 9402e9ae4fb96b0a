"""The tracking store is lost, and `rarealert track sync` brings the registry back."""

import json
import shutil

import pytest
from small_workspace import NAME, build

from rarealert.registry.commands import roll_back
from rarealert.registry.ledger import read_ledger
from rarealert.registry.restore import sync_tracking
from rarealert.screening.champion import load_model


@pytest.fixture
def workspace(tmp_path, mlflow_store, tiny_student):
    return build(tmp_path, tiny_student)


@pytest.fixture
def lose_the_store(workspace, request):
    """Puts an empty database in the place of the one that holds everything."""
    empty = request.getfixturevalue("_mlflow_template")

    def lose():
        import mlflow

        mlflow.set_tracking_uri(None)
        shutil.copy(empty, workspace.root / "mlruns/mlflow.db")
        mlflow.set_tracking_uri(workspace.paths.tracking_uri)

    return lose


def second_version(workspace):
    card = "build/distil/adapter/student.json"
    workspace.edit(card, lambda held: held["calibration"].update(slope=9.0))
    workspace.note()
    workspace.predict()
    workspace.pin()
    workspace.run()


def test_versions_aliases_and_the_log_come_back(workspace, monkeypatch, lose_the_store):
    import mlflow

    workspace.run()
    second_version(workspace)
    monkeypatch.chdir(workspace.root)
    roll_back("too many alerts")
    before = read_ledger(NAME)
    assert sync_tracking().splitlines() == ["tracking holds a run of every finished stage"]

    lose_the_store()
    said = sync_tracking()
    assert "version 1 of rarealert-student is back" in said
    assert "3 moves are back in the log, champion: version 1" in said
    assert read_ledger(NAME) == before
    aliases = [workspace.alias(name) for name in ("champion", "previous", "challenger")]
    assert aliases == ["1", "2", "2"]
    source = mlflow.MlflowClient().get_model_version(NAME, "1").source
    assert mlflow.get_logged_model(source.removeprefix("models:/")).status == "READY"
    assert load_model(NAME, "champion", workspace.paths.tracking_uri).version == "1"
    assert len(sync_tracking().splitlines()) == 1

    failed, summary = workspace.run()
    assert failed == []
    assert summary.startswith("version 2 (unchanged)")
    assert (workspace.alias("champion"), workspace.alias("previous")) == ("2", "1")


def test_what_is_gone_keeps_its_number_and_is_named(workspace, monkeypatch, lose_the_store):
    workspace.run()
    second_version(workspace)
    monkeypatch.chdir(workspace.root)
    gone = json.loads((workspace.root / "reports/register/gates.json").read_text())["identity"]
    for model in (workspace.root / "mlruns/artifacts/models").iterdir():
        if gone["adapter.sha256"] in (model / "artifacts/MLmodel").read_text():
            shutil.rmtree(model)
    lose_the_store()
    said = sync_tracking()
    assert "version 1 of rarealert-student is back" in said
    assert "version 2 of rarealert-student is gone" in said
    assert "the champion, version 2, is gone" in said
    assert workspace.alias("champion") is None
    assert read_ledger(NAME) == ()


def test_a_copy_of_the_log_that_was_edited_makes_nobody_champion(
    workspace, monkeypatch, lose_the_store
):
    workspace.run()
    monkeypatch.chdir(workspace.root)
    copy = workspace.root / f"mlruns/{NAME}.log.jsonl"
    copy.write_text(copy.read_text().replace('"version": "1"', '"version": "2"', 1))
    lose_the_store()
    assert "is no chain of moves" in sync_tracking()
    assert workspace.alias("champion") is None
