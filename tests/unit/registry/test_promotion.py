"""Moving the champion: logged, in order, tested, and undone if the test fails."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarealert.errors import RareAlertError
from rarealert.registry.ledger import BrokenLedgerError, Entry, OutrunError, append, read_ledger
from rarealert.registry.promotion import Decision, promote, rollback, settle, standing
from rarealert.registry.versions import resolve

NAME = "toy"


def sound(name, alias):
    """A smoke test that every version passes: these have no model."""


def failing(name, alias):
    raise RareAlertError("It does not work.")


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


def test_previous_is_the_former_champion_and_rollback_exchanges_both(registry):
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


def test_without_a_previous_version_there_is_no_rollback(registry):
    move("1")
    with pytest.raises(RareAlertError, match=NAME):
        rollback(NAME, "abc", "", sound)
    assert aliases(registry) == {"champion": "1"}


def test_of_two_promotions_at_once_one_wins_and_the_other_is_refused(registry):
    def attempt(version):
        try:
            return move(version)
        except OutrunError:
            return "outrun"

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(attempt, ["1", "2"]))
    assert set(outcomes) == {True, "outrun"}
    assert len(read_ledger(NAME)) == 1
    assert aliases(registry) == {"champion": "12"[outcomes.index(True)]}


def test_the_second_entry_after_the_same_one_is_void(registry):
    move("1")
    seen = read_ledger(NAME)
    move("2", expected="1")
    late = replace(seen[0], version="3", previous="1")
    with pytest.raises(OutrunError, match="version 2"):
        append(late, seen)
    assert aliases(registry)["champion"] == "2"
    assert [entry.version for entry in settle(NAME)] == ["1", "2"]
    assert move("3", expected="2")


def test_a_version_that_fails_its_smoke_test_is_undone(registry):
    with pytest.raises(RareAlertError, match="version none"):
        move("1", smoke=failing)
    assert aliases(registry) == {}
    move("2")
    move("3", expected="2")
    with pytest.raises(RareAlertError, match="version 3"):
        move("1", expected="3", smoke=failing)
    assert aliases(registry) == {"champion": "3", "previous": "2"}
    assert [entry.action for entry in read_ledger(NAME)][-1] == "undo"


@pytest.mark.parametrize("cause", [RuntimeError("Error(s) in loading state_dict"), KeyError("x")])
def test_any_error_of_a_smoke_test_undoes_the_move(registry, cause):
    def breaking(name, alias):
        raise cause

    move("1")
    named = rf"{type(cause).__name__}.* version 1"
    with pytest.raises(RareAlertError, match=named):
        move("2", expected="1", smoke=breaking)
    assert aliases(registry) == {"champion": "1"}
    move("2", expected="1")
    with pytest.raises(RareAlertError, match="version 2"):
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
def test_a_version_is_found_by_number_or_alias(registry, which):
    registry.set_registered_model_alias(NAME, "challenger", "1")
    assert str(resolve(NAME, which).version) == "1"


def test_a_move_killed_after_its_entry_is_completed_by_the_next_command(registry):
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
