"""RA001: not worse than the champion."""

from dataclasses import replace

import pytest

from rarealert.registry.gates.statistical import NotBelowChampion
from rarealert.registry.judged import Champion


@pytest.fixture
def gate(plan):
    return NotBelowChampion(0.02, plan)


def champion(risks, auroc=0.9):
    return Champion("3", same_as_challenger=False, risks=risks, auroc=auroc)


def test_without_a_champion_it_passes_and_says_so(gate, sound):
    result = gate.check(sound())
    assert result.passed
    assert "no champion" in result.reason


def test_the_champion_itself_passes(gate, sound):
    assert gate.check(sound(champion=Champion("3", True, {}, None))).passed


def test_equal_risks_are_no_loss(gate, sound):
    evidence = sound()
    result = gate.check(replace(evidence, champion=champion(evidence.risks["student"])))
    assert result.passed
    assert result.value == pytest.approx(0)


def test_a_far_better_champion_is_not_followed(gate, sound, risks_of):
    result = gate.check(sound(champion=champion(risks_of(3.0, 9))))
    assert not result.passed
    assert result.value < -0.02


def test_a_loss_within_noise_fails_because_the_burden_lies_with_the_challenger(
    gate, sound, risks_of
):
    assert not gate.check(sound(champion=champion(risks_of(1.0, 6)))).passed


@pytest.mark.parametrize(("auroc", "passed"), [(0.75, True), (0.83, False), (None, False)])
def test_judged_on_other_cases_the_bound_meets_the_champions_figure(gate, sound, auroc, passed):
    result = gate.check(sound(champion=champion({"other": 0.5}, auroc)))
    assert result.passed is passed


def test_without_an_auroc_of_its_own_it_fails_and_says_why(gate, sound):
    why = {"absent": {"models": {"student": {"auroc": "no rare case"}}}}
    for reported in ({"models": {"student": {}}, **why}, {"models": {}, **why}):
        result = gate.check(sound(champion=champion({"other": 0.5}), reported=reported))
        assert not result.passed
        assert result.reason == "AUROC is not defined on the test part (no rare case)."
