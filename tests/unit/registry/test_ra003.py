"""RA003: above every negative control."""

import pytest

from rarealert.registry.gates.statistical import AboveControls


@pytest.fixture
def gate(plan):
    return AboveControls(0.0, plan)


def test_chance_is_beaten(gate, sound):
    result = gate.check(sound())
    assert result.passed
    assert 0 < result.value < 0.5


def test_the_nearest_control_decides(gate, sound, risks_of):
    result = gate.check(sound({"control:tfidf": risks_of(1.0, 6)}))
    assert not result.passed
    assert "control:tfidf" in result.reason


def test_a_shortcut_as_good_as_the_student_fails_it(gate, sound):
    evidence = sound()
    assert not gate.check(sound({"control:source": evidence.risks["student"]})).passed


def test_without_controls_it_fails(gate, sound):
    evidence = sound()
    kept = {k: v for k, v in evidence.risks.items() if not k.startswith("control:")}
    from dataclasses import replace

    assert not gate.check(replace(evidence, risks=kept)).passed
    assert not gate.check(sound({"control:length": {}})).passed
