"""Examples: targets must be out-of-fold, rationales come only where the teachers are right."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rarealert.errors import BadInputError
from rarealert.student import examples as lessons
from rarealert.student.activations import Example
from rarealert.student.encoding import Prompt
from rarealert.student.examples import (
    choose_rationales,
    digest_of,
    digest_of_examples,
    make_lessons,
    read_targets,
    subset,
    with_targets,
)
from rarealert.visits.reading import Reading


def write(file: Path, rows: list[dict[str, object]]) -> Path:
    names = ("case_id", "part", "fold", "risk")
    types = (pa.string(), pa.string(), pa.int64(), pa.float64())
    schema = pa.schema(list(zip(names, types, strict=True)))
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)
    return file


def test_targets_of_one_part(tmp_path: Path) -> None:
    file = write(
        tmp_path / "risk.parquet",
        [
            {"case_id": "a", "part": "train", "fold": 0, "risk": 0.25},
            {"case_id": "b", "part": "valid", "fold": None, "risk": 0.5},
        ],
    )
    assert read_targets(file, "train") == {"a": 0.25}
    assert read_targets(file, "valid") == {"b": 0.5}


def test_an_in_fold_target_is_refused(tmp_path: Path) -> None:
    rows = [{"case_id": "a", "part": "train", "fold": None, "risk": 0.25}]
    file = write(tmp_path / "risk.parquet", rows)
    with pytest.raises(BadInputError, match="row 0: fold is empty"):
        read_targets(file, "train")


def test_missing_and_damaged_targets_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="is missing; run dvc repro align"):
        read_targets(tmp_path / "none.parquet", "train")
    (tmp_path / "bad.parquet").write_bytes(b"nonsense")
    with pytest.raises(BadInputError, match="is not a file of aligned risks"):
        read_targets(tmp_path / "bad.parquet", "train")


def test_rationales_are_taken_only_where_the_ensemble_is_right(cases) -> None:
    wrong = {item.case.case_id: 0.1 if item.label.label == "rare" else 0.9 for item in cases}
    assert choose_rationales(cases, wrong, {}, 64, 1) == {}
    right = {key: 1 - value for key, value in wrong.items()}
    assert len(choose_rationales(cases, right, {}, 16, 1)) == 16


def test_a_subset_keeps_the_share_of_labels_and_the_seed(cases) -> None:
    chosen = subset(cases, 20, 3)
    assert len(chosen) == 20
    assert sum(item.label.label == "rare" for item in chosen) == 10
    assert chosen == subset(cases, 20, 3)
    assert chosen != subset(cases, 20, 4)
    assert subset(cases, 1000, 3) == cases


def test_what_no_teacher_answered_is_not_learnt_and_judged_by_its_label(cases) -> None:
    targets = {item.case.case_id: 0.4 for item in cases[2:]}
    assert with_targets(cases, targets) == cases[2:]
    judged = make_lessons(cases, targets, Plain())
    rare = [float(item.label.label == "rare") for item in cases[:2]]
    assert judged.target.tolist() == [*rare, *[0.4] * (len(cases) - 2)]
    with pytest.raises(BadInputError, match="gave no training case a risk; run dvc repro align"):
        with_targets(cases, {})


class Plain:
    """Stands for the encoder: every visit is the same three tokens."""

    def prompt(self, reading: Reading) -> Prompt:
        return Prompt((1, 2, 3), False, reading, ())


def test_a_digest_follows_its_parts() -> None:
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})


def learnt(**changes: object) -> list[Example]:
    told = Example("a", (1, 2, 3), (4,), True, 0.75, (1,))
    return [replace(told, **changes)]


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": (1, 2, 4)},
        {"denied": ()},
        {"rationale": (5,)},
        {"target": 0.76},
        {"rare": False},
        {"given": 1},
    ],
)
def test_examples_read_in_another_way_have_another_digest(change: dict[str, object]) -> None:
    assert digest_of_examples(learnt()) == digest_of_examples(learnt())
    assert digest_of_examples(learnt()) != digest_of_examples(learnt(**change))


@pytest.mark.parametrize("decides", ["ENCODING_VERSION", "GENERATOR_VERSION"])
def test_a_new_version_starts_afresh(monkeypatch: pytest.MonkeyPatch, decides: str) -> None:
    before = digest_of_examples(learnt())
    monkeypatch.setattr(lessons, decides, "another")
    assert digest_of_examples(learnt()) != before
