"""Findings in free text: words, negation, relatives, and any string at all."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarealert.knowledge.hpo import load_ontology
from rarealert.knowledge.names import word_set
from rarealert.knowledge.recognise import findings_of, load_recogniser

FEVER, RASH, DYSPNEA, SEIZURE = "HP:0001945", "HP:0000988", "HP:0002094", "HP:0001250"
CHILLS, SWEATS, HEADACHE, COUGH = "HP:0025143", "HP:0030166", "HP:0002315", "HP:0012735"

_WORDS = sorted(
    word_set(
        "no denies fever rash and, or but his mother has without . ; not seizure \u0130 family "
        "history only absent Headache\u2019s cough"
    )
)


@pytest.mark.parametrize(
    ("text", "present", "excluded"),
    [
        ("She has a fever and a rash.", {FEVER, RASH}, set()),
        ("He is short of breath.", {DYSPNEA}, set()),
        ("Seizures began last year", {SEIZURE}, set()),
        ("He denies fever, chills, and night sweats.", set(), {FEVER, CHILLS, SWEATS}),
        ("No fever but a rash.", {RASH}, {FEVER}),
        ("There is no rash. Fever is high.", {FEVER}, {RASH}),
        ("Fever was denied.", set(), {FEVER}),
        ("Rash is absent", set(), {RASH}),
        ("Without headache; cough at night", {COUGH}, {HEADACHE}),
        ("There is no increase in headache.", {HEADACHE}, set()),
        ("No fever in May, fever in June.", set(), {FEVER}),
        ("No fever now. Fever yesterday.", {FEVER}, set()),
        ("His mother has had seizures.", set(), set()),
        ("Family history: seizures in two cousins.", set(), set()),
        ("His mother noticed a rash.", {RASH}, set()),
        ("The mother reports that he has a cough.", {COUGH}, set()),
        ("His father has headaches, but the patient has a fever.", {FEVER}, set()),
        ("", set(), set()),
    ],
)
def test_presence_negation_and_relatives(text: str, present: set[str], excluded: set[str]) -> None:
    found = findings_of(text)
    assert set(found[0]) == present
    assert set(found[1]) == excluded


@pytest.mark.parametrize(
    ("text", "present", "excluded"),
    [
        ("She denies fever, chills,\ncough and headache.", set(), {FEVER, CHILLS, COUGH, HEADACHE}),
        ("No headache, fever or\r\n  seizures.", set(), {HEADACHE, FEVER, SEIZURE}),
        ("He has shortness of\nbreath.", {DYSPNEA}, set()),
        (
            "On the ward she felt well all of the time and denied fever, rash\nor cough.",
            set(),
            {FEVER, RASH, COUGH},
        ),
        ("no fever\ncough\nheadache", {COUGH, HEADACHE}, {FEVER}),
        ("Denies fever,\n\ncough since May", {COUGH}, {FEVER}),
        ("No fever,\nCough since May", {COUGH}, {FEVER}),
        ("No fever or\n- cough", {COUGH}, {FEVER}),
    ],
)
def test_a_wrapped_line_ends_no_denial(text: str, present: set[str], excluded: set[str]) -> None:
    found = findings_of(text)
    assert (set(found[0]), set(found[1])) == (present, excluded)


@pytest.mark.parametrize("text", ["\n" * 100_000, "no,\n" * 20_000])
def test_lines_are_told_apart_in_time_linear_in_the_text(text: str) -> None:
    start = time.process_time()
    load_recogniser().mentions(text)
    assert time.process_time() - start < 10


def test_the_longest_name_wins() -> None:
    text = "generalized muscle weakness"
    mention = load_recogniser().mentions(text)[0]
    assert load_ontology().name(mention.hpo_id) == "Generalized muscle weakness"
    assert (mention.start, mention.end) == (0, len(text))


def test_the_family_history_field_speaks_of_relatives() -> None:
    visit = {"family_history": "Seizures in a cousin.", "vitals": None, "chief_complaint": "Fever"}
    assert findings_of(visit) == ((FEVER,), ())


def test_a_term_affirmed_and_denied_is_present() -> None:
    assert findings_of("No fever at first. Now fever.") == ((FEVER,), ())


@given(st.text(max_size=300))
def test_any_string_gives_ordered_spans_within_it(text: str) -> None:
    end = 0
    for mention in load_recogniser().mentions(text):
        assert end <= mention.start < mention.end <= len(text)
        end = mention.end


@given(
    st.lists(
        st.sampled_from(_WORDS),
        max_size=40,
    )
)
def test_spans_name_what_they_say(words: list[str]) -> None:
    text = " ".join(words)
    recogniser = load_recogniser()
    for mention in recogniser.mentions(text):
        alone = recogniser.mentions(text[mention.start : mention.end])
        assert [item.hpo_id for item in alone] == [mention.hpo_id]


def test_two_hundred_visits_a_second() -> None:
    text = "A 40-year-old man has had fever, cough and a rash for 3 days; he denies chills. " * 10
    recogniser = load_recogniser()
    recogniser.mentions(text)
    started = time.process_time()
    for _ in range(100):
        recogniser.mentions(text)
    assert time.process_time() - started < 0.5
