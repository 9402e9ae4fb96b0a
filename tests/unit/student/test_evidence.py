"""Evidence quotes findings from their field, and its weights add up to the visit's log-odds."""

import numpy as np
import pytest

from rarealert.student.evidence import TokenLogits, find_evidence
from rarealert.student.model import Student
from rarealert.visits.case import Case
from rarealert.visits.reading import Span, read_visit

CASE = Case(
    case_id="a",
    source="s",
    age_years=30,
    chief_complaint="Seizures  and\n muscle weakness.",
    history_of_present_illness="No fever. Headache in the morning.",
    family_history="Ptosis.",
    vitals="pulse 70",
)
READING = read_visit(CASE)


def tokens(reading, **pulls):
    """The text's words as tokens, with the log-odds of ``pulls``, 0 for the others."""
    starts, ends, logits, at = [], [], [], 0
    for word in reading.text.split(" "):
        starts.append(at)
        ends.append(at + len(word))
        logits.append(pulls.get(word.strip(".,").lower(), 0.0))
        at += len(word) + 1
    return TokenLogits(reading, np.array([starts, ends]).T, np.array(logits), 10)


def test_findings_are_quoted_from_their_field_with_status_and_direction():
    text = tokens(READING, seizures=4.0, weakness=-1.0, fever=0.5, ptosis=0.2, headache=-0.1)
    found = {item.label.lower(): item for item in find_evidence(READING, text, 0.0)}
    for item in found.values():
        assert getattr(CASE, item.field)[item.start : item.end] == item.words
    assert next(iter(found)) == "seizure"
    assert found["seizure"].weight == pytest.approx(0.4)
    assert found["seizure"].direction == "raises"
    assert found["muscle weakness"].direction == "lowers"
    assert found["muscle weakness"].words == "muscle weakness"
    assert found["fever"].status == "excluded"
    assert found["ptosis"].status == "relative"
    assert found["headache"].status == "present"


def test_what_was_cut_off_is_named_as_not_read():
    cut = READING.without(("family_history", "vitals"))
    found = find_evidence(READING, tokens(cut, seizures=4.0), 0.0)
    assert {item.words for item in found if item.direction == "not read"} == {"Ptosis"}
    assert found[-1].weight == 0


def test_no_more_than_the_top_and_none_without_findings():
    assert len(find_evidence(READING, tokens(READING, seizures=1.0), 0.0, top=2)) == 2
    bare = CASE.model_copy(update=dict.fromkeys(("chief_complaint", "family_history")))
    bare = read_visit(bare.model_copy(update={"history_of_present_illness": "🙂"}))
    assert find_evidence(bare, tokens(bare), 0.0) == []


def test_the_head_says_of_tokens_alone_what_it_says_of_their_mean(tiny_student):
    student = Student.load(tiny_student)
    (one,) = student.predict([READING], 4)
    text, read = one.tokens, one.tokens.reading.text
    spelled = "".join(read[start:end] for start, end in text.spans)
    assert spelled == read[: len(spelled)]
    before, after = student._encoder.frame
    assert len(text.logits) == text.length - before - after
    whole = text.weight(Span(0, len(read)), 0.0)
    assert whole == pytest.approx(text.logits.sum() / text.length)
