"""Shapley values, one case's contributions, and what a sample and the report keep."""

from itertools import permutations

import numpy as np
import pytest
from scipy.special import logit

from rarealert.ensemble.alignment_report import abstention_curve, coverages
from rarealert.ensemble.ensemble import CrossFitted
from rarealert.ensemble.explain_case import draw_background, explain_case
from rarealert.ensemble.explanation import TeacherReport, best_teacher, shapley_values
from rarealert.ensemble.signals import signals_of
from rarealert.ensemble.stress_tests import out_of_fold
from rarealert.ensemble.training_set import TrainingSet


def test_shapley_values_of_a_sum_are_exact_and_add_up() -> None:
    random = np.random.default_rng(0)
    slopes, case = random.normal(size=5), random.normal(size=5)
    background, players = random.normal(size=(7, 5)), [0, 2, 3, 4]
    values, base = shapley_values(lambda x: x @ slopes, case, background, players, random)
    expected = slopes * (case - background.mean(axis=0))
    assert values == pytest.approx(expected[players])
    replaced = background.copy()
    replaced[:, players] = case[players]
    assert base + values.sum() == pytest.approx((replaced @ slopes).mean())


def test_shapley_values_of_two_interacting_columns_are_those_of_all_orders() -> None:
    def function(x: np.ndarray) -> np.ndarray:
        return x[:, 0] * x[:, 1] + 3 * x[:, 2]

    random = np.random.default_rng(1)
    case, background = random.normal(size=3), random.normal(size=(4, 3))
    exact = np.zeros(3)
    for order in permutations(range(3)):
        mixed = background.copy()
        for player in order:
            before = function(mixed).mean()
            mixed[:, player] = case[player]
            exact[player] += (function(mixed).mean() - before) / 6
    values, _ = shapley_values(function, case, background, [0, 1, 2], random)
    assert values == pytest.approx(exact)


def test_contributions_add_up_and_the_informative_teacher_has_the_largest(frozen) -> None:
    ensemble, answers = frozen("logistic")
    found = explain_case(ensemble, signals_of(answers), {}, "c00", seed=1)
    assert found is not None
    assert found.risk == pytest.approx(ensemble.predict(answers)["c00"])
    assert found.labels == {level: one.labels(found.risk) for level, one in ensemble.cuts.items()}
    total = found.base + sum(one.log_odds for one in found.contributions)
    assert total == pytest.approx(logit(found.risk))
    assert found.base + sum(found.columns.values()) == pytest.approx(total)
    by_name = {one.name: one for one in found.contributions}
    assert by_name["spread"].stated is None
    moved = {
        name: abs(found.risk - (by_name[name].risk_without or 0.0)) for name in ("good", "poor")
    }
    assert moved["good"] > 2 * moved["poor"]


def test_the_risk_without_a_teacher_is_that_of_the_other_answers(frozen) -> None:
    ensemble, answers = frozen("logistic")
    found = explain_case(ensemble, signals_of(answers), {}, "c01", seed=1)
    assert found is not None
    for one in found.contributions:
        if one.stated is not None:
            others = [item for item in answers if item.teacher != one.name]
            assert one.risk_without == pytest.approx(ensemble.predict(others)["c01"])


def test_a_missing_answer_is_no_answer_and_the_last_one_can_not_be_removed(frozen, answer) -> None:
    ensemble, answers = frozen("logistic")
    kept = [item for item in answers if item.case_id != "c02" or item.teacher == "good"]
    found = explain_case(ensemble, signals_of(kept), {}, "c02", seed=1)
    assert found is not None
    by_name = {one.name: one for one in found.contributions}
    assert by_name["good"].risk_without is None
    assert all(by_name[name].stated is None for name in ("poor", "late") if name in by_name)
    unknown = [*kept[:20], answer("x", "unknown", 99)]
    assert explain_case(ensemble, signals_of(unknown), {}, "x", seed=1) is None


def test_the_same_background_is_drawn_each_time() -> None:
    names = [f"c{n}" for n in range(50)]
    assert draw_background(names, 10, 3) == draw_background(reversed(names), 10, 3)
    assert draw_background(names[:4], 10, 3) == sorted(names[:4])


def test_a_sample_keeps_the_rows_together(answer) -> None:
    random = np.random.default_rng(3)
    signals = signals_of([answer(f"{n:02}", name, n) for n in range(40) for name in "ab"])
    rare, fold, values = random.random(40) < 0.5, np.arange(40) % 5, random.random((40, 2))
    data = TrainingSet(values, rare, np.arange(40).astype(str), values)
    whole = out_of_fold(signals, (("a", "b"),), None, data, CrossFitted((), fold))
    assert whole.sample(40, 7) is whole
    drawn = whole.sample(12, 7)
    places = drawn.places.tolist()
    assert len(set(places)) == 12
    assert (drawn.signals.risk[:, 0] * 100).round().tolist() == places
    assert drawn.data.rare.tolist() == rare[places].tolist()
    assert drawn.models.fold.tolist() == fold[places].tolist()


def test_the_best_teacher_is_reported_with_the_cases_it_answered() -> None:
    reports = [
        TeacherReport(name, answered, auroc, 0.5, 0.0, 0.0)
        for name, auroc, answered in (("a", 0.7, 90), ("b", 0.9, 40), ("c", None, 90))
    ]
    assert best_teacher(reports) == {"teacher": "b", "auroc": 0.9, "cases": 40}
    assert best_teacher(reports[2:]) is None


def test_reported_sets_cover_as_stated_and_abstaining_raises_accuracy() -> None:
    random = np.random.default_rng(2)
    risks = random.beta(0.6, 0.6, 1500)
    rare = random.random(1500) < risks
    for row in coverages(rare, risks, np.arange(1500) % 5):
        assert row["covered_rare"] == pytest.approx(row["confidence"], abs=0.03)
        assert row["covered_nonrare"] == pytest.approx(row["confidence"], abs=0.03)
    rows = abstention_curve(rare, risks)
    assert rows[0]["kept"] == 1
    assert rows[-1]["accuracy"] > rows[0]["accuracy"] + 0.1
