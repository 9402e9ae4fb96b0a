"""Held-out sources and heads, cuts by date, patients, and balance over heads."""

import random
from collections import Counter
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published_files import labelled

from rarealert.errors import BadInputError
from rarealert.splits.leakage import SET_ASIDE, cases_to_move, count_leaks, tied_groups
from rarealert.splits.page import date_report
from rarealert.splits.parts import (
    PARTS,
    CutByDate,
    Shares,
    assign,
    assign_by_rule,
    check_labels,
    date_cuts,
    rule_for,
    strata,
)

SHARES = Shares(valid=0.2, test=0.25)
START = date(2020, 1, 1)
HEADS = ("Rare bone disease", "Rare skin disease", "Rare renal disease")


def visit(number, disease, *, rare, source="clinic", head=None, day=None, patient=None):
    item = labelled(f"{source}{number}", str(disease), rare=rare, text=f"visit {number}",
                    source=source)  # fmt: skip
    case = item.case.model_copy(
        update={
            "visit_date": None if day is None else START + timedelta(days=day),
            "patient_id": patient,
        }
    )
    label = item.label.model_copy(
        update={"orphanet_head": head, "disease_name": item.label.disease_id}
    )
    return item.model_copy(update={"case": case, "label": label})


def clinic(count=400, diseases=80, source="clinic", dated=False, seed=3):
    rng = random.Random(seed)
    made = []
    for number in range(count):
        disease = rng.randrange(diseases)
        rare = disease % 2 == 0
        made.append(
            visit(number, f"{disease}" if rare else f"{source} {disease}", rare=rare,
                  source=source, head=HEADS[disease % 3] if rare else None,
                  day=rng.randrange(1000) if dated else None)
        )  # fmt: skip
    return made


def parts_under(cases, hold_out=None, test_from=None):
    rule = rule_for(cases, hold_out, test_from, SHARES.test)
    return rule, assign_by_rule(cases, tied_groups(cases, []), SHARES, 7, rule)


def test_every_head_gets_its_share():
    cases = [visit(n, str(n // 2), rare=True, head=HEADS[n % 97 % 3]) for n in range(900)]
    cases += [visit(1000 + n, f"x{n}", rare=False) for n in range(900)]
    parts = assign(cases, tied_groups(cases, []), SHARES, 7)
    totals = Counter(key for pair in strata(cases) for key in pair)
    held = Counter(
        (part, key) for part, pair in zip(parts, strata(cases), strict=True) for key in set(pair)
    )
    for part, share in SHARES.by_part().items():
        for key in {key for pair in strata(cases) for key in pair}:
            total = totals[key]
            assert held[part, key] == pytest.approx(share * total, abs=3), (part, key)


def test_heads_too_small_to_share_out_are_pooled_not_all_trained_on():
    cases = [visit(n, str(n), rare=True, head=f"head {n}") for n in range(40)]
    cases += [visit(100 + n, f"x{n}", rare=False) for n in range(40)]
    parts = assign(cases, tied_groups(cases, []), SHARES, 7)
    rare = Counter(part for item, part in zip(cases, parts, strict=True)
                   if item.label.label == "rare")  # fmt: skip
    assert rare == {"train": 22, "valid": 8, "test": 10}


def test_a_held_out_source_is_the_test_part_and_nothing_of_it_is_learnt():
    cases = clinic(source="a", diseases=120) + clinic(source="b", diseases=40, seed=4)
    _, parts = parts_under(cases, "source:b")
    tested = [item for item, part in zip(cases, parts, strict=True) if part == "test"]
    assert {item.case.source for item in tested} == {"b"}
    assert len(tested) == 400
    diseases = {item.label.disease_id for item in tested}
    for item, part in zip(cases, parts, strict=True):
        if item.case.source == "a":
            shared = item.label.disease_id in diseases
            assert (part == SET_ASIDE) == shared
            assert part != "test"
    assert count_leaks(cases, parts, [])["diseases_on_two_sides"] == 0
    check_labels(cases, parts, everywhere=False)


def test_a_held_out_head_is_never_learnt_from_and_is_tested_against_its_own_sources():
    cases = clinic(source="a") + [visit(n, f"other {n}", rare=False, source="b") for n in range(60)]
    cases += [visit(500 + n, str(1000 + n), rare=True, source="b", head=HEADS[1])
              for n in range(60)]  # fmt: skip
    _, parts = parts_under(cases, f"head:{HEADS[0]}")
    for item, part in zip(cases, parts, strict=True):
        if item.label.orphanet_head == HEADS[0]:
            assert part == "test"
        elif part == "test":
            assert item.label.label == "nonrare"
            assert item.case.source == "a"
    check_labels(cases, parts, everywhere=False)


@pytest.mark.parametrize(
    ("hold_out", "says"),
    [
        ("source:nowhere", "sources clinic; one alone can't be held out"),
        ("source:clinic", "one alone"),
        ("head:Rare nothing", "the heads Rare bone disease"),
    ],
)
def test_what_is_not_there_cannot_be_held_out(hold_out, says):
    with pytest.raises(BadInputError, match=says):
        rule_for(clinic(), hold_out, None, 0.25)


def test_no_heads_at_all_is_said():
    cases = [visit(1, "1", rare=True), visit(2, "x", rare=False)]
    with pytest.raises(BadInputError, match="these cases name no head"):
        rule_for(cases, "head:Rare bone disease", None, 0.25)


@settings(deadline=None, max_examples=40)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 9),
            st.booleans(),
            st.one_of(st.none(), st.integers(0, 30)),
            st.integers(0, 8),
        ),
        min_size=1,
        max_size=50,
    )
)
def test_with_a_cut_nothing_later_is_learnt_from_and_patients_stay_whole(rows):
    cases = [
        visit(n, str(disease) if rare else f"x{disease}", rare=rare, day=day, patient=str(who))
        for n, (disease, rare, day, who) in enumerate(rows)
    ]
    rule, parts = parts_under(cases, test_from=START + timedelta(days=15))
    assert count_leaks(cases, parts, []) == {
        "diseases_on_two_sides": 0,
        "near_duplicate_pairs_on_two_sides": 0,
        "patients_on_two_sides": 0,
    }
    assert set(parts) <= {*PARTS, SET_ASIDE}
    for found in date_report(cases, parts, rule).values():
        assert found["learnt_after_first_test"] == 0
    undated = [part for item, part in zip(cases, parts, strict=True)
               if item.case.visit_date is None]  # fmt: skip
    assert SET_ASIDE not in undated


def test_auto_tests_the_last_visits_of_sources_that_date_them_all():
    dated, plain = clinic(source="a", dated=True), clinic(source="b", seed=5)
    half = clinic(source="c", dated=True, seed=6)
    half[0] = half[0].model_copy(
        update={"case": half[0].case.model_copy(update={"visit_date": None})}
    )
    cases = dated + plain + half
    rule, parts = parts_under(cases, test_from="auto")
    assert isinstance(rule, CutByDate)
    assert set(rule.cuts) == {"a"}
    later = sum(item.case.visit_date >= rule.cuts["a"] for item in dated)
    assert later == pytest.approx(100, abs=3)
    report = date_report(cases, parts, rule)
    assert report["a"]["learnt_after_first_test"] == 0
    assert report["c"]["learnt_after_first_test"] > 0
    assert report["c"]["cut"] is None
    assert "b" not in report
    check_labels(cases, parts)
    kept = [part for item, part in zip(cases, parts, strict=True) if item.case.source == "b"]
    assert SET_ASIDE not in kept


def test_one_day_has_no_cut_and_null_ignores_dates():
    same = [visit(n, str(n), rare=True, day=1) for n in range(9)]
    assert date_cuts(same, "auto", 0.25) == {}
    assert date_cuts(clinic(dated=True), None, 0.25) == {}


def test_patients_tie_within_their_source_alone():
    cases = [
        visit(1, "1", rare=True, patient="p"),
        visit(2, "x", rare=False, patient="p"),
        visit(3, "y", rare=False, source="b", patient="p"),
        visit(4, "z", rare=False),
        visit(5, "w", rare=False),
    ]
    assert tied_groups(cases, []) == [[0, 1], [2], [3], [4]]
    parts = ["train", "test", "test", "test", "train"]
    assert count_leaks(cases, parts, [])["patients_on_two_sides"] == 1
    assert cases_to_move([[0, 1, 2], [3], [4]], parts) == 1
