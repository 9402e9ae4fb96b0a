"""The encoder beside the student: it learns, reads others without learning, and needs targets."""

import numpy as np
import pytest

from rarealert.errors import BadInputError
from rarealert.student.baseline import Recipe, minilm_risks
from rarealert.student.examples import LabelledReading

RECIPE = Recipe(max_tokens=64, epochs=1, learning_rate=1e-3, rank=4, soft_weight=0.5, seed=3)


def targets_of(cases: list[LabelledReading]) -> dict[str, float]:
    return {item.case.case_id: 0.9 if item.label.label == "rare" else 0.2 for item in cases}


@pytest.fixture(scope="module")
def risks(cases: list[LabelledReading]) -> dict[str, float]:
    others = [item.reading for item in cases[48:]]
    return minilm_risks(cases[:24], cases[24:48], targets_of(cases[:24]), others, RECIPE)


def test_each_label_has_words_of_its_own_and_they_are_learnt(risks, cases) -> None:
    assert risks.keys() == {item.case.case_id for item in cases[24:]}
    rare = [risks[item.case.case_id] for item in cases[48:] if item.label.label == "rare"]
    common = [risks[item.case.case_id] for item in cases[48:] if item.label.label != "rare"]
    assert 0 <= min(common) < max(common) < min(rare) <= 1


def test_what_else_is_read_changes_no_risk(risks, cases) -> None:
    few = minilm_risks(
        cases[:24], cases[24:48], targets_of(cases[:24]), [cases[50].reading], RECIPE
    )
    # padding differs, and states are kept in half precision
    assert few[cases[50].case.case_id] == pytest.approx(risks[cases[50].case.case_id], abs=1e-4)
    same = [item.case.case_id for item in cases[24:48]]
    np.testing.assert_allclose([few[at] for at in same], [risks[at] for at in same], atol=1e-9)


def test_a_training_case_that_no_teacher_answered_is_left_out(cases) -> None:
    said = [
        minilm_risks(learnt, cases[24:48], targets_of(cases[:23]), [cases[50].reading], RECIPE)
        for learnt in (cases[:23], cases[:24])
    ]
    assert said[0] == said[1]


def test_without_any_aligned_risk_it_is_refused(cases) -> None:
    with pytest.raises(BadInputError, match="gave no training case a risk; run dvc repro align"):
        minilm_risks(cases[:24], cases[24:48], {}, [], RECIPE)
