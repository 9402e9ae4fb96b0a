"""RA010: inputs match dvc.lock."""

import pytest

from rarealert.registry.gates.integrity import InputsPinned
from rarealert.registry.judged import InputCheck


@pytest.mark.parametrize(
    ("inputs", "passed"),
    [
        (InputCheck(True, 7, (), ()), True),
        (InputCheck(False, 0, (), ()), False),
        (InputCheck(True, 7, ("reports/evaluate/metrics.json",), ()), False),
        (InputCheck(True, 6, (), ("build/split/test.parquet",)), False),
    ],
)
def test_every_input_is_pinned_and_unchanged(sound, inputs, passed):
    result = InputsPinned().check(sound(inputs=inputs))
    assert result.passed is passed
    for path in inputs.changed + inputs.unpinned:
        assert path in result.reason
