"""RA015: every source is judged on both labels."""

import pytest

from rarealert.registry.gates.statistical import EverySource


@pytest.fixture
def gate():
    return EverySource(10)


def test_the_source_that_was_asked_for_passes(gate, sound):
    assert gate.check(sound()).passed


def test_a_source_that_was_asked_for_and_is_absent_fails(gate, sound):
    result = gate.check(sound(sources=("simulated", "craftmd")))
    assert not result.passed
    assert "craftmd has 0 rare" in result.reason


def test_a_source_nobody_asked_for_fails(gate, sound):
    assert "not asked for" in gate.check(sound(sources=("craftmd",))).reason


def test_a_source_whose_label_is_its_name_fails(gate, sound):
    split = {key: "rare_only" if rare else "other" for key, rare in sound().rare.items()}
    result = gate.check(sound(cells={"source": split}, sources=("rare_only", "other")))
    assert not result.passed
    assert result.value == 0


def test_unanswered_cases_do_not_count(gate, sound):
    few = dict(list(sound().risks["student"].items())[:12])
    assert not gate.check(sound({"student": few})).passed


def test_no_source_at_all_fails(gate, sound):
    assert not gate.check(sound(sources=(), cells={})).passed
