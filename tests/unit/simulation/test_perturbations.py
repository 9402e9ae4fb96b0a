"""A perturbed visit keeps its findings and quantities."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarealert.simulation.perturbations import (
    PERTURBATIONS,
    mistyped,
    other_units,
    paraphrased,
    perturbed_cases,
    without,
)
from rarealert.visits.case import Case, Label, LabelledCase
from rarealert.visits.reading import Reading, read_visit


def visit(**fields) -> Reading:
    given = {"case_id": "a", "source": "simulated", "age_years": 41, "sex": "female"}
    texts = {"chief_complaint": "Shortness of breath for 3 weeks.", "vitals": "Pulse 80/min."}
    return read_visit(Case.model_validate(given | texts | fields))


def labelled(number, label):
    code = f"ORPHA:{number}" if label == "rare" else None
    truth = Label(
        label=label,
        disease_id=code or f"NAME:{number % 3}",
        disease_name="d",
        orpha_code=code,
        reason="made",
    )
    return LabelledCase(case=visit(case_id=f"{label}-{number}").case, label=truth)


def test_a_paraphrase_keeps_every_finding_and_changes_the_words():
    text = "The patient mentions joint pain. There is no fever."
    before = visit(history_of_present_illness=text, family_history="Mother has seizures.")
    changed = paraphrased(before, random.Random(3))
    assert changed is not None
    assert changed.chief_complaint != before.case.chief_complaint
    after = read_visit(changed)
    for findings in ("affirmed", "denied", "relatives"):
        assert set(getattr(after, findings)) == set(getattr(before, findings))


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("Temperature 37.0 C.", "Temperature 98.6 F."),
        ("Blood pressure 120/80 mmHg.", "Blood pressure 16.0/10.7 kPa."),
        ("Weight 70 kg, height 180 cm.", "Weight 154 lb, height 70.9 in."),
        ("Cough for a year.", "Cough for 12 months."),
        ("Cough for 3 weeks.", "Cough for 21 days."),
        ("A 3 years old girl, ill 2 years ago.", None),
        ("15 mg/kg/day.", None),
        ("Cough for 2-3 weeks, 2 to 3 weeks, 1.5 years or half a year.", None),
        ("Pain for a year and a half.", None),
        ("Papules of 1-2 cm, a mass of 3 x 4 cm, another of 3x4 cm.", None),
        ("Fever of 38\u201339 C.", None),
        ("Fever rose to 39.0 C.", "Fever rose to 102.2 F."),
    ],
)
def test_units_change_and_quantities_stay(text, changed):
    found = other_units(visit(chief_complaint=text), random.Random(0))
    assert (None if found is None else found.chief_complaint) == changed


def test_typing_errors_keep_the_letters_of_each_word_and_all_numbers():
    text = "Progressive weakness of both shoulders since childhood, creatine kinase 1200. " * 3
    before = visit(history_of_present_illness=text)
    after = mistyped(before, random.Random(1))
    words = [re.findall(r"\w+", one.history_of_present_illness) for one in (before.case, after)]
    assert words[0] != words[1]
    for before, after in zip(*words, strict=True):
        assert sorted(before) == sorted(after)
        assert before[0] == after[0]
        assert before[-1] == after[-1]


def test_a_deleted_field_is_absent_and_the_last_text_stays():
    case = visit()
    assert without("vitals")(case, random.Random(0)).vitals is None
    assert without("family_history")(case, random.Random(0)) is None
    assert without("chief_complaint", "vitals")(case, random.Random(0)) is None


@given(st.text(min_size=1).filter(str.strip))
def test_any_text_can_be_perturbed(text):
    before = visit(chief_complaint=text.strip() or "x", vitals=None)
    for perturb in (other_units, mistyped):
        changed = perturb(before, random.Random(0))
        assert changed is None or changed.chief_complaint != before.case.chief_complaint


def test_the_sample_is_half_rare_repeatable_and_takes_diseases_in_turn():
    cases = [labelled(n, "rare") for n in range(8)] + [labelled(n, "nonrare") for n in range(8)]
    found = perturbed_cases(cases, 6, seed=1)
    assert found == perturbed_cases(cases[::-1], 6, seed=1)
    kept = {item.case_id for item in found}
    assert sum(name.startswith("rare") for name in kept) == 3
    nonrare = {int(name.split("-")[1]) % 3 for name in kept if name.startswith("nonrare")}
    assert nonrare == {0, 1, 2}
    assert len({item.case.case_id for item in found}) == len(found)
    assert {item.perturbation for item in found} <= set(PERTURBATIONS)
    assert kept != {item.case_id for item in perturbed_cases(cases, 6, seed=2)}
