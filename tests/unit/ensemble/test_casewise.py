"""A case's risk is told voice by voice, and the voices add up to it."""

import numpy as np
import pytest
from scipy.special import logit

from rarealert.ensemble.algorithms import ALGORITHMS
from rarealert.ensemble.ensemble import Ensemble, fit_model, freeze
from rarealert.ensemble.explanation import draw_background, explain_case
from rarealert.ensemble.features import build_features
from rarealert.ensemble.folds import TrainingSet
from rarealert.ensemble.search import Candidate
from rarealert.ensemble.signals import panel_of
from rarealert.teachers.answer import AnswerRow, TeacherAnswer


def _answer(case: str, teacher: str, risk: int) -> AnswerRow:
    said = TeacherAnswer(insights=(), differential=(), risk=risk, explanation="because")
    return AnswerRow(case_id=case, teacher=teacher, status="ok", answer=said)


def _frozen() -> tuple[Ensemble, list[AnswerRow]]:
    """Teacher ``good`` knows, ``deaf`` does not, and ``late`` answers every other case."""
    rng, said = np.random.default_rng(2), []
    rare = np.arange(80) % 2 == 0
    for n, one in enumerate(rare):
        case = f"c{n:02}"
        said.append(_answer(case, "good", int(np.clip(rng.normal(70 if one else 30, 18), 0, 100))))
        said.append(_answer(case, "deaf", int(rng.integers(0, 101))))
        if n % 4 < 2:
            said.append(_answer(case, "late", int(np.clip(rng.normal(50, 20), 0, 100))))
    blocks = (("deaf", "good", "late"),)
    features = build_features(panel_of(said), blocks)
    data = TrainingSet(features.values, rare, np.arange(80).astype(str))
    columns = {"risk+spread": features.columns("risk+spread")}
    candidates = [Candidate("logistic", "risk+spread", ALGORITHMS["logistic"].default)]
    model = fit_model(candidates, data, columns, 4, 1)
    risks = model.risks(features.values)
    return freeze(blocks, model, {"t": 0.5}, (rare, risks), features.values), said


def test_voices_add_up_and_the_one_that_knows_is_the_loudest() -> None:
    ensemble, said = _frozen()
    found = explain_case(ensemble, panel_of(said), {}, "c00", seed=1)
    assert found is not None
    assert found.risk == pytest.approx(ensemble.predict(said)["c00"])
    assessed = ensemble.assess(said)["c00"]
    assert (found.labels, found.strangeness) == (assessed.labels, assessed.strangeness)
    told = found.base + sum(voice.log_odds for voice in found.voices)
    assert told == pytest.approx(logit(found.risk))
    assert found.base + sum(found.columns.values()) == pytest.approx(told)
    by_name = {voice.name: voice for voice in found.voices}
    missed = {
        name: abs(found.risk - (voice.risk_without or 0.0))
        for name, voice in by_name.items()
        if voice.said is not None
    }
    assert missed["good"] > 2 * missed["deaf"]
    assert by_name["spread"].said is None


def test_the_risk_without_a_teacher_is_that_of_the_others_answers() -> None:
    ensemble, said = _frozen()
    found = explain_case(ensemble, panel_of(said), {}, "c01", seed=1)
    assert found is not None
    for voice in found.voices:
        if voice.said is not None:
            others = [item for item in said if item.teacher != voice.name]
            assert voice.risk_without == pytest.approx(ensemble.predict(others)["c01"])


def test_silence_is_not_an_answer_and_the_last_voice_can_not_be_missed() -> None:
    ensemble, said = _frozen()
    kept = [item for item in said if item.case_id != "c02" or item.teacher == "good"]
    found = explain_case(ensemble, panel_of(kept), {}, "c02", seed=1)
    assert found is not None
    by_name = {voice.name: voice for voice in found.voices}
    assert by_name["good"].risk_without is None
    assert all(by_name[name].said is None for name in ("deaf", "late") if name in by_name)
    strangers = [*kept[:20], _answer("x", "stranger", 99)]
    assert explain_case(ensemble, panel_of(strangers), {}, "x", seed=1) is None


def test_the_same_cases_stand_for_unknown_each_time() -> None:
    names = [f"c{n}" for n in range(50)]
    assert draw_background(names, 10, 3) == draw_background(reversed(names), 10, 3)
    assert draw_background(names[:4], 10, 3) == sorted(names[:4])
