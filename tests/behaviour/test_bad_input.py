"""Bad input: an error names file, row and field, and good rows are kept."""

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rarealert.errors import BadInputError
from rarealert.params import Params, load_params
from rarealert.paths import Paths
from rarealert.stages.ingest import ingest
from rarealert.visits.store import read_cases

ROOT = Path(__file__).parents[2]

GOOD: dict[str, Any] = {
    "case": {
        "case_id": "visit-1",
        "source": "table",
        "age_years": 41,
        "sex": "female",
        "chief_complaint": "Cough for a week.",
    },
    "label": {
        "label": "nonrare",
        "disease_id": "NAME:acute bronchitis",
        "disease_name": "Acute bronchitis",
        "reason": "clinic's own diagnosis",
    },
}


def _row(**changes: Any) -> dict[str, Any]:
    row = json.loads(json.dumps(GOOD))
    for key, value in changes.items():
        part, name = key.split("__")
        if value is None:
            row[part].pop(name, None)
        else:
            row[part][name] = value
    return row


@pytest.fixture
def workspace(tmp_path: Path) -> Paths:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "data/table").mkdir(parents=True)
    return Paths(tmp_path)


def _params(paths: Paths, *sources: str) -> Params:
    params = load_params(paths.params)
    return params.model_copy(
        update={"ingest": params.ingest.model_copy(update={"sources": sources})}
    )


def _ingest(paths: Paths, *lines: str) -> tuple[list[str], list[dict[str, Any]]]:
    (paths.data / "table/cases.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    list(ingest(_params(paths, "table"), paths))
    kept = [item.case.case_id for item in read_cases(paths.build("ingest") / "cases.parquet")]
    refused = (paths.build("ingest") / "refused.jsonl").read_text(encoding="utf-8").splitlines()
    return kept, [json.loads(line) for line in refused]


@pytest.mark.parametrize(
    ("row", "field"),
    [
        (_row(case__case_id="bad", case__age_years=400), "age_years"),
        (_row(case__case_id="bad", case__chief_complaint=None), "text"),
        (_row(case__case_id="bad", label__label="rare"), "orpha_code"),
        (_row(case__case_id="bad", label__orpha_code="ORPHA:558"), "orpha_code"),
        (_row(case__case_id="bad", case__blood_group="A"), "blood_group"),
        (_row(case__case_id="visit-1"), "case_id"),
    ],
    ids=["age of 400", "no text", "rare without code", "common with code", "unknown", "twice"],
)
def test_a_bad_row_is_refused_by_name_and_the_good_one_kept(
    workspace: Paths, row: dict[str, Any], field: str
) -> None:
    kept, refused = _ingest(workspace, json.dumps(GOOD), json.dumps(row))
    assert kept == ["visit-1"]
    assert len(refused) == 1
    assert refused[0]["row"] == 2
    assert field in json.dumps(refused[0])


def test_a_cut_line_of_json_is_refused_by_its_row(workspace: Paths) -> None:
    kept, refused = _ingest(workspace, json.dumps(GOOD)[:40], json.dumps(GOOD))
    assert kept == ["visit-1"]
    assert refused[0]["row"] == 1


def test_no_refusal_contains_case_text(workspace: Paths) -> None:
    secret = "whispered secret complaint"
    bad = _row(case__chief_complaint=secret, case__age_years=400)
    _, refused = _ingest(workspace, json.dumps(GOOD), json.dumps(bad), json.dumps(bad)[:-9])
    assert len(refused) == 2
    assert "secret" not in json.dumps(refused)


def test_an_unknown_source_names_the_known_ones(workspace: Paths) -> None:
    with pytest.raises(BadInputError, match=r"nowhere.*craftmd"):
        list(ingest(_params(workspace, "nowhere"), workspace))


def test_a_missing_and_a_corrupt_file_are_named(workspace: Paths) -> None:
    with pytest.raises(BadInputError, match="craftmd"):
        list(ingest(_params(workspace, "craftmd"), workspace))
    medrbench, orphanet = workspace.data / "medrbench", workspace.data / "orphanet"
    medrbench.mkdir()
    orphanet.mkdir()
    (orphanet / "linearisation_of_rare_diseases.csv.gz").write_bytes(gzip.compress(b""))
    whole = gzip.compress(b'{"PMC1": {}}' * 100)
    name = "diagnosis_957_cases_with_rare_disease_491.json.gz"
    (medrbench / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInputError, match=name):
        list(ingest(_params(workspace, "medrbench"), workspace))


def test_a_file_without_a_good_row_is_an_error(workspace: Paths) -> None:
    (workspace.data / "table/cases.jsonl").write_text("not json\n", encoding="utf-8")
    with pytest.raises(BadInputError, match="table"):
        list(ingest(_params(workspace, "table"), workspace))


def test_the_command_prints_one_line_and_fails(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "rarealert"), "data", "import", "craftmd", "gone"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "gone" in done.stderr
