"""Age and sex in the first sentences of a visit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarealert.visits.case import Case
from rarealert.visits.demographics import parse_age, parse_sex
from rarealert.visits.reading import render


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("A 22-year-old man presented with lesions that started 10 days ago.", 22),
        ("A man, aged 42 years, presents with a 6-month history of a rash.", 42),
        ("A 37\u2010year\u2010old woman presents with pain.", 37),
        ("A one-year-old boy presents.", 1),
        ("Seven-year-old male", 7),
        ("A twenty-three year old woman has a cough.", 23),
        ("3.5-year-old boy", 3.5),
        ("35-month-old male.", 35 / 12),
        ("A three-week-old female neonate.", 21 / 365.25),
        ("A 7 -day-old newborn boy has a fever.", 7 / 365.25),
        ("A 2-hours-old neonate is blue.", 2 / (24 * 365.25)),
        ("Female, 12 years old.", 12),
        ("Six hours after delivery, a 3050-g male newborn vomits.", 0),
        ("A male newborn is delivered to a 27-year-old woman at 33 weeks' gestation.", 0),
        ("A 2-day-old girl was born to a 29-year-old woman.", 2 / 365.25),
        ("A 2-year and 3-month-old boy has a rash.", 2.25),
        ("A 3 years and 6 months old girl.", 3.5),
        ("A 1-year-6-month-old boy", 1.5),
        ("A girl aged 1 year 6 months, thriving.", 1.5),
        ("A 1-year, 6-month-old boy", 1.5),
        ("A boy of one year and six months of age", 1.5),
        ("A man aged 42 years 3 months after a fall.", 42),
        ("A man, aged 42 years, 3 months after a fall.", 42),
        ("A forty five year old man", 45),
        ("Age: 6 mo", 0.5),
        ("A 6-mo-old boy", 0.5),
        ("An elderly man presents with brown macules.", None),
        ("Male, in his 70s.", None),
        ("A man presents with a 6-month history of cough.", None),
        ("Toddler, thriving well.", None),
        ("A 400-year-old man presents.", None),
        ("A 2 1/2-year-old girl.", None),
        ("A one hundred and two year old man.", None),
        ("For 3 days 2-year-old twins have coughed.", None),
        ("A mid-forty-year-old man.", None),
        ("A cough for 3 weeks. It is worse. He met a 30-year-old man.", None),
        ("", None),
    ],
)
def test_age_is_read_in_every_unit_or_stays_missing(text, years):
    assert parse_age(text) == (None if years is None else pytest.approx(years))


@given(months=st.integers(0, 23))
def test_months_survive_the_way_through_the_renderer(months):
    age = parse_age(f"A {months}-month-old infant presents.")
    case = Case(case_id="a", source="table", age_years=age, chief_complaint="Cough")
    assert render(case).startswith(f"Patient: {months} months\n")


@given(st.text(max_size=300))
def test_any_text_gives_an_age_in_range_or_none(text):
    age = parse_age(text)
    assert age is None or 0 <= age <= 120
    assert parse_sex(text) in {None, "female", "male"}


@pytest.mark.parametrize(
    ("text", "sex"),
    [
        ("A 22-year-old man's partner, a woman, is well.", "male"),
        ("A 37-year-old Black woman is brought by her son.", "female"),
        ("A mother brings in her 7-year-old son because of his behavior.", "male"),
        ("A mother brings her 18-year-old daughter to your office.", "female"),
        ("A 4-day-old newborn has a rash. He was born at term.", "male"),
        ("29-year-old gravida 2, para 0.", "female"),
        ("A 56-year-old transgender female has a cough.", None),
        ("A 47-year-old presents with pain. The patient is obese.", None),
        ("The infant cried while his mother told what she saw.", None),
    ],
)
def test_sex_is_the_patients(text, sex):
    assert parse_sex(text) == sex
