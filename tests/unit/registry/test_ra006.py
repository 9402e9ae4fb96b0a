"""RA006: training targets are out-of-fold."""

import pytest

from rarealert.registry.gates.integrity import TargetsOutOfFold


@pytest.mark.parametrize(
    ("folds", "passed"),
    [
        ({"t1": 0, "t2": 4}, True),
        ({"t1": 0, "t2": None}, False),
        ({"t1": 0, "case-1": 1}, False),
        ({}, False),
    ],
)
def test_each_target_names_its_fold_and_belongs_to_train(sound, folds, passed):
    assert TargetsOutOfFold().check(sound(target_folds=folds)).passed is passed
