"""Answers become arrays, and the arrays can be changed as robustness needs."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarealert.ensemble.features import build_features
from rarealert.ensemble.signals import rarity_of, read_signals, signals_of
from rarealert.errors import BadInputError
from rarealert.teachers.teacher_answer import AnswerRow, graded_risk, write_answers


def test_a_file_of_answers_is_read_as_the_answers_are(answer, tmp_path: Path) -> None:
    answers = [
        answer("c", "a", 20, [("Fabry disease", "ORPHA:324")], (0.7, 0.3)),
        answer("d", "b", 80),
        AnswerRow(case_id="c", teacher="b", status="failed", answer=None),
        answer("not asked for", "a"),
    ]
    write_answers(tmp_path / "answers.parquet", answers)
    read = read_signals(tmp_path / "answers.parquet", ["c", "d", "nobody answered"])
    direct = signals_of(answers[:3])
    assert read.case_ids == direct.case_ids == ("c", "d")
    for name in ("risk", "orphanet", "systems", "attention"):
        assert np.array_equal(getattr(read, name), getattr(direct, name), equal_nan=True)


def test_another_or_missing_file_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    for name in ("x", "y"):
        with pytest.raises(BadInputError, match=rf"{name}\.parquet"):
            read_signals(tmp_path / f"{name}.parquet", ["c"])


def test_removing_and_permuting_change_one_teacher_and_nothing_else(answer) -> None:
    signals = signals_of([answer(f"c{n}", name, 10 * n) for name in "ab" for n in range(3)])
    without = signals.without_teacher("a")
    assert np.isnan(without.risk[:, 0]).all()
    permuted = signals.permuted("a", np.asarray([1, 2, 0]))
    assert permuted.risk[:, 0].tolist() == [0.1, 0.2, 0.0]
    for changed in (without, permuted):
        assert np.array_equal(changed.risk[:, 1], signals.risk[:, 1])


@given(st.integers(0, 100), st.integers(0, 100), st.floats(0, 100), st.floats(0, 100))
def test_graded_risks_keep_the_order_of_stated_ones(
    one: int, other: int, expected: float, unlike: float
) -> None:
    first, second = graded_risk(one, expected), graded_risk(other, unlike)
    assert 0 <= first <= 1
    if one < other:
        assert first < second
        assert first < graded_risk(other, None)


def test_names_that_no_table_holds_read_rare_or_common_however_they_are_spelt() -> None:
    rare = [
        "Progressive spastic ataxia with deafness, infantile form",
        "Osteochondrodysplasia type 9",
    ]
    common = ["Chronic bacterial sinus infection", "Alcohol use disorder, mild"]
    found = rarity_of([*rare, *common])
    assert found[:2].min() > 0.5
    assert found[2:].max() < -0.5
    alone = rarity_of(["Tumour of the small bowel"])
    assert rarity_of(["Fabry disease", "TUMOR of the small bowels"])[1] == pytest.approx(alone[0])
    assert rarity_of([]).shape == (0,)


def test_the_rarity_of_a_name_is_at_the_place_of_the_name(answer) -> None:
    fabry, influenza = ("Fabry disease", None), ("Influenza", None)
    answers = [answer("c", "a", 50, (fabry, influenza)), answer("c", "b", 50, (influenza,))]
    answers.append(answer("d", "b"))
    signals = signals_of(answers)
    of_fabry, of_influenza = rarity_of(["Fabry disease", "Influenza"])
    assert signals.rarity[0, 0, :2] == pytest.approx([of_fabry, of_influenza])
    assert signals.rarity[0, 1, 0] == pytest.approx(of_influenza)
    assert np.isnan(signals.rarity[1]).all()
    assert np.allclose(signals_of(answers[::-1]).rarity, signals.rarity, equal_nan=True)
    features = build_features(signals, (("a", "b"),))
    column = features.values[:, features.names.index("differential:rarity_of_names")]
    assert column[0] == pytest.approx(((of_fabry + of_influenza / 2) / 1.5 + of_influenza) / 2)
    assert np.isnan(column[1])
