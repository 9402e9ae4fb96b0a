"""Finding search: names and lay words, in the order that a clinician expects."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rarealert.screening.finding_search import load_search


@pytest.mark.parametrize(
    ("query", "hpo_id"),
    [
        ("short of breath", "HP:0002094"),
        ("dyspn", "HP:0002094"),
        ("throwing up", "HP:0002013"),
        ("FEVER", "HP:0001945"),
        ("diarrhoea", "HP:0002014"),  # British spelling
        ("weight loss", "HP:0001824"),
        ("loss weight", "HP:0001824"),  # any order
    ],
)
def test_what_a_clinician_types_finds_the_term_first(query, hpo_id):
    assert load_search().search(query)[0].hpo_id == hpo_id


def test_each_finding_stands_once_and_every_word_counts():
    found = load_search().search("muscle", limit=50)
    assert len({each.hpo_id for each in found}) == len(found) == 50
    assert all("muscle" in each.wording.lower() for each in found)
    assert all("pain" in each.wording.lower() for each in load_search().search("muscle pain", 8))
    assert load_search().search("muscle zebra") == ()
    assert load_search().search(" ,. ") == ()


@settings(max_examples=30)
@given(st.text(max_size=300))
def test_any_string_is_accepted(query):
    assert len(load_search().search(query, limit=3)) <= 3
