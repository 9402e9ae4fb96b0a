"""Balanced parts, held-out sources and heads, cuts by date, and the lock of the test part."""

import random
from collections import Counter
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from split_cases import START, labelled

from rarealert.errors import BadInputError
from rarealert.splits.leakage import SET_ASIDE, count_leaks, near_duplicates, tied_groups
from rarealert.splits.parts import (
    PARTS,
    Shares,
    assign,
    assign_by_rule,
    check_labels,
    check_lock,
    date_cuts,
    lock_digest,
    rule_for,
    strata,
)
from rarealert.splits.split_report import date_report

SHARES = Shares(valid=0.2, test=0.25)
HEADS = ("Rare bone disease", "Rare skin disease", "Rare renal disease")
NO_LEAK = dict.fromkeys(
    ("diseases_on_two_sides", "near_duplicate_pairs_on_two_sides", "patients_on_two_sides"), 0
)


def clinic(count=400, diseases=80, source="clinic", dated=False, seed=3):
    """Visits of rare diseases (even numbers, shared by all sources) and non-rare ones."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        disease = rng.randrange(diseases)
        rare = disease % 2 == 0
        name = str(disease) if rare else f"{source} {disease}"
        head = HEADS[disease % 3] if rare else None
        day = rng.randrange(1000) if dated else None
        case_id = f"{source}{number}"
        made.append(labelled(case_id, name, rare=rare, source=source, head=head, day=day))
    return made


def assigned(cases, seed=7):
    return assign(cases, tied_groups(cases, []), SHARES, seed)


def parts_under(cases, hold_out=None, test_from=None):
    rule = rule_for(cases, hold_out, test_from, SHARES.test)
    return rule, assign_by_rule(cases, tied_groups(cases, []), SHARES, 7, rule)


def of_part(cases, parts, name):
    return [item for item, part in zip(cases, parts, strict=True) if part == name]


def test_each_part_gets_its_share_of_every_source_label_and_head():
    cases = [labelled(f"a{n}", str(n // 2), rare=True, head=HEADS[n % 97 % 3]) for n in range(900)]
    cases += [labelled(f"x{n}", f"x{n}", rare=False) for n in range(900)]
    cases += [labelled(f"b{n}", f"{900 + n // 4}", rare=True, source="b") for n in range(80)]
    cases += [labelled(f"y{n}", f"y{n}", rare=False, source="b") for n in range(200)]
    parts = assigned(cases)
    for part, share in SHARES.by_part().items():
        held = Counter(key for pair in strata(of_part(cases, parts, part)) for key in pair)
        for key, total in Counter(key for pair in strata(cases) for key in pair).items():
            assert held[key] == pytest.approx(share * total, abs=3), (part, key)


def test_large_diseases_are_not_all_in_train():
    cases = [
        labelled(f"{rare}{disease}-{number}", f"{disease}", rare=rare)
        for rare in (True, False)
        for disease in range(60)
        for number in range(1 + disease % 10)
    ]
    parts = assigned(cases)
    sizes = Counter(item.label.disease_id for item in cases)

    def mean_size(members):
        return np.mean([sizes[item.label.disease_id] for item in members])

    for part in PARTS:
        assert mean_size(of_part(cases, parts, part)) == pytest.approx(mean_size(cases), abs=1.2)


def test_heads_too_small_to_share_out_are_pooled_not_all_trained_on():
    cases = [labelled(f"r{n}", str(n), rare=True, head=f"head {n}") for n in range(40)]
    cases += [labelled(f"n{n}", f"x{n}", rare=False) for n in range(40)]
    parts = assigned(cases)
    assert Counter(parts[:40]) == {"train": 22, "valid": 8, "test": 10}


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 8), st.booleans(), st.integers(0, 5), st.sampled_from("ab")),
        min_size=1,
        max_size=40,
    ),
    seed=st.integers(0, 2**32 - 1),
    order=st.randoms(use_true_random=False),
)
def test_no_group_is_cut_no_case_lost_and_order_does_not_matter(rows, seed, order):
    cases = [
        labelled(f"case{place}", str(disease), rare=rare, text=f"text {text}", source=source)
        for place, (disease, rare, text, source) in enumerate(rows)
    ]

    def split(items):
        texts = [item.case.history_of_present_illness for item in items]
        pairs = near_duplicates(texts, 0.7, 16, seed)
        parts = assign(items, tied_groups(items, pairs), SHARES, seed)
        assert count_leaks(items, parts, pairs) == NO_LEAK
        assert len(set(zip(texts, parts, strict=True))) == len(set(texts))
        return {item.case.case_id: part for item, part in zip(items, parts, strict=True)}

    shuffled = list(cases)
    order.shuffle(shuffled)
    parts = split(cases)
    assert split(shuffled) == parts
    assert parts.keys() == {item.case.case_id for item in cases}
    assert set(parts.values()) <= set(PARTS)


def test_the_seed_decides():
    cases = clinic()
    assert assigned(cases, 1) == assigned(cases, 1) != assigned(cases, 2)


@pytest.mark.parametrize(("valid", "test"), [(0.5, 0.5), (0, 0.3), (0.3, 0), (0.9, 0.9)])
def test_shares_that_leave_a_part_empty_are_refused(valid, test):
    with pytest.raises(BadInputError, match=r"split\.valid_share"):
        Shares(valid, test).by_part()


def test_a_part_with_one_label_is_refused_by_name():
    cases = [labelled(f"c{n}", str(n), rare=True) for n in range(20)]
    with pytest.raises(BadInputError, match="Source table has no nonrare case in the train part"):
        check_labels(cases, assigned(cases))


def test_the_lock_is_of_ids_not_of_their_order():
    digest = lock_digest(["b", "a"])
    assert digest == lock_digest(["a", "b"]) != lock_digest(["ab"])
    check_lock(digest, None)
    check_lock(digest, digest)
    with pytest.raises(BadInputError, match=digest):
        check_lock(digest, "0" * 64)


def test_a_held_out_source_is_the_test_part_and_none_of_its_diseases_is_learnt():
    cases = clinic(source="a", diseases=120) + clinic(source="b", diseases=40, seed=4)
    _, parts = parts_under(cases, "source:b")
    tested = of_part(cases, parts, "test")
    assert [item.case.source for item in tested] == ["b"] * 400
    diseases = {item.label.disease_id for item in tested}
    for item, part in zip(cases, parts, strict=True):
        if item.case.source == "a":
            assert (part == SET_ASIDE) == (item.label.disease_id in diseases)
    assert count_leaks(cases, parts, []) == NO_LEAK
    check_labels(cases, parts, everywhere=False)


def test_a_held_out_head_is_never_learnt_from_and_is_tested_against_its_own_sources():
    cases = clinic(source="a")
    cases += [labelled(f"o{n}", f"other {n}", rare=False, source="b") for n in range(60)]
    cases += [labelled(f"s{n}", str(1000 + n), rare=True, source="b", head=HEADS[1])
              for n in range(60)]  # fmt: skip
    _, parts = parts_under(cases, f"head:{HEADS[0]}")
    for item, part in zip(cases, parts, strict=True):
        if item.label.orphanet_head == HEADS[0]:
            assert part == "test"
        elif part == "test":
            assert (item.label.label, item.case.source) == ("nonrare", "a")
    check_labels(cases, parts, everywhere=False)


@pytest.mark.parametrize(
    ("cases", "hold_out", "named"),
    [
        (clinic(), "source:nowhere", "sources clinic"),
        (clinic(), "source:clinic", "sources clinic"),
        (clinic(), "head:Rare nothing", "heads Rare bone disease"),
        ([labelled("a", "1", rare=True)], "head:Rare bone disease", "no case has a head"),
    ],
)
def test_what_the_cases_lack_cannot_be_held_out(cases, hold_out, named):
    with pytest.raises(BadInputError, match=named):
        rule_for(cases, hold_out, None, 0.25)


@settings(max_examples=40)
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
        labelled(f"c{n}", f"{disease}", rare=rare, day=day, patient=str(who))
        for n, (disease, rare, day, who) in enumerate(rows)
    ]
    rule, parts = parts_under(cases, test_from=START + timedelta(days=15))
    assert count_leaks(cases, parts, []) == NO_LEAK
    for found in date_report(cases, parts, rule).values():
        assert found["learnt_after_first_test"] == 0
    assert all(item.case.visit_date for item in of_part(cases, parts, SET_ASIDE))


def test_auto_tests_the_last_visits_of_sources_that_date_them_all():
    dated, plain = clinic(source="a", dated=True), clinic(source="b", seed=5)
    partly = [*clinic(source="c", dated=True, seed=6), labelled("c", "7", rare=False, source="c")]
    cases = dated + plain + partly
    rule, parts = parts_under(cases, test_from="auto")
    assert set(rule.cuts) == {"a"}
    later = sum(item.case.visit_date >= rule.cuts["a"] for item in dated)
    assert later == pytest.approx(100, abs=3)
    report = date_report(cases, parts, rule)
    assert report["a"]["learnt_after_first_test"] == 0
    assert report["c"]["learnt_after_first_test"] > 0
    assert report["c"]["cut"] is None
    assert "b" not in report
    check_labels(cases, parts)
    assert "b" not in {item.case.source for item in of_part(cases, parts, SET_ASIDE)}


def test_one_day_has_no_cut_and_null_ignores_dates():
    same = [labelled(f"c{n}", str(n), rare=True, day=1) for n in range(9)]
    assert date_cuts(same, "auto", 0.25) == {}
    assert date_cuts(clinic(dated=True), None, 0.25) == {}
