"""Texts of simulated visits: as varied as real ones, and alike for both labels."""

import re
from functools import cache

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from rarealert.evaluation.shortcut_audit import LIMIT
from rarealert.knowledge.hpo import load_ontology
from rarealert.params import SimulatedParams
from rarealert.simulation.corpus import simulate
from rarealert.simulation.phrases import load_chronic_conditions, load_sentences
from rarealert.visits.case import TEXT_FIELDS, Case, LabelledCase
from rarealert.visits.reading import read_visit

REGISTERS = {
    "note": r"c/o|\bPMHx?\b|\bO/E\b|\bDHx?\b|\bFHx?\b|\d/52|\d/7\b|\bNAD\b",
    "own words": r"\b(?:I|I've|[Mm]y|[Ww]e)\b",
    "clinician's sentences": r"\b(?:He|She|The patient)\b",
}


@cache
def _cases() -> tuple[LabelledCase, ...]:
    return tuple(simulate(SimulatedParams(seed=5, rare_cases=700, nonrare_cases=700)))


def _text(case: Case) -> str:
    return " ".join(text for name in TEXT_FIELDS if (text := getattr(case, name)))


def _aspects(case: Case) -> dict[str, float]:
    """What of a visit contains no medicine, as numbers."""
    text = _text(case)
    return {
        "words": len(text.split()),
        "findings": len(case.findings_present or ()),
        "absent": len(case.findings_excluded or ()),
        "sentences": text.count("."),
        "letters a word": len(text) / len(text.split()),
        "age": case.age_years or 0,
        **{name: getattr(case, name) is not None for name in TEXT_FIELDS},
        **{name: len(re.findall(marks, text)) > 0 for name, marks in REGISTERS.items()},
    }


def test_no_aspect_of_writing_reveals_the_label() -> None:
    rare = np.array([item.label.label == "rare" for item in _cases()])
    rows = [_aspects(item.case) for item in _cases()]
    for name in rows[0]:
        reached = roc_auc_score(rare, [row[name] for row in rows])
        assert 1 - LIMIT < reached < LIMIT, name
    table = np.array([list(row.values()) for row in rows], float)
    model = make_pipeline(StandardScaler(), LogisticRegression())
    together = cross_val_predict(model, table, rare, cv=5, method="predict_proba")[:, 1]
    assert roc_auc_score(rare, together) < LIMIT


@pytest.mark.parametrize("register", REGISTERS)
def test_each_register_is_used_for_both_labels(register: str) -> None:
    for label in ("rare", "nonrare"):
        texts = [_text(item.case) for item in _cases() if item.label.label == label]
        share = np.mean([bool(re.search(REGISTERS[register], text)) for text in texts])
        assert 0.2 < share < 0.75


def test_lengths_and_fields_vary_as_in_real_visits() -> None:
    words = [len(_text(item.case).split()) for item in _cases()]
    assert min(words) < 30
    assert 60 < np.median(words) < 130
    assert 200 < max(words) <= 450
    told = {tuple(name for name in TEXT_FIELDS if getattr(x.case, name)) for x in _cases()}
    assert ("history_of_present_illness",) in told
    assert tuple(TEXT_FIELDS) in told


def test_some_visits_of_each_label_have_no_finding() -> None:
    for label in ("rare", "nonrare"):
        mine = [item.case for item in _cases() if item.label.label == label]
        empty = sum(not case.findings_present for case in mine)
        assert 0 < empty < 0.06 * len(mine)


def test_plain_sentences_contain_no_finding() -> None:
    for (_, slot), sentences in load_sentences().items():
        for sentence in sentences:
            if re.search(r"\{(?:f|c|m)\}", sentence.text) or slot == "exam_lead":
                continue
            text = re.sub(r"\{\w+\}", "he", sentence.text)
            reading = read_visit(Case(case_id="a", source="a", chief_complaint=text))
            assert not reading.findings, (slot, text)


@pytest.mark.parametrize("age", [0.1, 2, 9, 15, 30, 80])
def test_every_register_has_words_for_every_age(age: float) -> None:
    for (register, slot), sentences in load_sentences().items():
        fits = age < 13 if register == "parent" else age >= 13 or register != "patient"
        grown = slot == "social_child" if age >= 18 else slot == "social_adult"
        if fits and not grown and slot not in ("past", "chronic_none"):
            assert any(s.age_min <= age <= s.age_max for s in sentences), (register, slot)


def test_chronic_conditions_have_the_names_of_their_ids() -> None:
    from rarealert.knowledge import packaged_rows

    rows = packaged_rows("chronic_conditions.tsv", "rarealert.simulation")
    assert len(rows) == len(load_chronic_conditions())
    assert all(load_ontology().name(row["hpo_id"]) == row["hpo_name"] for row in rows)
    barred = {row for item in _cases() for row in item.case.findings_excluded or ()}
    assert barred <= load_ontology().terms.keys()
