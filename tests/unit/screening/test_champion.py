"""Loading the model: every reason why there is none is named, with what to do."""

import os
from types import SimpleNamespace

import pytest

from rarealert.errors import BadInputError, RareAlertError
from rarealert.screening.champion import load_folder, load_model


def test_a_registry_that_does_not_answer_is_not_called_empty(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    with pytest.raises(RareAlertError, match="did not answer") as refused:
        load_model("toy", "champion", "http://me:secret@127.0.0.1:9")
    assert "secret" not in str(refused.value)


def test_without_a_registry_the_sentence_says_what_to_run(tmp_path):
    with pytest.raises(RareAlertError, match="run make repro"):
        load_model("toy", "champion", f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert not (tmp_path / "mlflow.db").exists()


def test_without_a_champion_the_failed_gates_are_named(mlflow_store, tmp_path):
    import mlflow

    client = mlflow.MlflowClient()
    client.create_registered_model("toy")
    with pytest.raises(RareAlertError, match="run make repro"):
        load_model("toy", "champion", mlflow_store)
    client.create_model_version(
        "toy", (tmp_path / "m").as_uri(), tags={"gates.failed": "RA003,RA008"}
    )
    with pytest.raises(RareAlertError, match="gates RA003, RA008 failed for version 1"):
        load_model("toy", "champion", mlflow_store)
    with pytest.raises(RareAlertError, match="the alias 'previous'"):
        load_model("toy", "previous", mlflow_store)


@pytest.mark.parametrize("policy", [None, "ACTIVE"])
def test_threads_wait_asleep_by_the_time_the_model_is_loaded(tmp_path, monkeypatch, policy):
    import mlflow.pyfunc

    monkeypatch.setenv("OMP_WAIT_POLICY", policy or "")
    if policy is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    seen = []

    def load(uri):
        seen.append(os.environ["OMP_WAIT_POLICY"])
        raise BadInputError("seen")

    monkeypatch.setattr(mlflow.pyfunc, "load_model", load)
    (tmp_path / "MLmodel").touch()
    with pytest.raises(BadInputError, match="seen"):
        load_folder(tmp_path)
    assert seen == [policy or "PASSIVE"]


def test_a_version_of_another_release_is_named(tmp_path, monkeypatch):
    import mlflow.pyfunc

    unwrapped = SimpleNamespace(unwrap_python_model=object, metadata=SimpleNamespace(metadata={}))
    monkeypatch.setattr(mlflow.pyfunc, "load_model", lambda uri: unwrapped)
    (tmp_path / "MLmodel").touch()
    with pytest.raises(RareAlertError, match="dvc repro register"):
        load_folder(tmp_path)
