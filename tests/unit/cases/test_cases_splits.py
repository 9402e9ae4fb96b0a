from collections import Counter

import numpy as np
import pytest
from datasketch import MinHash
from hypothesis import given, settings
from hypothesis import strategies as st
from published_files import labelled

from rarealert.errors import BadInputError
from rarealert.splits.leakage import (
    DisjointSets,
    Duplicate,
    count_leaks,
    disease_keys,
    jaccard,
    near_duplicates,
    shingles,
    tied_groups,
)
from rarealert.splits.parts import (
    PARTS,
    Shares,
    assign,
    check_labels,
    check_lock,
    counts_by_part,
    lock_digest,
)

SHARES = Shares(valid=0.2, test=0.25)
WORDS = [f"word{number}" for number in range(2000)]


def text(seed, length=60):
    return " ".join(np.random.default_rng(seed).choice(WORDS, length))


def corpus(rare=60, nonrare=60, each=4, source="table"):
    return [
        labelled(f"{source}{label}{disease}-{number}", str(disease), rare=label == "rare",
                 text=text(number), source=source)
        for label, count in (("rare", rare), ("nonrare", nonrare))
        for disease in range(count)
        for number in range(1 + disease % each)
    ]  # fmt: skip


def words_jaccard(first, second):
    def sets(words):
        return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}

    one, two = sets(first.split()), sets(second.split())
    return len(one & two) / len(one | two)


@given(st.lists(st.sampled_from(WORDS[:12]), min_size=5, max_size=40),
       st.lists(st.sampled_from(WORDS[:12]), min_size=5, max_size=40))  # fmt: skip
def test_hashed_jaccard_equals_the_one_of_word_sets(first, second):
    one, two = " ".join(first), " ".join(second)
    assert jaccard(shingles(one), shingles(two)) == pytest.approx(words_jaccard(one, two))


def test_short_and_empty_texts():
    assert len(shingles("")) == 0
    assert len(shingles("cough")) == len(shingles("dry cough at night")) == 1
    assert jaccard(shingles(""), shingles("")) == 0
    assert near_duplicates(["", "", "cough", "cough"], 0.7, 16, 1)[0].first == 2


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
    cases = [labelled(f"c{at:03d}", str(at), rare=True, text=one) for at, one in enumerate(texts)]
    sought = tied_groups(cases, expected)
    assert len(found) <= len(texts) - len(sought)
    assert 40 < len(sought) <= len(tied_groups(cases, found)) <= 1.02 * len(sought)


def test_notes_of_one_template_are_tied_by_one_pair_less_than_there_are():
    words = text(1).split()
    notes = [" ".join([*words, "pulse", str(number)]) for number in range(60)]
    found = near_duplicates(notes, 0.7, 128, 7)
    assert len(found) == 59
    cases = [labelled(f"c{at:02d}", str(at), rare=True, text=one) for at, one in enumerate(notes)]
    assert len(tied_groups(cases, found)) == 1


def test_equal_texts_are_chained_not_squared():
    assert len(near_duplicates([text(1)] * 300, 0.7, 16, 1)) == 299


def test_minhash_of_datasketch_agrees_with_our_shingles():
    hashes = shingles(text(1, 200))
    sketch = MinHash(num_perm=256, seed=1, hashfunc=int)
    sketch.update_batch((hashes >> np.uint64(32)).tolist())
    assert sketch.count() == pytest.approx(len(hashes), rel=0.25)


def test_ties_go_through_disease_code_name_and_text():
    by_code = labelled("a", "1", rare=True, text=text(1))
    broader = by_code.label.model_copy(update={"disease_id": "ORPHA:9", "disease_name": "other"})
    by_group = labelled("b", "1", rare=True, text=text(2)).model_copy(update={"label": broader})
    by_name = labelled("c", "x", rare=False, text=text(3))
    named = by_name.label.model_copy(update={"disease_name": "Other"})
    by_name = by_name.model_copy(update={"label": named})
    copied = labelled("d", "y", rare=False, text=text(3) + " end")
    alone = labelled("e", "z", rare=False, text=text(4))
    cases = [by_code, by_group, by_name, copied, alone]
    pairs = near_duplicates([item.case.history_of_present_illness for item in cases], 0.7, 64, 1)
    assert tied_groups(cases, pairs) == [[0, 1, 2, 3], [4]]
    assert tied_groups(cases, []) == [[0, 1, 2], [3], [4]]


def test_each_part_gets_its_share_of_every_stratum():
    cases = corpus() + corpus(rare=30, nonrare=90, source="clinic_b")
    cases = [item for item in cases if item.case.source == "table"] + [
        item.model_copy(update={"label": item.label.model_copy(update={
            "disease_id": item.label.disease_id + "7", "disease_name": item.case.case_id[:-2],
            "orpha_code": item.label.orpha_code and item.label.orpha_code + "7"})})
        for item in cases if item.case.source == "clinic_b"
    ]  # fmt: skip
    parts = assign(cases, tied_groups(cases, []), SHARES, 7)
    counts, totals = (
        counts_by_part(cases, parts),
        Counter((item.case.source, item.label.label) for item in cases),
    )
    for part, share in SHARES.by_part().items():
        for (source, label), total in totals.items():
            assert counts[part][source][label] == pytest.approx(share * total, abs=3)


def test_large_diseases_are_not_all_in_train():
    cases = corpus(rare=60, nonrare=60, each=10)
    parts = assign(cases, tied_groups(cases, []), SHARES, 7)
    sizes = Counter(item.label.disease_id for item in cases)
    overall = np.mean([sizes[item.label.disease_id] for item in cases])
    for name in PARTS:
        members = [item for item, part in zip(cases, parts, strict=True) if part == name]
        mean = np.mean([sizes[item.label.disease_id] for item in members])
        assert mean == pytest.approx(overall, abs=1.2)


case_rows = st.lists(
    st.tuples(st.integers(0, 8), st.booleans(), st.integers(0, 5), st.sampled_from(["a", "b"])),
    min_size=1,
    max_size=40,
)


@settings(deadline=None)
@given(rows=case_rows, seed=st.integers(0, 2**32 - 1), order=st.randoms(use_true_random=False))
def test_no_group_is_cut_no_case_lost_and_order_does_not_matter(rows, seed, order):
    cases = [
        labelled(f"case{place}", str(disease), rare=rare, text=text(words, 12), source=source)
        for place, (disease, rare, words, source) in enumerate(rows)
    ]

    def split(items):
        pairs = near_duplicates([i.case.history_of_present_illness for i in items], 0.7, 16, seed)
        parts = assign(items, tied_groups(items, pairs), SHARES, seed)
        assert count_leaks(items, parts, pairs) == {
            "diseases_on_two_sides": 0,
            "near_duplicate_pairs_on_two_sides": 0,
            "patients_on_two_sides": 0,
        }
        sides = {}
        for item, part in zip(items, parts, strict=True):
            for key in [*disease_keys(item), item.case.history_of_present_illness]:
                assert sides.setdefault(key, part) == part
        return {item.case.case_id: part for item, part in zip(items, parts, strict=True)}

    first = split(cases)
    shuffled = list(cases)
    order.shuffle(shuffled)
    assert split(shuffled) == first
    assert set(first) == {item.case.case_id for item in cases}
    assert set(first.values()) <= set(PARTS)


def test_the_seed_decides():
    cases = corpus()
    groups = tied_groups(cases, [])
    assert assign(cases, groups, SHARES, 1) == assign(cases, groups, SHARES, 1)
    assert assign(cases, groups, SHARES, 1) != assign(cases, groups, SHARES, 2)


def test_leaks_are_counted_when_there_are_some():
    cases = [labelled(f"c{n}", "1", rare=True, text=text(1)) for n in range(3)]
    pairs = near_duplicates([text(1)] * 3, 0.7, 16, 1)
    leaks = count_leaks(cases, ["train", "train", "test"], pairs)
    assert leaks["diseases_on_two_sides"] == 2  # its code and its name
    assert leaks["near_duplicate_pairs_on_two_sides"] == 1


@pytest.mark.parametrize(("valid", "test"), [(0.5, 0.5), (0, 0.3), (0.3, 0), (0.9, 0.9)])
def test_shares_that_leave_a_part_empty_are_refused(valid, test):
    with pytest.raises(BadInputError, match=r"split\.valid_share"):
        Shares(valid, test).by_part()


def test_a_part_with_one_label_is_refused_by_name():
    cases = [labelled(f"c{n}", str(n), rare=True, text=text(n)) for n in range(20)]
    parts = assign(cases, tied_groups(cases, []), SHARES, 1)
    with pytest.raises(BadInputError, match="Source table has no nonrare case in the train part"):
        check_labels(cases, parts)


def test_the_lock_is_of_ids_not_of_their_order():
    digest = lock_digest(["b", "a"])
    assert digest == lock_digest(["a", "b"])
    assert digest != lock_digest(["ab"])
    check_lock(digest, None)
    check_lock(digest, digest)
    with pytest.raises(BadInputError, match=f"set split.test_lock to {digest}"):
        check_lock(digest, "0" * 64)


def test_disjoint_sets_merge_through_chains():
    sets: DisjointSets[int] = DisjointSets()
    sets.union([1, 2])
    sets.union([3, 4])
    assert sets.find(1) != sets.find(3)
    sets.union([2, 3])
    sets.union([])
    assert sorted(map(sorted, sets.sets().values())) == [[1, 2, 3, 4]]
    assert sets.find(5) == 5
