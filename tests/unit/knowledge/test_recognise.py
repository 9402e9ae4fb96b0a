"""Findings in free text: words, negation, relatives, and any string at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarealert.knowledge.hpo import load_ontology
from rarealert.knowledge.names import word_set
from rarealert.knowledge.recognise import load_recogniser
from rarealert.visits.case import Case
from rarealert.visits.reading import read_visit

FEVER, RASH, DYSPNEA, SEIZURE = "HP:0001945", "HP:0000988", "HP:0002094", "HP:0001250"
CHILLS, SWEATS, HEADACHE, COUGH = "HP:0025143", "HP:0030166", "HP:0002315", "HP:0012735"


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
        # wrapped lines continue a denial, lists do not
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
def test_presence_negation_and_relatives(text: str, present: set[str], excluded: set[str]) -> None:
    reading = read_visit(Case(case_id="a", source="table", chief_complaint=text))
    assert (set(reading.present), set(reading.excluded)) == (present, excluded)


@pytest.mark.parametrize(
    ("text", "state", "holder"),
    [
        ("He has not noticed any seizures.", "excluded", "patient"),
        ("Seizures (-), rash (+)", "excluded", "patient"),
        ("Seizures: nil. Rash: yes.", "excluded", "patient"),
        ("Possible seizures at night.", "uncertain", "patient"),
        ("At risk of seizures, has a rash.", "uncertain", "patient"),
        ("Seizures cannot be excluded.", "uncertain", "patient"),
        ("Seizures as an infant, none since.", "past", "patient"),
        ("Seizures have not resolved.", "present", "patient"),
        ("No illness apart from seizures.", "present", "patient"),
        ("No fever (but seizures), cough.", "present", "patient"),
        ("Seizures were noted by his parents.", "present", "patient"),
        ("Maternal grandmother: seizures.", "present", "relative"),
        ("No family history of seizures.", "excluded", "relative"),
        ("FHx:\n- seizures\n- rash", "present", "relative"),
    ],
)
def test_each_finding_has_a_state_and_a_holder(text: str, state: str, holder: str) -> None:
    found = [item for item in load_recogniser().mentions(text) if item.hpo_id == SEIZURE]
    assert [(item.state, item.holder) for item in found] == [(state, holder)]


def test_uncertain_and_past_findings_are_neither_present_nor_excluded() -> None:
    text = "Possible seizures. Rash has resolved."
    reading = read_visit(Case(case_id="a", source="table", chief_complaint=text))
    states = [(finding.hpo_id, finding.state) for finding in reading.findings]
    assert states == [(SEIZURE, "uncertain"), (RASH, "past")]
    assert (reading.present, reading.excluded) == ((), ())


def test_the_longest_name_wins() -> None:
    text = "generalized muscle weakness"
    mention = load_recogniser().mentions(text)[0]
    assert load_ontology().name(mention.hpo_id) == "Generalized muscle weakness"
    assert (mention.start, mention.end) == (0, len(text))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("neuromas", "Neuroma"),
        ("the ears were low-set", "Low-set ears"),
        ("oedema of the eyelids", "Palpebral edema"),
    ],
)
def test_a_name_matches_in_other_forms_and_orders(text: str, name: str) -> None:
    assert [load_ontology().name(item) for item in load_recogniser().affirmed(text)] == [name]


@given(st.text(max_size=300), st.booleans())
def test_any_string_gives_ordered_spans_within_it(text: str, family: bool) -> None:
    mentions, denied = load_recogniser().read(text, family=family)
    for spans in ([(mention.start, mention.end) for mention in mentions], denied):
        places = [0, *(place for span in spans for place in span), len(text)]
        assert places == sorted(places)
    assert all(mention.holder == "relative" for mention in mentions) or not family


_WORDS = sorted(
    word_set(
        "no denies fever rash and, or but his mother has without . ; not seizure \u0130 family "
        "history only absent Headache\u2019s cough"
    )
)


@given(st.lists(st.sampled_from(_WORDS), max_size=40))
def test_the_words_of_a_mention_alone_are_the_same_finding(words: list[str]) -> None:
    text, recogniser = " ".join(words), load_recogniser()
    for mention in recogniser.mentions(text):
        alone = recogniser.mentions(text[mention.start : mention.end])
        assert [item.hpo_id for item in alone] == [mention.hpo_id]
