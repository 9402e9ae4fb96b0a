"""RA016: thresholds come from the validation part."""

import pytest

from rarealert.registry.gates.integrity import ThresholdsFromValidation


@pytest.mark.parametrize(
    ("thresholds", "passed"),
    [
        ({"alert": (0.70, 0.701), "watch": (0.3, 0.3)}, True),
        ({"alert": (0.70, 0.71), "watch": (0.3, 0.3)}, False),
        ({}, False),
    ],
)
def test_each_is_what_validation_gives(sound, thresholds, passed):
    result = ThresholdsFromValidation(0.005).check(sound(thresholds=thresholds))
    assert result.passed is passed


def test_the_reason_names_the_worst(sound):
    found = sound(thresholds={"alert": (0.7, 0.7), "watch": (0.1, 0.4)})
    assert "watch is 0.1000" in ThresholdsFromValidation(0.005).check(found).reason
