"""Near-duplicates, ties between cases, and leaks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from split_cases import labelled

from rarealert.splits.leakage import (
    Duplicate,
    cases_to_move,
    count_leaks,
    jaccard,
    near_duplicates,
    shingles,
    tied_groups,
)

WORDS = [f"word{number}" for number in range(2000)]


def text(seed, length=60):
    return " ".join(np.random.default_rng(seed).choice(WORDS, length))


def words_jaccard(first, second):
    one, two = ({tuple(words[i : i + 5]) for i in range(len(words) - 4)}
                for words in (first.split(), second.split()))  # fmt: skip
    return len(one & two) / len(one | two)


few_words = st.lists(st.sampled_from(WORDS[:12]), min_size=5, max_size=40)


@given(few_words, few_words)
def test_jaccard_of_hashes_equals_jaccard_of_word_sets(first, second):
    one, two = " ".join(first), " ".join(second)
    assert jaccard(shingles(one), shingles(two)) == pytest.approx(words_jaccard(one, two))


def test_short_and_empty_texts():
    assert [len(shingles(words)) for words in ("", "cough", "dry cough at night")] == [
        0, 1, 1]  # fmt: skip
    assert jaccard(shingles(""), shingles("")) == 0
    assert near_duplicates(["", "", "cough", "cough"], 0.7, 16, 1) == [Duplicate(2, 3, 1.0)]


def test_near_duplicates_are_those_of_an_exhaustive_comparison():
    rng = np.random.default_rng(5)
    texts = []
    for number in range(40):
        words = text(number).split()
        texts.append(" ".join(words))
        for changed in (1, 3, 8, 20):
            copy = list(words)
            for place in rng.choice(len(copy), changed, replace=False):
                copy[place] = "changed"
            texts.append(" ".join(copy))
    found = near_duplicates(texts, 0.5, 128, 3)
    assert all(words_jaccard(texts[d.first], texts[d.second]) >= 0.5 for d in found)
    expected = [
        Duplicate(i, j, 0.5)
        for i in range(len(texts))
        for j in range(i + 1, len(texts))
        if words_jaccard(texts[i], texts[j]) >= 0.5
    ]
    cases = [labelled(f"c{at}", str(at), rare=True, text=one) for at, one in enumerate(texts)]
    sought = tied_groups(cases, expected)
    assert len(found) <= len(texts) - len(sought)
    assert 40 < len(sought) <= len(tied_groups(cases, found)) <= 1.02 * len(sought)


@pytest.mark.parametrize("ending", ["", "pulse {}"])
def test_n_notes_of_one_template_give_n_minus_1_pairs(ending):
    notes = [f"{text(1)} {ending}".format(number) for number in range(60)]
    found = near_duplicates(notes, 0.7, 128, 7)
    assert len(found) == 59
    cases = [labelled(f"c{at}", str(at), rare=True, text=one) for at, one in enumerate(notes)]
    assert len(tied_groups(cases, found)) == 1


def test_ties_go_through_disease_code_name_and_text():
    by_code = labelled("a", "1", rare=True)
    broader = by_code.label.model_copy(update={"disease_id": "ORPHA:9", "disease_name": "other"})
    by_group = labelled("b", "1", rare=True).model_copy(update={"label": broader})
    by_name = labelled("c", "x", rare=False)
    named = by_name.label.model_copy(update={"disease_name": "Other"})
    by_name = by_name.model_copy(update={"label": named})
    cases = [by_code, by_group, by_name, *(labelled(key, key, rare=False) for key in "de")]
    assert tied_groups(cases, [Duplicate(2, 3, 1.0)]) == [[0, 1, 2, 3], [4]]
    assert tied_groups(cases, []) == [[0, 1, 2], [3], [4]]


def test_patients_tie_within_their_source_alone():
    cases = [
        labelled("a", "1", rare=True, patient="p"),
        labelled("b", "x", rare=False, patient="p"),
        labelled("c", "y", rare=False, source="other", patient="p"),
        labelled("d", "z", rare=False),
        labelled("e", "w", rare=False),
    ]
    assert tied_groups(cases, []) == [[0, 1], [2], [3], [4]]
    parts = ["train", "test", "test", "test", "train"]
    assert count_leaks(cases, parts, [])["patients_on_two_sides"] == 1
    assert cases_to_move([[0, 1, 2], [3], [4]], parts) == 1


def test_leaks_of_diseases_and_texts_are_counted():
    cases = [labelled(f"c{n}", "1", rare=True) for n in range(3)]
    pairs = [Duplicate(0, 1, 1.0), Duplicate(1, 2, 1.0)]
    assert count_leaks(cases, ["train", "train", "test"], pairs) == {
        "diseases_on_two_sides": 2,  # its code and its name
        "near_duplicate_pairs_on_two_sides": 1,
        "patients_on_two_sides": 0,
    }
    assert not any(count_leaks(cases, ["train", "train", "set_aside"], pairs).values())
