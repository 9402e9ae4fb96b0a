"""Moving the champion: once, in order, written down, tried out, and taken back."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarealert.errors import RareAlertError
from rarealert.registry import commands
from rarealert.registry.ledger import BrokenLedgerError, Entry, OutrunError, append, read_ledger
from rarealert.registry.promotion import Decision, promote, rollback, settle, standing

NAME = "toy"


def sound(name, alias):
    """A smoke test that every version passes: these have no model behind them."""


def failing(name, alias):
    raise RareAlertError("It does not answer.")


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


def move(version, expected=None, smoke=sound):
    return promote(decide(version, expected), smoke)


def aliases(registry):
    return {key: str(value) for key, value in registry.get_registered_model(NAME).aliases.items()}


def test_the_first_champion_has_no_previous(registry):
    assert move("1")
    assert aliases(registry) == {"champion": "1"}


def test_previous_is_who_was_champion_and_rollback_goes_back_and_forth(registry):
    move("1")
    move("2", expected="1")
    assert aliases(registry) == {"champion": "2", "previous": "1"}
    assert rollback(NAME, "abc", "worse in practice", sound).version == "1"
    assert aliases(registry) == {"champion": "1", "previous": "2"}
    rollback(NAME, "abc", "", sound)
    assert aliases(registry) == {"champion": "2", "previous": "1"}
    entries = read_ledger(NAME)
    assert [entry.action for entry in entries] == ["promote", "promote", "rollback", "rollback"]
    assert [(entry.version, entry.previous) for entry in entries[:2]] == [("1", ""), ("2", "1")]
    assert all(entry.who and entry.when and entry.commit for entry in entries)
    assert entries[2].reason == "worse in practice"


def test_a_rerun_moves_and_writes_nothing(registry):
    move("1")
    before = read_ledger(NAME)
    assert not move("1", expected="1")
    assert read_ledger(NAME) == before


def test_without_a_previous_there_is_no_way_back(registry):
    move("1")
    with pytest.raises(RareAlertError, match="no previous version"):
        rollback(NAME, "abc", "", sound)
    assert aliases(registry) == {"champion": "1"}


def test_of_two_promotions_at_once_one_wins_and_the_other_is_told(registry):
    def attempt(version):
        try:
            return move(version)
        except OutrunError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(attempt, ["1", "2"]))
    assert outcomes.count(True) == 1
    assert any("meanwhile" in str(outcome) for outcome in outcomes)
    assert len(read_ledger(NAME)) == 1
    assert aliases(registry) == {"champion": "12"[outcomes.index(True)]}


def test_an_entry_behind_one_that_another_followed_first_is_void(registry):
    move("1")
    seen = read_ledger(NAME)
    move("2", expected="1")
    late = replace(seen[0], version="3", previous="1")
    with pytest.raises(OutrunError, match="to version 2 meanwhile"):
        append(late, seen)
    assert aliases(registry)["champion"] == "2"
    assert [entry.version for entry in settle(NAME)] == ["1", "2"]
    assert move("3", expected="2")


def test_a_version_that_does_not_answer_is_taken_back(registry):
    with pytest.raises(RareAlertError, match="champion is version none as before"):
        move("1", smoke=failing)
    assert aliases(registry) == {}
    move("2")
    move("3", expected="2")
    with pytest.raises(RareAlertError, match="champion is version 3 as before"):
        move("1", expected="3", smoke=failing)
    assert aliases(registry) == {"champion": "3", "previous": "2"}
    assert [entry.action for entry in read_ledger(NAME)][-1] == "undo"


@pytest.mark.parametrize("cause", [RuntimeError("Error(s) in loading state_dict"), KeyError("x")])
def test_whatever_a_smoke_test_raises_the_version_is_taken_back_in_a_sentence(registry, cause):
    def breaking(name, alias):
        raise cause

    move("1")
    named = rf"does not answer \({type(cause).__name__}\).* champion is version 1 as before"
    with pytest.raises(RareAlertError, match=named):
        move("2", expected="1", smoke=breaking)
    assert aliases(registry) == {"champion": "1"}
    move("2", expected="1")
    with pytest.raises(RareAlertError, match="champion is version 2 as before"):
        rollback(NAME, "abc", "", breaking)
    assert aliases(registry) == {"champion": "2", "previous": "1"}


def test_an_interrupted_smoke_test_leaves_the_champion_as_before(registry):
    def interrupted(name, alias):
        raise KeyboardInterrupt

    move("1")
    with pytest.raises(KeyboardInterrupt):
        move("2", expected="1", smoke=interrupted)
    assert aliases(registry) == {"champion": "1"}
    assert [entry.action for entry in settle(NAME)][-1] == "undo"


@pytest.mark.parametrize("which", ["01", "1", "\u0661", "challenger"])
def test_a_version_is_named_as_the_registry_stores_it(registry, which):
    registry.set_registered_model_alias(NAME, "challenger", "1")
    assert commands._resolve(NAME, which) == "1"


def test_a_move_that_was_killed_before_it_was_made_is_made_by_the_next(registry):
    move("1")
    chain = read_ledger(NAME)
    late = replace(chain[0], version="2", previous="1")
    append(late, chain)
    assert aliases(registry) == {"champion": "1"}
    settle(NAME)
    assert aliases(registry) == {"champion": "2", "previous": "1"}


@pytest.mark.parametrize("tamper", ["edit", "drop", "drop the last", "move by hand"])
def test_a_tampered_log_stops_every_promotion(registry, tamper):
    move("1")
    move("2", expected="1")
    if tamper == "edit":
        registry.set_model_version_tag(f"{NAME}.log", "1", "entry.who", "someone else")
    elif tamper == "move by hand":
        registry.set_registered_model_alias(NAME, "champion", "3")
    else:
        registry.delete_model_version(f"{NAME}.log", "1" if tamper == "drop" else "2")
    before = aliases(registry)
    with pytest.raises(BrokenLedgerError):
        move("3", expected="2")
    assert aliases(registry) == before


def entry(action, version):
    return Entry(action, NAME, version, "", "me", "now", "abc", "e", "")


moves = st.lists(st.tuples(st.sampled_from(["promote", "rollback"]), st.sampled_from("123")))


@given(moves, st.sampled_from("123"))
def test_an_undone_move_leaves_nothing_behind(made, version):
    chain = [entry(action, which) for action, which in made]
    undone = [*chain, entry("promote", version), entry("undo", "0")]
    assert standing(undone) == standing(chain)
