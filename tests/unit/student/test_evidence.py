"""Evidence names findings where they stand, and its weights add up to the visit's log-odds."""

import numpy as np
import pytest

from rarealert.student.evidence import ReadText, find_evidence
from rarealert.student.model import Student
from rarealert.visits.case import Case

CASE = Case(
    case_id="a",
    source="s",
    age_years=30,
    chief_complaint="Seizures  and\n muscle weakness.",
    history_of_present_illness="No fever. Headache in the morning.",
    family_history="Ptosis.",
    vitals="pulse 70",
)


def read(text, **pulls):
    """A text whose words are tokens; the words named pull as told, the rest neither way."""
    starts, ends, logits, at = [], [], [], 0
    for word in text.split(" "):
        starts.append(at)
        ends.append(at + len(word))
        logits.append(pulls.get(word.strip(".,").lower(), 0.0))
        at += len(word) + 1
    return ReadText(text, np.array(starts), np.array(ends), np.array(logits), 10)


RENDERED = (
    "Patient: 30 years\nChief complaint: Seizures and muscle weakness.\nHistory of present illness:"
    " No fever. Headache in the morning.\nFamily history: Ptosis.\nVitals: pulse 70"
)


def test_findings_are_quoted_from_their_field_with_status_and_direction():
    text = read(RENDERED, seizures=4.0, weakness=-1.0, fever=0.5, ptosis=0.2, headache=-0.1)
    found = {item.label.lower(): item for item in find_evidence(CASE, text, 0.0)}
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
    cut = RENDERED.split("\nFamily")[0]
    found = find_evidence(CASE, read(cut, seizures=4.0), 0.0)
    assert {item.words for item in found if item.direction == "not read"} == {"Ptosis"}
    assert found[-1].weight == 0


def test_no_more_than_the_top_and_none_without_findings():
    assert len(find_evidence(CASE, read(RENDERED, seizures=1.0), 0.0, top=2)) == 2
    bare = CASE.model_copy(update=dict.fromkeys(("chief_complaint", "family_history")))
    bare = bare.model_copy(update={"history_of_present_illness": "🙂"})
    assert find_evidence(bare, read("Vitals: pulse 70"), 0.0) == []


def test_the_head_says_of_tokens_alone_what_it_says_of_their_mean(tiny_student):
    student = Student.load(tiny_student)
    one = student.read([CASE], 4)[0]
    assert one.risk == student.predict([CASE], 4)[0]
    text = one.text
    spelled = [text.text[start:end] for start, end in zip(text.starts, text.ends, strict=True)]
    assert "".join(spelled) == text.text[: len("".join(spelled))]
    before, after = student._encoder.frame
    assert len(text.logits) == text.length - before - after
    whole = text.weight(0, len(text.text), 0.0)
    assert whole == pytest.approx(text.logits.sum() / text.length)


def test_reading_gives_the_risks_of_predicting_in_any_company(tiny_student):
    student = Student.load(tiny_student)
    many = [CASE.model_copy(update={"case_id": str(i), "vitals": "x" * (i + 1)}) for i in range(9)]
    said, told = student.predict(many, 4), student.read(many, 4)
    assert [each.risk for each in told] == said
    assert np.array([each.features for each in told]).shape == (9, 32)
