"""The case as a contract: JSON Schema and model agree, missing is not empty, one rendered text."""

import hashlib
import json
import traceback
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError
from typer.testing import CliRunner

from rarealert.cli import app
from rarealert.errors import BadInputError
from rarealert.visits.case import TEXT_FIELDS, Case, Label, LabelledCase, json_schema
from rarealert.visits.reading import RENDERER_VERSION, read_visit, render
from rarealert.visits.store import read_cases, write_cases

LABEL = Label(label="nonrare", disease_id="NAME:gout", disease_name="gout", reason="test")
SCHEMA = Draft202012Validator(json_schema(labelled=True))
words = st.text("ab \n", max_size=6)
numbers = st.one_of(st.floats(allow_nan=False), st.integers(-5, 200), st.booleans())
codes = st.lists(st.sampled_from(["HP:0001250", "HP:12", "HP:00012501"]), max_size=2)
maybe_cases = st.fixed_dictionaries(
    {"case_id": words, "source": st.sampled_from(["table", "Bad Source", "t2"])},
    optional={
        "age_years": st.none() | numbers,
        "sex": st.sampled_from([None, "female", "male", "F", ""]),
        "patient_id": st.none() | words,
        "visit_date": st.sampled_from([None, "2020-01-31"]),
        "findings_present": st.none() | codes,
        "weight": numbers,
        **{name: st.none() | words for name in TEXT_FIELDS},
    },
)
maybe_labels = st.fixed_dictionaries(
    {
        "label": st.sampled_from(["rare", "nonrare", "excluded"]),
        "disease_id": words,
        "disease_name": words,
        "reason": words,
    },
    optional={"orpha_code": st.sampled_from([None, "ORPHA:558", "558"])},
)


def labelled(**fields: object) -> LabelledCase:
    return LabelledCase(case=Case(case_id="a", source="table", **fields), label=LABEL)


@settings(max_examples=150, deadline=None)
@given(case=maybe_cases, label=maybe_labels)
def test_the_schema_accepts_what_the_models_accept(case, label):
    row = {"case": case, "label": label}
    try:
        LabelledCase.model_validate_json(json.dumps(row))
        accepted = True
    except ValidationError:
        accepted = False
    assert SCHEMA.is_valid(row) == accepted


def test_the_schema_gives_units_ranges_and_meaning():
    Draft202012Validator.check_schema(json_schema(labelled=True))
    age = json_schema(labelled=False)["properties"]["age_years"]
    assert {"minimum": 0, "maximum": 120, "unit": "years"}.items() <= age["anyOf"][0].items()
    for model in (Case, Label):
        fields = model.model_json_schema()["properties"]
        assert all(field.get("description") for field in fields.values())


@pytest.mark.parametrize("is_labelled", [True, False])
def test_the_command_prints_the_schema(is_labelled):
    run = CliRunner().invoke(app, ["schema", *([] if is_labelled else ["--no-labelled"])])
    assert json.loads(run.stdout) == json_schema(labelled=is_labelled)


@pytest.mark.parametrize("findings", [None, (), ("HP:0001250",)])
def test_missing_and_empty_findings_differ_on_disk(tmp_path, findings):
    known = {"patient_id": "p", "visit_date": date(2020, 1, 31), "vitals": "Pulse 80"}
    item = labelled(findings_present=findings, **known)
    write_cases(tmp_path / "cases.parquet", [item])
    assert read_cases(tmp_path / "cases.parquet") == [item]


def write_damaged(path: Path, damage: str) -> None:
    if damage == "csv":
        path.write_text("case_id,chief_complaint\n1,Jane Doe coughs\n")
    elif damage != "missing":
        write_cases(path, [labelled(vitals="Jane Doe's pulse: 80")] * 2)
        table = pq.read_table(path)
        if damage == "sex":
            table = table.drop_columns("sex")
        else:
            place = table.schema.get_field_index(damage)
            long = pa.array([None, "Jane Doe " * 3000])
            table = table.set_column(place, table.schema.field(place), long)
        pq.write_table(table, path)


@pytest.mark.parametrize(
    ("damage", "named"),
    [("sex", "sex"), ("chief_complaint", "row 2"), ("csv", "Parquet"), ("missing", "missing")],
)
def test_another_file_is_one_sentence_without_its_text(tmp_path, damage, named):
    file = tmp_path / "cases.parquet"
    write_damaged(file, damage)
    with pytest.raises(BadInputError, match=named) as caught:
        read_cases(file)
    assert str(file) in str(caught.value)
    assert "Jane" not in "".join(traceback.format_exception(caught.value))


GOLDEN = (
    Case(case_id="1", source="t", age_years=0.25, sex="female", chief_complaint="Cough\n for  2 d"),
    Case(case_id="2", source="t", age_years=41.9, vitals="Pulse 80", family_history="Gout."),
    Case(case_id="3", source="t", sex="male", physical_examination="Pale.", social_history="Cook."),
)


def test_another_text_needs_another_version():
    """A change of the text needs a new version, or cached answers would be used for it."""
    text = "\n\n".join(render(case) for case in GOLDEN)
    assert (RENDERER_VERSION, hashlib.sha256(text.encode()).hexdigest()[:16]) == (
        "1",
        "a4160198360fc8f2",
    )


def test_the_text_names_neither_patient_nor_source_nor_codes():
    case = Case(
        case_id="secret-id",
        source="secretsource",
        patient_id="secret-patient",
        visit_date=date(2020, 1, 31),
        findings_present=("HP:0001250",),
        chief_complaint="Fits.",
    )
    assert render(case) == "Chief complaint: Fits."


def test_an_embedded_teachers_cache_key_follows_the_renderers_version(monkeypatch):
    from rarealert.teachers.reasoners import reasoner as module

    teacher = module.ReasonerTeacher("t", "likelihood_ratio")
    before = teacher.request(read_visit(GOLDEN[0])).key
    monkeypatch.setattr(module, "RENDERER_VERSION", "next")
    assert teacher.request(read_visit(GOLDEN[0])).key != before
