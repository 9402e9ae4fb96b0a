"""What is taught and what is let through: only findings that are in the visit."""

from rarealert.cases.case import Case
from rarealert.student.rationale import (
    LOWERED,
    RAISED,
    Leaning,
    choices,
    compose,
    evidence_list,
    is_sound,
)

CASE = Case(
    case_id="a",
    source="table",
    chief_complaint="Seizures and ptosis. No fever. Headache.",
    family_history="His mother had nystagmus.",
)


def test_compose_takes_the_heaviest_findings_of_the_right_side() -> None:
    leanings = [
        Leaning(True, (("ptosis", 0.6), ("seizure", 0.4))),
        Leaning(True, (("nystagmus", 0.9), ("ptosis", 0.1))),
        Leaning(False, (("headache", 1.0),)),
    ]
    assert compose(CASE, leanings, rare=True) == f"{RAISED} ptosis and seizures."


def test_compose_names_the_visits_own_findings_without_teachers() -> None:
    text = compose(CASE, [], rare=False)
    assert text is not None
    assert text.startswith(LOWERED)
    assert "headache" in text
    assert "fever" not in text
    assert "nystagmus" not in text


def test_nothing_recognised_is_nothing_taught() -> None:
    assert (
        compose(Case(case_id="b", source="table", chief_complaint="Here for a form."), [], True)
        is None
    )


def test_a_sound_text_cites_only_what_is_there() -> None:
    assert is_sound("seizures and ptosis.", CASE)
    assert not is_sound("seizures and hepatomegaly.", CASE)
    assert not is_sound("fever.", CASE)  # denied in the visit
    assert not is_sound("nystagmus.", CASE)  # the mother's


def test_empty_and_looping_texts_are_not_sound() -> None:
    assert not is_sound("", CASE)
    assert not is_sound("the patient is here.", CASE)
    assert not is_sound("seizures and ptosis, " * 4, CASE)
    assert not is_sound("ptosis, seizures and ptosis.", CASE)


def test_choices_are_the_visits_findings_in_its_own_words() -> None:
    texts = choices(CASE)
    assert "seizures, headache and ptosis." in texts
    assert len(texts) == len(set(texts)) == 3 + 6 + 6  # one, two or three of three, in order
    assert all(is_sound(text, CASE) for text in texts)
    assert choices(Case(case_id="b", source="table", chief_complaint="Here for a form.")) == []


def test_the_evidence_list_says_what_it_is() -> None:
    assert "no rationale passed its check" in evidence_list(CASE)
    assert "ptosis" in evidence_list(CASE)
    bare = evidence_list(Case(case_id="b", source="table", chief_complaint="Here for a form."))
    assert "no finding" in bare
