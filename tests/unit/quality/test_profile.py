"""Profiles of a corpus, and the stability index between two of them."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarealert.errors import BadInputError
from rarealert.quality.profile import drift, profiles, read_pinned, stability_index

counts = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 500), min_size=1)


@given(counts, counts)
def test_it_is_symmetric_not_negative_and_zero_for_itself(first, second):
    index, chance = stability_index(first, second)
    assert index >= 0
    assert chance > 0
    assert stability_index(second, first)[0] == pytest.approx(index)
    assert stability_index(first, first)[0] == 0


def test_it_is_the_published_sum():
    # (0.6 - 0.5) ln(0.6 / 0.5) + (0.4 - 0.5) ln(0.4 / 0.5), with half a case added to each
    index, _ = stability_index({"a": 50_000, "b": 50_000}, {"a": 60_000, "b": 40_000})
    assert index == pytest.approx(0.1 * np.log(1.2) - 0.1 * np.log(0.8), rel=1e-3)


def test_samples_of_one_population_seldom_exceed_chance():
    rng = np.random.default_rng(3)
    beyond = 0
    for _ in range(300):
        one, other = (Counter(rng.integers(0, 33, 400).tolist()) for _ in range(2))
        index, chance = stability_index(one, other)
        beyond += index > chance
    assert beyond <= 4


def row(source, **changes):
    fields = dict.fromkeys((
        "chief_complaint", "history_of_present_illness", "past_medical_history", "family_history",
        "social_history", "physical_examination", "vitals", "age_years", "sex", "orphanet_head",
        "findings_present",
    ))  # fmt: skip
    return {**fields, "source": source, "label": "rare", "chief_complaint": "cough", **changes}


def test_only_sources_that_both_know_are_compared():
    old = profiles([row("a"), row("b")])
    new = profiles([row("a", age_years=1.0), row("c")])
    found = drift(old, new)
    assert set(found["source"]) == {"a"}
    assert dict(zip(found["quantity"], found["psi"] > 0, strict=True)) == {
        "age": True, "filled fields": False, "findings": False, "head": False, "label": False,
        "sex": False, "words": False,
    }  # fmt: skip
    assert drift({}, new).empty


def test_missing_is_a_category_of_its_own():
    profile = profiles([row("a"), row("a", age_years=0.0, findings_present=[])])["a"]
    assert profile["age"] == {"below 2": 1, "missing": 1}
    assert profile["findings"] == {"below 1": 1, "missing": 1}


def test_a_damaged_reference_is_not_taken_for_none(tmp_path):
    file = tmp_path / "reference.json"
    assert read_pinned(file) == {}
    file.write_text("{")
    with pytest.raises(BadInputError, match="is damaged"):
        read_pinned(file)
