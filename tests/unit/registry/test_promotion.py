"""Moving the champion: once, in order, and written down."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from rarealert.errors import RareAlertError
from rarealert.registry.promotion import Decision, promote, read_log

NAME = "toy"


@pytest.fixture
def registry(mlflow_store, tmp_path):
    import mlflow

    client = mlflow.MlflowClient()
    client.create_registered_model(NAME)
    for _ in range(3):
        client.create_model_version(NAME, (tmp_path / "model").as_uri())
    return client


def decide(version, expected=None):
    return Decision(NAME, version, expected, commit="abc", evidence="e" * 64)


def alias(registry, name):
    return str(registry.get_model_version_by_alias(NAME, name).version)


def test_the_first_champion_has_no_previous(registry, tmp_path):
    assert promote(decide("1"), tmp_path / "log.jsonl")
    assert alias(registry, "champion") == "1"
    assert set(registry.get_registered_model(NAME).aliases) == {"champion"}


def test_previous_is_who_was_champion(registry, tmp_path):
    log = tmp_path / "log.jsonl"
    promote(decide("1"), log)
    promote(decide("2", expected="1"), log)
    assert (alias(registry, "champion"), alias(registry, "previous")) == ("2", "1")
    entries = read_log(log)
    assert [(entry["version"], entry["previous"]) for entry in entries] == [("1", None), ("2", "1")]
    assert all(entry["who"] and entry["when"] and entry["commit"] for entry in entries)


def test_a_rerun_moves_and_writes_nothing(registry, tmp_path):
    log = tmp_path / "log.jsonl"
    promote(decide("1"), log)
    before = log.read_bytes()
    assert not promote(decide("1", expected="1"), log)
    assert log.read_bytes() == before


def test_of_two_promotions_at_once_one_wins_and_the_other_is_told(registry, tmp_path):
    log = tmp_path / "log.jsonl"

    def attempt(version):
        try:
            return promote(decide(version), log)
        except RareAlertError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(attempt, ["1", "2"]))
    assert outcomes.count(True) == 1
    assert any("meanwhile" in str(outcome) for outcome in outcomes)
    assert len(read_log(log)) == 1


@pytest.mark.parametrize("tamper", ["edit", "drop", "garble"])
def test_a_tampered_log_stops_every_promotion(registry, tmp_path, tamper):
    log = tmp_path / "log.jsonl"
    promote(decide("1"), log)
    promote(decide("2", expected="1"), log)
    lines = log.read_text().splitlines()
    if tamper == "edit":
        lines[0] = json.dumps({**json.loads(lines[0]), "who": "someone else"})
    elif tamper == "drop":
        lines = lines[1:]
    else:
        lines[1] = lines[1][:-5]
    log.write_text("\n".join(lines) + "\n")
    with pytest.raises(RareAlertError, match="chain of promotions is broken"):
        promote(decide("3", expected="2"), log)
    assert alias(registry, "champion") == "2"
