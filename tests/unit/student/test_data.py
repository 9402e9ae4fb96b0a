"""Training data: targets must be out-of-fold, and held-out diseases come from split's file."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rarealert.errors import BadInputError
from rarealert.student.data import read_held_out, read_targets, subset, with_targets


def write(file: Path, rows: list[dict[str, object]]) -> Path:
    names = ("case_id", "part", "fold", "risk")
    types = (pa.string(), pa.string(), pa.int64(), pa.float64())
    schema = pa.schema(list(zip(names, types, strict=True)))
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)
    return file


def test_targets_of_one_part(tmp_path: Path) -> None:
    rows = [
        {"case_id": "a", "part": "train", "fold": 0, "risk": 0.25},
        {"case_id": "b", "part": "valid", "fold": None, "risk": 0.5},
    ]
    file = write(tmp_path / "risk.parquet", rows)
    assert read_targets(file, "train") == {"a": 0.25}
    assert read_targets(file, "valid") == {"b": 0.5}


def test_an_in_fold_target_is_refused_with_its_row(tmp_path: Path) -> None:
    rows = [{"case_id": "a", "part": "train", "fold": None, "risk": 0.25}]
    with pytest.raises(BadInputError, match="row 0: fold"):
        read_targets(write(tmp_path / "risk.parquet", rows), "train")


@pytest.mark.parametrize("content", [None, b"nonsense"])
@pytest.mark.parametrize(
    ("name", "read", "stage"),
    [
        ("risk.parquet", lambda file: read_targets(file, "train"), "align"),
        ("held_out.json", read_held_out, "split"),
    ],
)
def test_a_missing_or_damaged_input_names_the_stage(tmp_path, content, name, read, stage) -> None:
    if content:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInputError, match=rf"{name} .*run dvc repro {stage}"):
        read(tmp_path / name)


def test_held_out_diseases_are_those_of_both_parts(tmp_path: Path) -> None:
    file = tmp_path / "held_out.json"
    file.write_text(json.dumps({"valid": ["ORPHA:1"], "test": ["NAME:flu"]}))
    assert read_held_out(file) == {"ORPHA:1", "NAME:flu"}


def test_a_subset_keeps_the_share_of_labels_and_the_seed(cases) -> None:
    chosen = subset(cases, 20, 3)
    assert len(chosen) == 20
    assert sum(item.is_rare for item in chosen) == 10
    assert chosen == subset(cases, 20, 3)
    assert chosen != subset(cases, 20, 4)
    assert subset(cases, 1000, 3) == cases


def test_cases_without_a_target_are_not_learnt_and_none_at_all_is_refused(cases, targets) -> None:
    kept = dict(list(targets.items())[2:])
    assert with_targets(cases, kept) == cases[2:]
    with pytest.raises(BadInputError, match="run dvc repro align"):
        with_targets(cases, {})
