"""RA005: judged on the whole locked test part, without leaks."""

import pytest

from rarealert.registry.gates.integrity import LockedTest

gate = LockedTest()


def test_all_locked_cases_pass(sound):
    assert gate.check(sound()).passed


def test_another_test_part_fails(sound):
    assert not gate.check(sound(test_digest="b")).passed


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 1.5, None])
def test_a_dropped_or_unusable_prediction_fails(sound, wrong):
    risks = dict(sound().risks["student"])
    if wrong is None:
        del risks["case-7"]
    else:
        risks["case-7"] = wrong
    result = gate.check(sound({"student": risks}))
    assert not result.passed
    assert result.value == 1


def test_a_prediction_of_no_test_case_fails(sound):
    assert not gate.check(sound({"student": {**sound().risks["student"], "t1": 0.5}})).passed


def test_a_leak_fails(sound):
    result = gate.check(sound(leaks=("2 diseases on two sides",)))
    assert not result.passed
    assert "2 diseases" in result.reason
