"""RA014: no source, age band or sex is left behind."""

import pytest

from rarealert.registry.gates.statistical import WorstSubgroup


@pytest.fixture
def gate():
    return WorstSubgroup(0.7)


def test_even_subgroups_pass(gate, sound):
    result = gate.check(sound())
    assert result.passed
    assert "the lowest of 3 subgroups" in result.reason


def test_one_sex_that_is_not_told_apart_fails(gate, sound):
    women = sound().cells["sex"]
    risks = {
        key: 1 - risk if women[key] == "female" else risk
        for key, risk in sound().risks["student"].items()
    }
    result = gate.check(sound({"student": risks}))
    assert not result.passed
    assert "sex female" in result.reason


def test_a_cell_too_small_to_judge_is_counted_not_judged(gate, sound):
    ages = {key: "old" if i < 8 else "young" for i, key in enumerate(sound().rare)}
    result = gate.check(sound(cells={"age": ages}))
    assert result.passed
    assert "1 with fewer than 10 cases of a label were not judged" in result.reason


def test_nothing_to_judge_is_no_proof(gate, sound):
    assert not gate.check(sound(cells={})).passed
