"""RA017: the student was trained on the training part."""

import pytest

from rarealert.registry.gates.integrity import TrainedOnTrain


@pytest.mark.parametrize(
    ("trained_on", "passed"),
    [
        ({"train": ("a", "a"), "valid": ("b", "b")}, True),
        ({"train": ("c", "a"), "valid": ("b", "b")}, False),
        ({"train": (None, "a")}, False),
        ({}, False),
    ],
)
def test_the_noted_digests_are_those_on_disk(sound, trained_on, passed):
    assert TrainedOnTrain().check(sound(trained_on=trained_on)).passed is passed
