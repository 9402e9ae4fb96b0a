"""The encoder beside the student: it learns, other visits change no risk, and it needs targets."""

import numpy as np
import pytest

from rarealert.errors import BadInputError
from rarealert.student.baseline import Recipe, minilm_risks

RECIPE = Recipe(max_tokens=64, epochs=1, learning_rate=1e-3, rank=4, soft_weight=0.5, seed=3)


@pytest.fixture(scope="module")
def run(cases, targets):
    def risks(others, count: int = 24, known: int = 24) -> dict[str, float]:
        aligned = dict(list(targets.items())[:known])
        readings = [item.reading for item in others]
        return minilm_risks(cases[:count], cases[24:48], aligned, readings, RECIPE)

    return risks


@pytest.fixture(scope="module")
def risks(run, cases) -> dict[str, float]:
    return run(cases[48:])


def test_each_label_has_words_of_its_own_and_they_are_learnt(risks, cases) -> None:
    assert risks.keys() == {item.case.case_id for item in cases[24:]}
    rare = [risks[item.case.case_id] for item in cases[48:] if item.is_rare]
    common = [risks[item.case.case_id] for item in cases[48:] if not item.is_rare]
    assert 0 <= min(common) <= max(common) < min(rare) <= 1


def test_other_visits_change_no_risk(run, risks, cases) -> None:
    few, name = run(cases[50:51]), cases[50].case.case_id
    # padding differs, and states are stored in half precision
    assert few[name] == pytest.approx(risks[name], abs=1e-4)
    valid = [item.case.case_id for item in cases[24:48]]
    np.testing.assert_allclose([few[at] for at in valid], [risks[at] for at in valid], atol=1e-9)


def test_a_training_case_that_no_teacher_answered_is_left_out(run, cases) -> None:
    assert run(cases[50:51], count=23, known=23) == run(cases[50:51], count=24, known=23)


def test_without_any_aligned_risk_it_is_refused(run) -> None:
    with pytest.raises(BadInputError, match="run dvc repro align"):
        run([], known=0)
