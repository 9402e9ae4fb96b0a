"""A name's rarity is read from the name alone, and lands where the name stood."""

import numpy as np
import pytest

from rarealert.ensemble.features import build_features
from rarealert.ensemble.signals import panel_of, rarity_of
from rarealert.teachers.answer import AnswerRow, Differential, TeacherAnswer


def _said(case: str, teacher: str, *names: str) -> AnswerRow:
    differential = tuple(Differential(name=name) for name in names)
    answer = TeacherAnswer(insights=(), differential=differential, risk=50, explanation="because")
    return AnswerRow(case_id=case, teacher=teacher, status="ok", answer=answer)


def test_names_that_no_table_holds_read_rare_or_common() -> None:
    rare = [
        "Progressive spastic ataxia with deafness, infantile form",
        "Osteochondrodysplasia type 9",
    ]
    common = ["Chronic bacterial sinus infection", "Alcohol use disorder, mild"]
    found = rarity_of([*rare, *common])
    assert found[:2].min() > 0.5
    assert found[2:].max() < -0.5


def test_neither_spelling_nor_company_matters() -> None:
    alone = rarity_of(["Tumour of the small bowel"])
    assert rarity_of(["Fabry disease", "TUMOR of the small bowels"])[1] == pytest.approx(alone[0])
    assert rarity_of([]).shape == (0,)


def test_names_keep_their_places_whatever_the_order_of_answers() -> None:
    answers = [
        _said("c", "a", "Fabry disease", "Influenza"),
        _said("c", "b", "Influenza"),
        _said("d", "b"),
    ]
    panel = panel_of(answers)
    fabry, influenza = rarity_of(["Fabry disease", "Influenza"])
    assert panel.rarity[0, 0, :2] == pytest.approx([fabry, influenza])
    assert panel.rarity[0, 1, 0] == pytest.approx(influenza)
    assert np.isnan(panel.rarity[1]).all()
    assert np.isnan(panel.rarity[0, :, 2:]).all()
    assert np.allclose(panel_of(answers[::-1]).rarity, panel.rarity, equal_nan=True)
    features = build_features(panel, (("a", "b"),))
    column = features.values[:, features.names.index("differential:rarity_of_names")]
    of_first = (fabry + influenza / 2) / 1.5
    assert column[0] == pytest.approx((of_first + influenza) / 2)
    assert np.isnan(column[1])
