"""Tables: column maps, nested and flat rows, labels by diagnosis, and cases without any label."""

import json
from datetime import date, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rarealert.errors import BadInputError
from rarealert.sources.importing import import_source, read_source
from rarealert.sources.table import ColumnMap, load_columns, read_recorded
from rarealert.visits.case import Case, LabelledCase
from rarealert.visits.refused import Refused, read_refused

SECRET = "Zebra-striped hands since Tuesday"
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
reused_folder = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)


def folder_of(folder, *rows, columns=MAP, header=HEADER, ending=".csv"):
    folder.mkdir(exist_ok=True)
    (folder / f"cases{ending}").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    if columns:
        (folder / "columns.yaml").write_text(columns, encoding="utf-8")
    return folder


def read_lines(folder, *rows):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "cases.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return list(read_source("table", folder))


def nested(case_id="a", **changes):
    gout = {"label": "nonrare", "disease_id": "NAME:gout", "disease_name": "Disease gout"}
    case = {"case_id": case_id, "history_of_present_illness": "The big toe hurts."}
    item = {"case": case, "label": gout | {"reason": "made for a test"}}
    for key, value in changes.items():
        part, name = key.split("_", 1)
        item[part][name] = value
    return item


def test_a_column_map_turns_a_foreign_table_into_cases(tmp_path):
    folder = folder_of(
        tmp_path / "table",
        '7;p1;2024-03-01;18;F;"Fever; cough";Pale.;-;HP:0001945 HP:0012735;Marfan syndrome;x',
        "8;NA;;NA;X;Rash;Pale.;Thin.;;Acute bronchitis;",
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
    assert second.case == Case(
        case_id="8",
        source="clinic_a",
        chief_complaint="Rash",
        physical_examination="Pale.\nThin.",
    )
    assert (second.label.label, second.label.disease_id) == ("nonrare", "NAME:acute bronchitis")


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


def test_a_case_needs_no_label_to_be_screened(tmp_path):
    folder = folder_of(tmp_path, "7;;;;;Rash;;;;;", "8;;;;;Cough;;;;Gout;")
    first, second = read_recorded(folder / "cases.csv")
    assert (first.case.chief_complaint, first.diagnoses) == ("Rash", ())
    assert second.diagnoses[0].name == "Gout"
    unlabelled, _ = read_source("table", folder)
    assert (unlabelled.kind, unlabelled.row) == ("unlabelled", 2)


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        ("7;;;x;;Rash;;;;;", "case.age_years", "valid number"),
        ("7;;;;W;Rash;;;;;", "case.sex", "'female' or 'male'"),
        ("7;;1.3.24;;;Rash;;;;;", "case.visit_date", "valid date"),
        ("7;;;;;Rash;;;HP:12;;", "case.findings_present.0", "pattern"),
        (";;;;;Rash;;;;;", "case.case_id", "required"),
        ("7;;;;;;;;;;", "case", "needs text"),
        ("7;Rash", "line", "2 cells where the header names 11 columns"),
        ("7;;;;;R\x00sh;;;;;", "line", "NUL"),
        ('7;;;;;"open;;;;;', "line", "quote"),
    ],
)
def test_a_bad_row_of_csv_is_refused_by_line_and_field(tmp_path, row, field, reason):
    rows = ['6;;;;;"two\nlines";;;;;', row, "8;;;;;Cough;;;;;"]
    before, refused, after = read_recorded(folder_of(tmp_path, *rows) / "cases.csv")
    assert (refused.row, refused.field) == (4, field)
    assert reason in refused.reason
    assert before.case.chief_complaint == "two\nlines"
    assert after.case.case_id == "8"


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        (nested(case_age_years=400), "case.age_years", "less than or equal to 120"),
        (nested(case_history_of_present_illness=" "), "present_illness", "at least 1"),
        (nested(label_orpha_code="ORPHA:58"), "label", "label is nonrare but"),
        (nested(case_diagnosis=SECRET), "case.diagnosis", "unknown field"),
        (nested(case_chief_complaint="Disease gout."), "case", "names the diagnosis"),
        (nested() | {SECRET: 1}, "(unnamed)", "unknown field"),
        ({"case": SECRET, "label": {}}, "case", "not a JSON object"),
        ({"case_id": "b", "chief_complaint": "Rash", "diagnosis": [SECRET]}, "diagnosis", "text"),
        (f'{{"case": "{SECRET}', "line", "not valid JSON"),
        ([SECRET], "line", "not a JSON object"),
        ("[" * 100_000, "line", "not valid JSON"),
        ('{"age_years": ' + "9" * 5000 + "}", "line", "not valid JSON"),
    ],
)
def test_a_bad_row_of_jsonl_is_refused_by_line_and_field(tmp_path, row, field, reason):
    refused, kept = read_lines(tmp_path, row, nested("good"))
    assert (refused.source, refused.file, refused.row) == ("table", "cases.jsonl", 1)
    assert field in refused.field
    assert reason in refused.reason
    assert SECRET not in json.dumps(refused.as_dict())
    assert kept.case.case_id == "good"


def test_nested_and_flat_rows_give_the_same_case_and_an_id_counts_once(tmp_path):
    row = nested()
    flat = {key: value for key, value in (row["case"] | row["label"]).items() if value}
    first, again, second = read_lines(tmp_path, row, row, flat | {"case_id": "b"})
    assert first.case.model_copy(update={"case_id": "b"}) == second.case
    assert first.label == second.label
    assert (again.field, again.reason) == ("case_id", "duplicate case_id")


def test_a_foreign_source_name_is_refused_by_simulated(tmp_path):
    (tmp_path / "cases.jsonl").write_text(json.dumps(nested(case_source="craftmd")))
    (refused,) = read_source("simulated", tmp_path)
    assert refused.field == "case.source"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
field_names = st.sampled_from([*nested()["case"], *nested()["label"], "case", "label"])


@reused_folder
@given(st.dictionaries(field_names, json_values), st.booleans())
def test_any_row_of_jsonl_is_a_case_or_refused(tmp_path, changes, is_nested):
    row = nested()
    case = row["case"] | changes
    (item,) = read_lines(tmp_path, row | {"case": case} if is_nested else row["label"] | case)
    assert isinstance(item, LabelledCase | Refused)


@pytest.mark.parametrize(
    ("columns", "reason"),
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
def test_a_bad_column_map_is_one_sentence(tmp_path, columns, reason):
    (tmp_path / "columns.yaml").write_text(columns)
    with pytest.raises(BadInputError, match=reason) as caught:
        load_columns(tmp_path / "columns.yaml")
    assert len(str(caught.value).splitlines()) == 1


def test_the_map_is_imported_with_its_table_and_refused_rows_are_listed(tmp_path):
    rows = [
        "7;;;;;Rash;;;;Acute bronchitis;",
        "8;;;;;Known bronchitis;;;;Bronchitis;",
        "9;;;;;A;;;;;",
    ]
    published, data = folder_of(tmp_path / "mine", *rows), tmp_path / "ws" / "data"
    done = import_source("table", published / "cases.csv", data, published / "columns.yaml")
    assert (done.kept, dict(done.left_out)) == (1, {"diagnosis_in_text": 1, "unlabelled": 1})
    assert done.refused_file == tmp_path / "ws" / "build" / "import" / "table" / "refused.jsonl"
    assert [item.row for item in read_refused(done.refused_file)] == [3, 4]
    assert {item.name for item in (data / "table").iterdir()} == {"cases.csv", "columns.yaml"}
    assert next(iter(read_source("table", data / "table"))).case.source == "clinic_a"


def test_a_map_must_name_every_column_and_belongs_to_a_table(tmp_path):
    folder = folder_of(tmp_path / "mine", "7;Rash", header="no;forgotten")
    with pytest.raises(BadInputError, match="forgotten"):
        import_source("table", folder / "cases.csv", tmp_path / "data", folder / "columns.yaml")
    with pytest.raises(BadInputError, match="--columns"):
        import_source("fhir", folder, tmp_path / "data", folder / "columns.yaml")


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_without_a_map_columns_are_named_as_in_the_schema(tmp_path, ending):
    mark = "\t" if ending == ".tsv" else ","
    header = mark.join(["case_id", "age_years", "chief_complaint", "label", "disease_name"])
    row = mark.join(["7", "41.5", "Rash", "nonrare", "Gout"])
    (item,) = read_source(
        "table", folder_of(tmp_path, row, columns=None, header=header, ending=ending)
    )
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
    first, second = read_recorded(tmp_path / "cases.parquet")
    assert (first.case.findings_present, first.case.age_years) == ((), 3.0)
    assert first.case.visit_date == date(2024, 3, 1)
    assert (second.case.findings_present, second.case.age_years) == (None, None)


@pytest.mark.parametrize("name", ["cases.xlsx", "cases"])
def test_another_kind_of_file_names_those_that_are_read(tmp_path, name):
    (tmp_path / name).write_text("x")
    with pytest.raises(BadInputError, match=r"\.csv.*\.parquet"):
        import_source("table", tmp_path / name, tmp_path / "data")


def test_two_tables_in_one_folder_are_refused(tmp_path):
    folder = folder_of(tmp_path, "7;;;;;Rash;;;;;")
    (folder / "cases.jsonl").write_text("{}\n")
    with pytest.raises(BadInputError, match=r"cases\.csv, cases\.jsonl"):
        list(read_source("table", folder))


def test_the_map_in_the_documentation_is_a_map(request):
    text = (request.config.rootpath / "docs" / "importing.md").read_text(encoding="utf-8")
    content = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert ColumnMap.model_validate(content).source == "clinic_a"
