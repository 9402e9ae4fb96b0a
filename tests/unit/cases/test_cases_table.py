"""Tables: column maps, CSV and Parquet, labels by diagnosis, and visits without any label."""

import json
from datetime import date, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rarealert.errors import BadInputError
from rarealert.sources.importing import import_source, read_refused, read_source
from rarealert.sources.records import Visit
from rarealert.sources.table import ColumnMap, load_columns, read_visits
from rarealert.visits.case import Case
from rarealert.visits.refused import Refused

MAP = """
source: clinic_a
missing: [NA, "-"]
columns:
  no: case_id
  who: patient_id
  day: visit_date
  age_m: {field: age_years, unit: months}
  gender: {field: sex, values: {F: female, M: male, X: null}}
  why: chief_complaint
  exam_1: physical_examination
  exam_2: physical_examination
  hpo: findings_present
  dx: diagnosis
  remarks: null
"""
HEADER = "no;who;day;age_m;gender;why;exam_1;exam_2;hpo;dx;remarks"


def folder_of(tmp_path, *rows, columns=MAP, header=HEADER, ending=".csv"):
    tmp_path.mkdir(exist_ok=True)
    text = "\n".join([header, *rows]) + "\n"
    (tmp_path / f"cases{ending}").write_text(text, encoding="utf-8")
    if columns:
        (tmp_path / "columns.yaml").write_text(columns, encoding="utf-8")
    return tmp_path


def test_a_column_map_turns_a_foreign_table_into_cases(tmp_path):
    folder = folder_of(
        tmp_path / "table",
        '7;p1;2024-03-01;18;F;"Fever; cough";Pale.;-;HP:0001945 HP:0012735;Marfan syndrome;x',
        "8;NA;;NA;X;Rash;;;;Acute bronchitis;",
    )
    first, second = read_source("table", folder)
    assert first.case == Case(
        case_id="7",
        source="clinic_a",
        patient_id="p1",
        visit_date=date(2024, 3, 1),
        age_years=1.5,
        sex="female",
        chief_complaint="Fever; cough",
        physical_examination="Pale.",
        findings_present=("HP:0001945", "HP:0012735"),
    )
    assert (first.label.label, first.label.orpha_code) == ("rare", "ORPHA:558")
    assert second.case == Case(case_id="8", source="clinic_a", chief_complaint="Rash")
    assert (second.label.label, second.label.disease_id) == ("nonrare", "NAME:acute bronchitis")


def test_text_columns_of_one_field_are_put_together(tmp_path):
    row = "7;;;;;Rash;Pale.;Thin.;;;"
    (visit,) = read_visits(folder_of(tmp_path, row) / "cases.csv")
    assert visit.case.physical_examination == "Pale.\nThin."


def test_numbers_of_jsonl_and_parquet_are_read_as_csvs_are():
    columns = {
        "id": "case_id",
        "age": {"field": "age_years", "unit": "months", "values": {"newborn": "0"}},
        "sex": {"field": "sex", "values": {"1": "male", "2": "female"}},
        "temp": "vitals",
        "pressure": "vitals",
        "pulse": "vitals",
    }
    made = ColumnMap.model_validate({"missing": ["99", "999"], "columns": columns})
    row = {"id": "a", "age": 30, "sex": 2.0, "temp": 38.9, "pressure": "120/80", "pulse": 99.0}
    assert made.fields(row) == {
        "case_id": "a", "age_years": 2.5, "sex": "female", "vitals": "38.9\n120/80"
    }  # fmt: skip
    assert made.fields({"id": "a", "age": 999, "pulse": 80})["vitals"] == "80"
    assert "age_years" not in made.fields({"id": "a", "age": 999})
    assert made.fields({"id": "a", "age": "newborn"})["age_years"] == "0"
    assert made.fields({"id": "a", "temp": ["x"], "pressure": "120/80"})["vitals"] == ["x"]


def test_a_visit_needs_no_label(tmp_path):
    rows = ["7;;;;;Rash;;;;;", "8;;;;;Cough;;;;Gout;"]
    first, second = read_visits(folder_of(tmp_path, *rows) / "cases.csv")
    assert (first.case.chief_complaint, first.diagnoses) == ("Rash", ())
    assert second.diagnoses[0].name == "Gout"
    unlabelled, _ = read_source("table", folder_of(tmp_path, *rows))
    assert (unlabelled.kind, unlabelled.row) == ("unlabelled", 2)


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        ("7;;;x;;Rash;;;;;", "case.age_years", "valid number"),
        ("7;;;-5;;Rash;;;;;", "case.age_years", "greater than or equal to 0"),
        ("7;;;;W;Rash;;;;;", "case.sex", "'female' or 'male'"),
        ("7;;1.3.24;;;Rash;;;;;", "case.visit_date", "valid date"),
        ("7;;;;;Rash;;;HP:12;;", "case.findings_present.0", "pattern"),
        (";;;;;Rash;;;;;", "case.case_id", "required"),
        ("7;;;;;;;;;;", "case", "needs text"),
        ("7;Rash", "line", "2 cells where the header names 11 columns"),
        ("7;;;;;R\x00sh;;;;;", "line", "NUL"),
    ],
)
def test_a_bad_row_is_refused_by_line_and_field(tmp_path, row, field, reason):
    refused, kept = read_visits(folder_of(tmp_path, row, "8;;;;;Cough;;;;;") / "cases.csv")
    assert (refused.row, refused.field) == (2, field)
    assert reason in refused.reason
    assert kept.case.case_id == "8"


def test_the_line_of_a_record_that_spans_lines_is_its_last(tmp_path):
    rows = ['6;;;;;"two\nlines";;;;;', "7;;;bad;;Rash;;;;;"]
    kept, refused = read_visits(folder_of(tmp_path, *rows) / "cases.csv")
    assert kept.case.chief_complaint == "two\nlines"
    assert refused.row == 4


def test_an_open_quote_costs_its_own_record(tmp_path):
    rows = ["6;;;;;Rash;;;;;", '7;;;;;"open;;;;;', "8;;;;;Cough;;;;;"]
    kept, refused, next_kept = read_visits(folder_of(tmp_path, *rows) / "cases.csv")
    assert (kept.case.case_id, next_kept.case.case_id) == ("6", "8")
    assert (refused.row, refused.field) == (3, "line")
    assert refused.reason == "not CSV (is a quote open?); this line is lost"


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ("columns: {a: nonsense}", "columns.a: no field of that name"),
        ("columns: {a: age_years}", "no column for case_id"),
        ("columns: {a: case_id, b: case_id}", "two columns for case_id"),
        ("columns: {a: case_id, b: {field: sex, unit: months}}", "only age_years has a unit"),
        ("columns: {a: case_id, b: {field: age_years, unit: stone}}", "unit"),
        ("columns: {}", "columns"),
        ("colums: {a: case_id}", "columns: Field required"),
        ("columns: [a]", "columns"),
        ("columns: {a: [", "not YAML"),
        ("", "columns.yaml"),
    ],
)
def test_a_bad_column_map_is_one_sentence(tmp_path, columns, says):
    (tmp_path / "columns.yaml").write_text(columns)
    with pytest.raises(BadInputError, match=says) as caught:
        load_columns(tmp_path / "columns.yaml")
    assert len(str(caught.value).splitlines()) == 1


def test_a_column_that_the_map_forgets_is_named(tmp_path):
    folder = folder_of(tmp_path, "7;Rash", header="no;forgotten")
    with pytest.raises(BadInputError, match=r"forgotten.*does not name"):
        import_source(
            "table", folder / "cases.csv", tmp_path / "ws" / "data", folder / "columns.yaml"
        )


def test_the_map_is_imported_beside_its_table_and_used_by_the_pipeline(tmp_path):
    published = folder_of(tmp_path / "mine", "7;;;;;Rash;;;;Acute bronchitis;")
    data = tmp_path / "ws" / "data"
    done = import_source("table", published / "cases.csv", data, published / "columns.yaml")
    assert done.kept == 1
    assert {item.name for item in (data / "table").iterdir()} == {"cases.csv", "columns.yaml"}
    (item,) = read_source("table", data / "table")
    assert item.case.source == "clinic_a"


def test_a_map_belongs_to_a_table_only(tmp_path):
    folder = folder_of(tmp_path / "mine", "7;;;;;Rash;;;;;")
    with pytest.raises(BadInputError, match="leave --columns out for fhir"):
        import_source("fhir", folder, tmp_path / "data", folder / "columns.yaml")


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_without_a_map_columns_are_named_as_in_the_schema(tmp_path, ending):
    mark = "\t" if ending == ".tsv" else ","
    header = mark.join(["case_id", "age_years", "chief_complaint", "label", "disease_name"])
    row = mark.join(["7", "41.5", "Rash", "nonrare", "Gout"])
    folder = folder_of(tmp_path, row, columns=None, header=header, ending=ending)
    (item,) = read_source("table", folder)
    assert (item.case.age_years, item.label.disease_id) == (41.5, "NAME:gout")
    assert item.label.reason == "the table's own label"


def test_parquet_keeps_types_dates_and_empty_lists(tmp_path):
    rows = [
        {"case_id": "7", "chief_complaint": "Rash", "findings_present": [], "age_years": 3},
        {"case_id": "8", "chief_complaint": "Cough", "findings_present": None, "age_years": None},
    ]
    days = [datetime(2024, 3, 1), None]
    table = pa.Table.from_pylist(rows).append_column("visit_date", pa.array(days))
    pq.write_table(table, tmp_path / "cases.parquet")
    first, second = read_visits(tmp_path / "cases.parquet")
    assert (first.case.findings_present, first.case.age_years) == ((), 3.0)
    assert first.case.visit_date == date(2024, 3, 1)
    assert (second.case.findings_present, second.case.age_years) == (None, None)


def test_a_code_gives_the_label(tmp_path):
    tmp_path = tmp_path / "table"
    tmp_path.mkdir()
    row = {"case_id": "7", "chief_complaint": "Tall.", "diagnosis_code": "ORPHA:558"}
    (tmp_path / "cases.jsonl").write_text(json.dumps(row))
    (item,) = read_source("table", tmp_path)
    assert (item.label.label, item.label.disease_name) == ("rare", "Marfan syndrome")


def test_the_resolved_diagnosis_must_not_stand_in_the_text(tmp_path):
    row = "7;;;;;Known to have acute bronchitis;;;;Acute bronchitis;"
    (refused,) = read_source("table", folder_of(tmp_path, row))
    assert refused.kind == "diagnosis_in_text"


@pytest.mark.parametrize("name", ["cases.xlsx", "cases"])
def test_another_kind_of_file_says_which_are_read(tmp_path, name):
    (tmp_path / name).write_text("x")
    with pytest.raises(BadInputError, match=r"\.csv.*\.parquet"):
        import_source("table", tmp_path / name, tmp_path / "data")


def test_two_tables_in_one_folder_are_a_question(tmp_path):
    folder = folder_of(tmp_path, "7;;;;;Rash;;;;;")
    (folder / "cases.jsonl").write_text("{}\n")
    with pytest.raises(BadInputError, match="holds 2 of"):
        list(read_source("table", folder))


cells = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)
@given(rows=st.lists(st.lists(cells, min_size=11, max_size=11), min_size=1, max_size=4))
def test_every_row_of_any_table_is_a_visit_or_a_refusal(tmp_path, rows):
    import csv
    import io

    buffer = io.StringIO()
    csv.writer(buffer, delimiter=";", lineterminator="\n").writerows(rows)
    folder = folder_of(tmp_path, buffer.getvalue().removesuffix("\n"))
    items = list(read_visits(folder / "cases.csv"))
    assert len(items) == len(rows)
    assert all(isinstance(item, Visit | Refused) for item in items)


def test_the_map_in_the_documentation_is_a_map(request):
    import yaml

    text = (request.config.rootpath / "docs" / "importing.md").read_text(encoding="utf-8")
    content = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert ColumnMap.model_validate(content).source == "clinic_a"


def test_refused_rows_are_listed_beside_build(tmp_path):
    folder = folder_of(tmp_path / "mine", "7;;;;;Rash;;;;Acute bronchitis;", "8;;;;;Cough;;;;;")
    done = import_source("table", folder, tmp_path / "ws" / "data")
    assert dict(done.left_out) == {"unlabelled": 1}
    assert done.refused_file == tmp_path / "ws" / "build" / "import" / "table" / "refused.jsonl"
    assert [item.row for item in read_refused(done.refused_file)] == [3]
