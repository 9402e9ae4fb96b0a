"""Every kind of input is read, every kind of output opens, and none of them runs a command."""

import csv
import json

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import Look, Scorer, model, words_of

from rarealert.screening.answer import COLUMNS
from rarealert.screening.batch import Options, screen_file
from rarealert.screening.tables import harmless

VISITS = pd.DataFrame(
    {
        "case_id": ["=1+1", "@bü", "c", "d"],
        "age_years": [30.0, 41.0, None, 400.0],
        "chief_complaint": ["cough", "müde, seit Tagen", "fever\nand chills", "old"],
    }
)
ENCOUNTER = {
    "resourceType": "Encounter",
    "id": "e1",
    "status": "finished",
    "class": {"code": "AMB"},
    "subject": {"reference": "Patient/p1"},
    "period": {"start": "2024-02-01"},
    "reasonCode": [{"text": "cough"}],
}
PATIENT = {"resourceType": "Patient", "id": "p1", "birthDate": "1990-05-05", "gender": "female"}
PACKET = {
    "id": "packet-1",
    "subject": {"id": "s", "sex": "MALE"},
    "phenotypicFeatures": [{"type": {"id": "HP:0001250", "label": "Seizure"}}],
    "metaData": {
        "created": "2024-01-01T00:00:00Z",
        "createdBy": "x",
        "phenopacketSchemaVersion": "2.0",
    },
}


def by_cough(case):
    return Look(0.1, "alert" if "cough" in words_of(case) else "low")


def scorer():
    """Its rationale is one that a spreadsheet would run."""
    return Scorer(by_cough, "=HYPERLINK(1)")


def lines(path, *objects):
    path.write_text("".join(json.dumps(each) + "\n" for each in objects), encoding="utf-8")
    return path


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "jsonl"])
def test_tables_of_every_kind_say_the_same(tmp_path, ending):
    source = tmp_path / f"visits.{ending}"
    if ending == "parquet":
        VISITS.to_parquet(source)
    elif ending == "jsonl":
        VISITS.to_json(source, orient="records", lines=True)
    else:
        VISITS.to_csv(source, index=False, sep="," if ending == "csv" else "\t")
    report = screen_file(source, tmp_path / "out.jsonl", model(), chunk_rows=2)
    answers = [json.loads(line) for line in report.out.read_text(encoding="utf-8").splitlines()]
    assert [row["case_id"] for row in answers] == ["=1+1", "@bü", "c"]
    assert [row["risk"] for row in answers] == [0.05, 0.16, 0.16]  # by the length of the text
    refused = json.loads(report.refused_file.read_text())
    assert "age_years" in refused["reason"]
    assert "old" not in refused["reason"]


def test_refused_rows_of_a_table_are_all_counted_in_lines(tmp_path):
    source = tmp_path / "in.csv"
    texts = ["cough\nand chills", "38.6", "old"]  # the first takes two lines
    VISITS[1:].assign(chief_complaint=texts).to_csv(source, index=False)
    report = screen_file(source, tmp_path / "out.jsonl", model())
    refused = [json.loads(line) for line in report.refused_file.read_text().splitlines()]
    assert [each["row"] for each in refused] == [4, 5]
    assert "no word" in refused[0]["reason"]
    assert [each["file"] for each in refused] == ["in.csv", "in.csv"]


def test_records_and_phenopackets_are_screened(tmp_path):
    bundle = {"resourceType": "Bundle", "type": "collection"}
    bundle["entry"] = [{"resource": PATIENT}, {"resource": ENCOUNTER}]
    folder = tmp_path / "packets"
    folder.mkdir()
    (folder / "one.json").write_text(json.dumps(PACKET))
    (tmp_path / "bundle.json").write_text(json.dumps(bundle))
    sources = {
        ("p1/e1", "HP:0012735"): (
            tmp_path / "bundle.json",
            lines(tmp_path / "r.ndjson", PATIENT, ENCOUNTER),
        ),
        ("packet-1", "HP:0001250"): (folder, folder / "one.json"),
    }
    for (case_id, hpo_id), files in sources.items():
        for file in files:
            report = screen_file(file, tmp_path / "out.jsonl", model())
            answers = json.loads(report.out.read_text())
            assert answers["case_id"] == case_id
            [finding] = json.loads(answers["evidence"])
            assert finding["hpo_id"] == hpo_id


def test_a_csv_opens_in_a_spreadsheet_and_runs_nothing(tmp_path):
    VISITS.to_csv(tmp_path / "in.csv", index=False)
    out = tmp_path / "out.csv"
    report = screen_file(tmp_path / "in.csv", out, model(scorer()), Options("all"))
    assert out.read_bytes().startswith(b"\xef\xbb\xbf")
    with out.open(encoding="utf-8-sig", newline="") as stream:
        header, *rows = csv.reader(stream)
    assert header == [*COLUMNS, "rationale", "notes", "model_version", "model_digest"]
    assert [row[0] for row in rows] == ["'=1+1", "'@bü", "c"]
    formula = "'=HYPERLINK(1)"
    assert [row[header.index("rationale")] for row in rows] == [
        formula,
        "",
        formula,
    ]  # German is unread
    assert "cough" in rows[0][header.index("evidence")]
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row)
    assert {path.name for path in tmp_path.iterdir()} == {
        "in.csv", "out.csv", report.refused_file.name,
    }  # fmt: skip


@given(st.text())
def test_a_harmless_cell_starts_no_formula_and_loses_nothing(text):
    cell = str(harmless(text))
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert cell in (text, f"'{text}")


def test_parquet_keeps_the_types(tmp_path):
    VISITS.to_csv(tmp_path / "in.csv", index=False)
    out = tmp_path / "out.parquet"
    screen_file(tmp_path / "in.csv", out, model())
    held = pq.read_table(out)
    kinds = {name: str(held.schema.field(name).type) for name in COLUMNS}
    assert kinds == {
        name: {"boolean": "bool", "long": "int64"}.get(kind, kind) for name, kind in COLUMNS.items()
    }
    assert held["case_id"].to_pylist() == ["=1+1", "@bü", "c"]
