"""A visit is read once: places point at the words in the record and in the rendered text."""

from hypothesis import given
from hypothesis import strategies as st

from rarealert.visits.case import TEXT_FIELDS, Case
from rarealert.visits.reading import read_visit, render

_SENTENCES = (
    "Fever and  ataxia since March.",
    "No cough,\nno seizures.",
    "Mother has epilepsy.",
    "She denies headache; hypotonia on examination.",
    "\t wide-based\u00a0gait ",
    "Nothing else.",
)


@st.composite
def visits(draw: st.DrawFn) -> Case:
    words = st.lists(st.sampled_from(_SENTENCES), min_size=1, max_size=3).map(" ".join)
    names = draw(st.sets(st.sampled_from(TEXT_FIELDS), min_size=1))
    return Case(
        case_id="v1",
        source="table",
        age_years=draw(st.none() | st.floats(0, 100)),
        sex=draw(st.sampled_from((None, "female", "male"))),
        **{name: draw(words) for name in names},
    )


@given(visits())
def test_every_place_points_at_the_same_words_in_record_and_text(case: Case) -> None:
    reading = read_visit(case)
    assert reading.text == render(case)
    for finding in reading.findings:
        words = reading.words(finding)
        assert " ".join(words.split()) == reading.text[slice(*finding.place)]
        line = reading.lines[finding.field]
        assert line.start <= finding.place.start < finding.place.end <= line.end


@given(visits(), st.sets(st.sampled_from(TEXT_FIELDS)))
def test_a_shortened_reading_is_the_reading_of_the_shortened_visit(
    case: Case, dropped: set[str]
) -> None:
    kept = {name for name in TEXT_FIELDS if getattr(case, name)} - dropped
    if not kept:
        return
    shortened = case.model_copy(update=dict.fromkeys(dropped))
    assert read_visit(case).without(dropped) == read_visit(shortened)


def test_findings_carry_state_and_holder() -> None:
    case = Case(
        case_id="v1",
        source="table",
        chief_complaint="Fever and ataxia. No cough.",
        family_history="Seizures.",
        findings_present=("HP:0001252",),
        findings_excluded=("HP:0001945",),
    )
    reading = read_visit(case)
    assert reading.affirmed == ("HP:0001945", "HP:0001251")
    assert reading.denied == ("HP:0012735",)
    assert reading.relatives == ("HP:0001250",)
    assert reading.present == ("HP:0001945", "HP:0001251", "HP:0001252")
    assert reading.excluded == ("HP:0012735",)
    assert [reading.text[slice(*span)] for span in reading.denials] == ["No", "cough"]
