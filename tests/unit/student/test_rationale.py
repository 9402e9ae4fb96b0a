"""Rationales, learnt and written, name only findings that are in the visit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarealert.student.rationale import (
    LOWERED,
    RAISED,
    TeacherReasons,
    choices,
    compose,
    compose_correction,
    evidence_list,
    grounded_part,
    is_sound,
    opening,
)
from rarealert.visits.case import Case, Label
from rarealert.visits.reading import Reading, read_visit


def read(text: str, **fields: str) -> Reading:
    return read_visit(Case(case_id="a", source="table", chief_complaint=text, **fields))


VISIT = read("Seizures and ptosis. No fever. Headache.", family_history="His mother had nystagmus.")
BARE = read("Here for a form.")


def test_compose_takes_the_heaviest_findings_of_the_right_side() -> None:
    reasons = [
        TeacherReasons(True, (("ptosis", 0.6), ("seizure", 0.4))),
        TeacherReasons(True, (("nystagmus", 0.9), ("ptosis", 0.1))),
        TeacherReasons(False, (("headache", 1.0),)),
    ]
    assert compose(VISIT, reasons, rare=True) == f"{RAISED} ptosis and seizures."


def test_compose_names_the_visits_own_findings_without_teachers() -> None:
    text = compose(VISIT, [], rare=False)
    assert text is not None
    assert text.startswith(LOWERED)
    assert "headache" in text
    assert "fever" not in text
    assert "nystagmus" not in text


def test_without_a_recognised_finding_there_is_no_rationale() -> None:
    assert compose(BARE, [], True) is None


def test_a_sound_text_cites_only_what_is_there() -> None:
    assert is_sound("seizures and ptosis.", VISIT)
    assert not is_sound("seizures and hepatomegaly.", VISIT)
    assert not is_sound("fever.", VISIT)  # denied in the visit
    assert not is_sound("nystagmus.", VISIT)  # the mother's


def test_empty_and_looping_texts_are_not_sound() -> None:
    assert not is_sound("", VISIT)
    assert not is_sound("the patient is here.", VISIT)
    assert not is_sound("seizures and ptosis, " * 4, VISIT)
    assert not is_sound("ptosis, seizures and ptosis.", VISIT)


def test_choices_are_the_visits_findings_in_its_own_words() -> None:
    texts = choices(VISIT, "low")
    assert "seizures, headache and ptosis." in texts
    assert len(texts) == len(set(texts)) == 3 + 6 + 6  # one, two or three of three, in order
    assert all(is_sound(text, VISIT) for text in texts)
    assert choices(BARE, "alert") == []


def test_choices_that_raise_the_question_may_name_the_head_of_their_findings() -> None:
    texts = choices(VISIT, "alert")
    assert set(choices(VISIT, "low")) < set(texts)
    assert "seizures, as in rare neurologic disease." in texts
    assert "ptosis, as in rare ophthalmic disorder." in texts
    assert all(is_sound(text, VISIT) for text in texts)


def test_a_head_is_named_only_where_a_finding_supports_it() -> None:
    neurologic = compose(VISIT, [], rare=True, head="Rare neurologic disease")
    assert neurologic is not None
    assert neurologic.endswith(", as in rare neurologic disease.")
    bone = compose(VISIT, [], rare=True, head="Rare bone disease")
    assert bone == compose(VISIT, [], rare=True)
    assert not is_sound("seizures, as in rare bone disease.", VISIT)
    assert is_sound("Seizures, as in Rare neurologic disease.", VISIT)


MYASTHENIA = Label(
    label="rare",
    disease_id="ORPHA:589",
    disease_name="Myasthenia gravis",
    orpha_code="ORPHA:589",
    orphanet_head="Rare neurologic disease",
    reason="test",
)


def test_a_correction_names_the_missed_finding_and_cites_its_annotation() -> None:
    visit = read("Headache, ptosis and fever.")
    many = [TeacherReasons(True, (("headache", 1.0),))] * 9
    text = compose_correction(visit, MYASTHENIA, many)
    assert text is not None
    assert text.startswith(f"{RAISED} ptosis")
    assert text.endswith("ptosis is very frequent in Myasthenia gravis (ORPHA:589).")
    assert is_sound(text.removeprefix(RAISED).strip(), visit)


def test_no_correction_without_an_annotated_finding() -> None:
    assert compose_correction(BARE, MYASTHENIA, []) is None
    unknown = Label(label="nonrare", disease_id="NAME:x", disease_name="x", reason="test")
    assert compose_correction(read("Headache."), unknown, []) is None


@pytest.mark.parametrize(
    "citation",
    [
        "ptosis is frequent in Myasthenia gravis (ORPHA:589).",  # it is frequent there
        "ptosis is very frequent in Myasthenia gravis (ORPHA:1).",
        "ptosis is very frequent in Kearns-Sayre syndrome (ORPHA:589).",
        "headache is frequent in Myasthenia gravis (ORPHA:589).",
        "fever is frequent in Myasthenia gravis (ORPHA:589).",
        "it is well known.",
    ],
)
def test_a_wrong_citation_is_not_sound(citation: str) -> None:
    assert is_sound("ptosis: ptosis is very frequent in Myasthenia gravis (ORPHA:589).", VISIT)
    assert not is_sound(f"ptosis: {citation}", VISIT)


def test_the_evidence_list_says_what_it_is() -> None:
    assert "no rationale passed its check" in evidence_list(VISIT, "alert")
    assert "ptosis" in evidence_list(VISIT, "alert")
    bare = evidence_list(BARE, "low")
    assert "o finding was recognised" in bare
    assert opening("low") not in bare  # nothing found speaks for nothing


@pytest.mark.parametrize(
    ("written", "left"),
    [
        ("ptosis, headache and seizures.", "ptosis, headache and seizures."),
        ("ptosis, seizures, ptosis and seizures.", "ptosis and seizures."),
        ("ptosis, headache and drooping eyelid.", "ptosis and headache."),
        ("ptosis, hepatomegaly, skin rot and no headache.", "ptosis."),
        ("ptosis, nystagmus and fever.", "ptosis."),  # the mother's; denied
        ("ptosis and rash, as in rare eye disease.", "ptosis, as in rare eye disease."),
        ("seizures, seizures: ptosis is frequent in x.", "seizures: ptosis is frequent in x."),
        ("the weather, the weather, the weather", ""),
        ("", ""),
    ],
)
def test_only_findings_of_the_visit_are_left_each_once(written, left) -> None:
    assert grounded_part(written, VISIT) == left
    assert grounded_part(left, VISIT) == left


def test_a_finding_with_and_in_its_name_is_one_item() -> None:
    visit = read("Pins and needles. Nausea and vomiting.")
    written = "nausea and vomiting and pins and needles."
    assert grounded_part(written, visit) == written
    assert is_sound(written, visit)


WORDS = st.lists(
    st.sampled_from([", ", " and ", "ptosis", "seizures", "hepatomegaly", "fever", "it", "no "]),
    max_size=14,
).map("".join)


@given(WORDS)
def test_what_is_left_of_any_list_is_sound(written) -> None:
    left = grounded_part(written, VISIT)
    assert left == "" or is_sound(left, VISIT)
    assert grounded_part(left, VISIT) == left
