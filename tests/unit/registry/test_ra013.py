"""RA013: no Orphanet head is left behind."""

import pytest

from rarealert.registry.gates.statistical import SMALL_HEADS, WorstHead


@pytest.fixture
def gate():
    return WorstHead(0.7)


def cells(sound, head_of):
    rare = [key for key, is_rare in sound().rare.items() if is_rare]
    return {"head": {key: head for i, key in enumerate(rare) if (head := head_of(i)) is not None}}


def upside_down(sound, heads, head):
    risks = dict(sound().risks["student"])
    return {
        key: 1 - risk if heads["head"].get(key) == head else risk for key, risk in risks.items()
    }


def test_heads_that_are_told_apart_pass(gate, sound):
    assert gate.check(sound(cells=cells(sound, lambda i: "ab"[i % 2]))).passed


def test_one_bad_head_fails_although_the_average_is_good(gate, sound):
    heads = cells(sound, lambda i: "renal" if i < 12 else "neurologic")
    result = gate.check(sound({"student": upside_down(sound, heads, "renal")}, cells=heads))
    assert not result.passed
    assert "renal (n = 12 rare)" in result.reason


def test_small_heads_and_cases_without_one_are_judged_together(gate, sound):
    heads = cells(sound, lambda i: f"head {i}" if i < 30 else None)
    result = gate.check(sound(cells=heads))
    assert result.passed
    assert SMALL_HEADS in result.reason
    assert "the lowest of 1" in result.reason


def test_without_predictions_it_fails(gate, sound):
    assert not gate.check(sound({"student": {}})).passed
