"""Features say what was answered, and nothing of who was asked."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rarealert.ensemble.features import blocks_of, build_features, visit_features
from rarealert.ensemble.signals import WORDING, panel_of, read_panel, wording_of
from rarealert.errors import BadInputError
from rarealert.teachers.answer import (
    AnswerRow,
    Differential,
    Insight,
    TeacherAnswer,
    graded_risk,
    write_answers,
)
from rarealert.visits.case import Case

_ABD = ("a", "b", "d")


def _said(
    case: str,
    teacher: str,
    risk: int,
    names: tuple[tuple[str, str | None], ...] = (),
    weights: tuple[float, ...] = (),
) -> AnswerRow:
    answer = TeacherAnswer(
        insights=tuple(
            Insight(name=f"finding {n}", weight=weight, explanation="why")
            for n, weight in enumerate(weights)
        ),
        differential=tuple(Differential(name=name, orpha_code=code) for name, code in names),
        risk=risk,
        explanation="because",
    )
    return AnswerRow(case_id=case, teacher=teacher, status="ok", answer=answer)


def _expecting(item: AnswerRow, expected: float) -> AnswerRow:
    assert item.answer is not None
    answer = item.answer.model_copy(update={"expected_risk": expected})
    return item.model_copy(update={"answer": answer})


def _row(answers: list[AnswerRow], teachers: tuple[str, ...]) -> dict[str, float]:
    features = build_features(panel_of(answers), (teachers,))
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


def test_expected_risk_breaks_ties_and_overturns_nothing() -> None:
    told = [
        _expecting(_said("1", "a", 50), 3.0),
        _expecting(_said("2", "a", 50), 90.0),
        _said("3", "a", 50),
        _said("4", "a", 51),
        _expecting(_said("5", "a", 49), 100.0),
    ]
    panel = panel_of(told)
    assert np.argsort(panel.risk[:, 0]).tolist() == [4, 0, 2, 1, 3]
    votes = build_features(panel, (("a",),))
    column = votes.values[:, votes.names.index("spread:vote_share")]
    assert column.tolist() == [1, 1, 1, 1, 0]  # as stated


@given(st.integers(0, 100), st.integers(0, 100), st.floats(0, 100), st.floats(0, 100))
def test_graded_risks_keep_the_order_of_stated_ones(
    one: int, other: int, expected: float, unlike: float
) -> None:
    first, second = graded_risk(one, expected), graded_risk(other, unlike)
    assert 0 <= first <= 1
    if one < other:
        assert first < second
        assert first < graded_risk(other, None)


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
    failed = AnswerRow(case_id="x", teacher="a", status="failed", answer=None)
    features = build_features(panel_of([failed, _said("y", "stranger", 99)]), (("a",),))
    assert features.case_ids == ()


def test_a_set_that_adds_nothing_is_not_screened() -> None:
    answers = [_said("c", "a", 20), _said("d", "a", 80)]
    assert build_features(panel_of(answers), (("a",),)).useful_sets() == ("risk", "risk+spread")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 100), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_aggregates_do_not_depend_on_the_order_of_answers(risks: list[int], random: object) -> None:
    answers = [_said("c", f"t{n}", risk) for n, risk in enumerate(risks)]
    teachers = tuple(f"t{n}" for n in range(len(risks)))
    mixed = list(answers)
    random.shuffle(mixed)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    first = build_features(panel_of(answers), (teachers,)).values
    assert np.array_equal(
        first, build_features(panel_of(mixed), (teachers,)).values, equal_nan=True
    )


def test_overlap_is_the_mean_jaccard_index_over_pairs() -> None:
    one, other = (("Influenza", None),), (("Common cold", None),)
    row = _row([_said("c", "a", 1, one), _said("c", "b", 1, one), _said("c", "d", 1, other)], _ABD)
    assert row["differential:overlap"] == pytest.approx(1 / 3)
    assert math.isnan(_row([_said("c", "a", 1, one)], _ABD)["differential:overlap"])


def test_entropy_is_0_for_one_mind_and_1_for_as_many_as_voices() -> None:
    flu, cold = (("Influenza", None),), (("Common cold", None),)
    same = _row([_said("c", "a", 1, flu), _said("c", "b", 1, flu)], _ABD)
    split = _row([_said("c", "a", 1, flu), _said("c", "b", 1, cold)], _ABD)
    assert same["differential:entropy"] == pytest.approx(0.0)
    assert split["differential:entropy"] == pytest.approx(1.0)


def test_ontology_distance_sees_which_organ_systems_two_disorders_share() -> None:
    fabry, gaucher = (("Fabry disease", "ORPHA:324"),), (("Gaucher disease", "ORPHA:355"),)
    same = _row([_said("c", "a", 1, fabry), _said("c", "b", 1, fabry)], _ABD)
    other = _row([_said("c", "a", 1, fabry), _said("c", "b", 1, gaucher)], _ABD)
    assert same["differential:ontology_distance"] == 0.0
    assert 0.0 < other["differential:ontology_distance"] < 1.0


def test_wording_counts_shares_of_words() -> None:
    words = dict(zip(WORDING, wording_of("This may be a rare disease, not a cold."), strict=True))
    assert words["hedging"] == pytest.approx(1 / 9)
    assert words["rarity"] == pytest.approx(1 / 9)
    assert words["negation"] == pytest.approx(1 / 9)
    assert words["certainty"] == 0.0
    embedding = [value for name, value in words.items() if name.startswith("embedding")]
    assert math.hypot(*embedding) == pytest.approx(1.0)
    assert not any(wording_of("42"))


def test_visits_say_who_and_what_was_found() -> None:
    said = visit_features(
        [
            Case(case_id="c", source="s", age_years=40, sex="female", chief_complaint="fever"),
            Case(case_id="d", source="s", chief_complaint="nothing to report"),
        ]
    )
    age, female, findings, systems, *information = said["c"]
    assert (age, female, findings) == (40, 1.0, 1.0)
    assert systems >= 1
    assert all(value > 0 for value in information)
    assert said["d"][2] == 0
    assert math.isnan(said["d"][0])


def test_panels_that_never_met_are_blocks_with_columns_of_their_own() -> None:
    answers = [
        _said(f"{case}{n}", teacher, 10 * n)
        for case, teachers in (("x", "ab"), ("y", "de"))
        for teacher in teachers
        for n in range(5)
    ]
    panel = panel_of(answers)
    assert blocks_of(panel) == (("a", "b"), ("d", "e"))
    features = build_features(panel, blocks_of(panel))
    first, second = (features.names.index(f"spread:mean{end}") for end in ("", "@2"))
    known = ~np.isnan(features.values)
    assert (known[:, first] != known[:, second]).all()
    stray = panel_of([*answers, *(_said(f"x{n}", "d", 1) for n in range(5))])
    assert blocks_of(stray) == (("a", "b", "d", "e"),)


def test_a_file_of_answers_is_read_as_the_answers_are(tmp_path: Path) -> None:
    answers = [
        _said("c", "a", 20, (("Fabry disease", "ORPHA:324"),), (0.7, 0.3)),
        _said("d", "b", 80),
        AnswerRow(case_id="c", teacher="b", status="failed", answer=None),
        _said("not asked for", "a", 50),
    ]
    write_answers(tmp_path / "answers.parquet", answers)
    read = read_panel(tmp_path / "answers.parquet", ["c", "d", "nobody answered"])
    direct = panel_of(answers[:3])
    assert read.case_ids == direct.case_ids == ("c", "d")
    for name in ("risk", "orphanet", "systems", "attention", "wording"):
        assert np.array_equal(getattr(read, name), getattr(direct, name), equal_nan=True)


def test_another_file_is_no_file_of_answers(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    with pytest.raises(BadInputError, match="can't be read as an answers file"):
        read_panel(tmp_path / "x.parquet", ["c"])
    with pytest.raises(BadInputError, match="is missing"):
        read_panel(tmp_path / "y.parquet", ["c"])


def test_silencing_and_dealing_change_what_they_name_and_nothing_else() -> None:
    panel = panel_of([_said(f"c{n}", teacher, 10 * n) for teacher in "ab" for n in range(3)])
    gaps = np.asarray([[True, False]] * 3)
    assert np.isnan(panel.silenced(gaps).risk[:, 0]).all()
    assert np.array_equal(panel.silenced(gaps).risk[:, 1], panel.risk[:, 1])
    dealt = panel.dealt("a", np.asarray([1, 2, 0]))
    assert dealt.risk[:, 0].tolist() == [0.1, 0.2, 0.0]
    assert np.array_equal(dealt.risk[:, 1], panel.risk[:, 1])
