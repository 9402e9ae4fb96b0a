"""RA002: within the margin of the best teacher."""

import pytest

from rarealert.registry.gates.statistical import NearBestTeacher


@pytest.fixture
def gate(plan):
    return NearBestTeacher(0.1, plan)


def test_the_best_teacher_is_the_yardstick(gate, sound):
    result = gate.check(sound())
    assert result.passed
    assert "teacher:good" in result.reason


def test_a_far_better_teacher_fails_it(gate, sound, risks_of):
    result = gate.check(sound({"teacher:best": risks_of(3.0, 7)}))
    assert not result.passed
    assert "teacher:best" in result.reason


def test_a_teacher_heard_on_few_cases_is_no_yardstick(gate, sound, risks_of):
    few = dict(list(risks_of(5.0, 7).items())[:20])
    assert "teacher:good" in gate.check(sound({"teacher:lucky": few})).reason


def test_without_any_teacher_it_fails(gate, sound):
    assert not gate.check(sound({"teacher:good": {}, "teacher:poor": {}})).passed
