"""Features describe the answers, not which teachers were asked."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rarealert.ensemble.features import blocks_of, build_features, visit_features
from rarealert.ensemble.signals import signals_of
from rarealert.teachers.teacher_answer import AnswerRow, TeacherAnswer
from rarealert.visits.case import Case
from rarealert.visits.reading import read_visit

FABRY, GAUCHER = ("Fabry disease", "ORPHA:324"), ("Gaucher disease", "ORPHA:355")
INFLUENZA, COLD = ("Influenza", None), ("Common cold", None)


def row_of(answers: list[AnswerRow], teachers: str = "ab") -> dict[str, float]:
    features = build_features(signals_of(answers), (tuple(teachers),))
    return dict(zip(features.names, features.values[0].tolist(), strict=True))


def test_risks_and_spread_are_those_of_the_answering_teachers(answer) -> None:
    row = row_of([answer("c", "a", 20), answer("c", "b", 80)], "abx")
    assert (row["risk:a"], row["risk:b"], row["spread:vote_share"]) == (0.2, 0.8, 0.5)
    assert math.isnan(row["risk:x"])
    found = [row[f"spread:{name}"] for name in ("mean", "sd", "range", "agreement")]
    assert found == pytest.approx([0.5, 0.3, 0.6, 0.4])


def test_expected_risk_breaks_ties_and_overturns_nothing(answer) -> None:
    answers = [
        answer("1", "a", 50, expected=3.0),
        answer("2", "a", 50, expected=90.0),
        answer("3", "a", 50),
        answer("4", "a", 51),
        answer("5", "a", 49, expected=100.0),
    ]
    signals = signals_of(answers)
    assert np.argsort(signals.risk[:, 0]).tolist() == [4, 0, 2, 1, 3]
    votes = build_features(signals, (("a",),))
    column = votes.values[:, votes.names.index("spread:vote_share")]
    assert column.tolist() == [1, 1, 1, 1, 0]  # by the stated risk


def test_the_differential_is_measured_by_rank_overlap_and_organ_system(answer) -> None:
    row = row_of([answer("c", "a", 90, (FABRY, INFLUENZA)), answer("c", "b", 10, (INFLUENZA,))])
    expected = {
        "orphanet_share": 0.25,
        "orphanet_first": 0.5,
        "orphanet_rank_weighted": 1 / 3,
        "overlap": 0.5,
        "consensus": 1.0,
        "consensus_orphanet": 0.0,
    }
    assert {name: row[f"differential:{name}"] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("named", "overlap", "entropy"),
    [
        ((INFLUENZA, INFLUENZA, COLD), 1 / 3, None),
        ((INFLUENZA, INFLUENZA), 1.0, 0.0),
        ((INFLUENZA, COLD), 0.0, 1.0),
        ((INFLUENZA,), math.nan, 0.0),
    ],
)
def test_overlap_is_that_of_pairs_and_entropy_that_of_all(answer, named, overlap, entropy) -> None:
    answers = [answer("c", name, 1, (one,)) for name, one in zip("abd", named, strict=False)]
    row = row_of(answers, "abd")
    assert row["differential:overlap"] == pytest.approx(overlap, nan_ok=True)
    if entropy is not None:
        assert row["differential:entropy"] == pytest.approx(entropy)


def test_ontology_distance_depends_on_shared_organ_systems(answer) -> None:
    same = row_of([answer("c", "a", 1, (FABRY,)), answer("c", "b", 1, (FABRY,))])
    other = row_of([answer("c", "a", 1, (FABRY,)), answer("c", "b", 1, (GAUCHER,))])
    assert same["differential:ontology_distance"] == 0.0
    assert 0.0 < other["differential:ontology_distance"] < 1.0


def test_insights_have_entropy_and_concentration_and_missing_ones_are_unknown(answer) -> None:
    row = row_of([answer("c", "a", weights=(0.5, 0.5))])
    assert row["insight:entropy"] == pytest.approx(1.0)
    assert row["insight:concentration"] == pytest.approx(0.5)
    row = row_of([answer("c", "a")])
    unknown = ("insight:overlap", "insight:entropy", "differential:orphanet_share")
    assert all(math.isnan(row[name]) for name in unknown)


def test_failed_answers_and_unknown_teachers_are_not_used(answer) -> None:
    failed = AnswerRow(case_id="x", teacher="a", status="failed", answer=None)
    features = build_features(signals_of([failed, answer("y", "unknown", 99)]), (("a",),))
    assert features.case_ids == ()


def test_a_set_that_adds_nothing_is_not_screened(answer) -> None:
    answers = [answer("c", "a", 20), answer("d", "a", 80)]
    assert build_features(signals_of(answers), (("a",),)).useful_sets() == ("risk", "risk+spread")


@settings(max_examples=40)
@given(
    st.lists(st.integers(0, 100), min_size=1, max_size=6).flatmap(
        lambda risks: st.tuples(st.just(risks), st.permutations(range(len(risks))))
    )
)
def test_features_do_not_depend_on_the_order_of_answers(drawn) -> None:
    risks, order = drawn
    answers = [
        AnswerRow(
            case_id="c",
            teacher=f"t{n}",
            status="ok",
            answer=TeacherAnswer(insights=(), differential=(), risk=risk, explanation="because"),
        )
        for n, risk in enumerate(risks)
    ]
    blocks = (tuple(f"t{n}" for n in range(len(risks))),)
    first = build_features(signals_of(answers), blocks).values
    mixed = build_features(signals_of([answers[n] for n in order]), blocks).values
    assert np.array_equal(first, mixed, equal_nan=True)


def test_a_visit_has_its_person_and_affirmed_findings() -> None:
    found = visit_features(
        read_visit(Case(source="s", **fields))
        for fields in (
            {"case_id": "c", "age_years": 40, "sex": "female", "chief_complaint": "fever"},
            {"case_id": "d", "chief_complaint": "no fever", "family_history": "mother: seizures"},
        )
    )
    age, female, findings, systems, *information = found["c"]
    assert (age, female, findings) == (40, 1.0, 1.0)
    assert systems >= 1
    assert all(value > 0 for value in information)
    assert found["d"][2] == 0
    assert math.isnan(found["d"][0])


def test_teachers_without_common_cases_are_blocks_with_separate_columns(answer) -> None:
    answers = [
        answer(f"{case}{n}", teacher, 10 * n)
        for case, teachers in (("x", "ab"), ("y", "de"))
        for teacher in teachers
        for n in range(5)
    ]
    signals = signals_of(answers)
    assert blocks_of(signals) == (("a", "b"), ("d", "e"))
    features = build_features(signals, blocks_of(signals))
    first, second = (features.names.index(f"spread:mean{end}") for end in ("", "@2"))
    known = ~np.isnan(features.values)
    assert (known[:, first] != known[:, second]).all()
    linked = signals_of([*answers, *(answer(f"x{n}", "d", 1) for n in range(5))])
    assert blocks_of(linked) == (("a", "b", "d", "e"),)
