"""A study of three models of known strength."""

import numpy as np
import pytest

from rarealert.evaluation.intervals import Bootstrap
from rarealert.evaluation.study import Study, Thresholds


@pytest.fixture
def plan():
    return Bootstrap(resamples=200, confidence=0.95, seed=5)


@pytest.fixture
def make_study():
    """``make_study(n, seed)``: a good student, a teacher with gaps, and a coin without threshold.

    The first half of the cases is rare; each label has 60 diseases.
    """

    def make(n=400, seed=2):
        rng = np.random.default_rng(seed)
        labels = np.repeat([1.0, 0.0], n // 2)
        clusters = np.array([f"{label:.0f}-{rng.integers(60)}" for label in labels])
        student = 1 / (1 + np.exp(-2 * (labels - 0.5) - rng.normal(size=n)))
        gaps = student.copy()
        gaps[::7] = np.nan
        risks = {"student": student, "teacher:gaps": gaps, "control:coin": rng.random(n)}
        return Study(
            labels,
            clusters,
            risks,
            dict.fromkeys(("student", "teacher:gaps"), Thresholds(0.8, 0.2)),
        )

    return make
