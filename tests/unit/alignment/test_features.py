"""Features say what was answered, and nothing of who was asked."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rarealert.alignment.features import build_features, mean_jaccard, panel_of
from rarealert.teachers.answer import Answer, Differential, Insight, TeacherAnswer


def _said(
    case: str,
    teacher: str,
    risk: int,
    names: tuple[tuple[str, str | None], ...] = (),
    weights: tuple[float, ...] = (),
) -> TeacherAnswer:
    answer = Answer(
        insights=tuple(
            Insight(name=f"finding {n}", weight=weight, explanation="why")
            for n, weight in enumerate(weights)
        ),
        differential=tuple(Differential(name=name, orpha_code=code) for name, code in names),
        risk=risk,
        explanation="because",
    )
    return TeacherAnswer(case_id=case, teacher=teacher, status="ok", answer=answer)


def _row(answers: list[TeacherAnswer], teachers: tuple[str, ...]) -> dict[str, float]:
    features = build_features(panel_of(answers), teachers)
    return dict(zip(features.names, features.values[0].tolist(), strict=True))


def test_risks_and_spread_are_those_of_the_present_teachers() -> None:
    row = _row([_said("c", "a", 20), _said("c", "b", 80)], ("a", "b", "absent"))
    assert row["risk:a"] == 0.2
    assert row["risk:b"] == 0.8
    assert math.isnan(row["risk:absent"])
    assert row["spread:mean"] == pytest.approx(0.5)
    assert row["spread:sd"] == pytest.approx(0.3)
    assert row["spread:range"] == pytest.approx(0.6)
    assert row["spread:vote_share"] == 0.5


def test_differential_counts_orphanet_disorders_by_rank_and_overlap() -> None:
    rare, common = ("Fabry disease", "ORPHA:324"), ("Influenza", None)
    row = _row([_said("c", "a", 90, (rare, common)), _said("c", "b", 10, (common,))], ("a", "b"))
    assert row["differential:orphanet_share"] == pytest.approx(0.25)
    assert row["differential:orphanet_first"] == 0.5
    assert row["differential:orphanet_rank_weighted"] == pytest.approx((1 / 1.5) / 2)
    assert row["differential:overlap"] == pytest.approx(0.5)
    assert row["differential:consensus"] == 1.0
    assert row["differential:consensus_orphanet"] == 0.0


def test_insight_entropy_and_concentration() -> None:
    row = _row([_said("c", "a", 50, weights=(0.5, 0.5))], ("a",))
    assert row["insight:entropy"] == pytest.approx(1.0)
    assert row["insight:concentration"] == pytest.approx(0.5)
    assert math.isnan(row["insight:overlap"])


def test_what_nobody_said_is_unknown_and_not_zero() -> None:
    row = _row([_said("c", "a", 50)], ("a",))
    assert math.isnan(row["differential:orphanet_share"])
    assert math.isnan(row["insight:entropy"])


def test_failed_answers_and_strangers_are_not_heard() -> None:
    failed = TeacherAnswer(case_id="x", teacher="a", status="failed", answer=None)
    features = build_features(panel_of([failed, _said("y", "stranger", 99)]), ("a",))
    assert features.case_ids == ()


def test_a_set_that_adds_nothing_is_not_screened() -> None:
    answers = [_said("c", "a", 20), _said("d", "a", 80)]
    assert build_features(panel_of(answers), ("a",)).useful_sets() == ("risk", "risk+spread")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 100), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_aggregates_do_not_depend_on_the_order_of_answers(risks: list[int], random: object) -> None:
    answers = [_said("c", f"t{n}", risk) for n, risk in enumerate(risks)]
    teachers = tuple(f"t{n}" for n in range(len(risks)))
    mixed = list(answers)
    random.shuffle(mixed)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    first = build_features(panel_of(answers), teachers).values
    assert np.array_equal(first, build_features(panel_of(mixed), teachers).values, equal_nan=True)


def test_mean_jaccard_needs_a_pair() -> None:
    assert math.isnan(mean_jaccard([{"a"}]))
    assert mean_jaccard([{"a"}, {"a"}, {"b"}]) == pytest.approx(1 / 3)
