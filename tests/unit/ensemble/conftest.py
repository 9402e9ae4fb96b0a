"""Answers, small training sets and a frozen ensemble for the tests of this room."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from rarealert.ensemble.algorithms import ALGORITHMS
from rarealert.ensemble.ensemble import Ensemble, fit_model, freeze
from rarealert.ensemble.features import build_features
from rarealert.ensemble.search import Candidate
from rarealert.ensemble.signals import signals_of
from rarealert.ensemble.training_set import TrainingSet
from rarealert.teachers.teacher_answer import AnswerRow, Differential, Insight, TeacherAnswer


def answer(
    case: str,
    teacher: str,
    risk: int = 50,
    names: Sequence[tuple[str, str | None]] = (),
    weights: Sequence[float] = (),
    expected: float | None = None,
) -> AnswerRow:
    """A successful answer with the diseases ``names`` and insights of these ``weights``."""
    given = TeacherAnswer(
        insights=tuple(
            Insight(name=f"finding {n}", weight=weight, explanation="why")
            for n, weight in enumerate(weights)
        ),
        differential=tuple(Differential(name=name, orpha_code=code) for name, code in names),
        risk=risk,
        expected_risk=expected,
        explanation="because",
    )
    return AnswerRow(case_id=case, teacher=teacher, status="ok", answer=given)


@pytest.fixture(name="answer")
def answer_fixture() -> Callable[..., AnswerRow]:
    return answer


def noise(cases: int, teachers: int, seed: int) -> TrainingSet:
    """Risks that carry nothing about the label, over 60 diseases of each class."""
    random = np.random.default_rng(seed)
    rare = random.random(cases) < 0.4
    disease = np.asarray(
        [f"{int(one)}-{n}" for one, n in zip(rare, random.integers(0, 60, cases), strict=True)]
    )
    values = random.integers(0, 101, (cases, teachers)) / 100
    return TrainingSet(values, rare, disease, values)


@pytest.fixture(name="noise")
def noise_fixture() -> Callable[[int, int, int], TrainingSet]:
    return noise


@pytest.fixture(scope="session")
def frozen() -> Callable[..., tuple[Ensemble, list[AnswerRow]]]:
    """Make an ensemble of the named algorithms, and the answers it was fitted on.

    Teacher ``good`` is informative, ``poor`` is not, and ``late`` answers every other pair.
    """

    def make(*algorithms: str) -> tuple[Ensemble, list[AnswerRow]]:
        random, answers = np.random.default_rng(2), []
        rare = np.arange(80) % 2 == 0
        for n, one in enumerate(rare):
            case, mean = f"c{n:02}", 70 if one else 30
            answers.append(answer(case, "good", int(np.clip(random.normal(mean, 18), 0, 100))))
            answers.append(answer(case, "poor", int(random.integers(0, 101))))
            if n % 4 < 2:
                answers.append(answer(case, "late", int(np.clip(random.normal(50, 20), 0, 100))))
        blocks = (("good", "late", "poor"),)
        features = build_features(signals_of(answers), blocks)
        risks = features.values[:, features.columns("risk")]
        data = TrainingSet(features.values, rare, np.arange(80).astype(str), risks)
        columns = {"risk+spread": features.columns("risk+spread")}
        candidates = [Candidate(one, "risk+spread", ALGORITHMS[one].default) for one in algorithms]
        model = fit_model(candidates, data, columns, 3, 1)
        valid = rare, model.risks(features.values)
        return freeze(blocks, model, {"t": 0.5}, valid, features.values), answers

    return make
