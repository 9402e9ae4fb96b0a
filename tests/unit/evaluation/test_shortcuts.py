"""Each control sees its own aspect of the visit and nothing else."""

import numpy as np
import pandas as pd
import pytest

from rarealert.errors import BadInputError
from rarealert.evaluation.controls import CONTROLS, fit_controls
from rarealert.evaluation.discrimination import auroc


def frame(leak, seed, n=300):
    """A frame in which only the aspect ``leak`` tells the label."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    told = {name: labels if name == leak else rng.integers(0, 2, n) for name in CONTROLS}
    words = np.where(told["tfidf"] == 1, "wolf", "lamb")
    length = np.where(told["length"] == 1, 40, 20) + rng.integers(0, 5, n)
    if leak != "length":
        length = rng.integers(20, 45, n)
    marks = np.where(told["punctuation"] == 1, " [**,", "")
    text = [" ".join([word, *["note"] * k]) for word, k in zip(words, length, strict=True)]
    text = [line + mark for line, mark in zip(text, marks, strict=True)]
    return labels, pd.DataFrame(
        {
            "source": np.where(told["source"] == 1, "a", "b"),
            "text": text,
            "age_years": np.where(told["demographics"] == 1, 70.0, np.nan),
            "sex": pd.Series(np.where(rng.random(n) < 0.5, "female", None), dtype=object),
            "missing_vitals": told["missingness"] == 1,
        }
    )


@pytest.mark.parametrize("leak", CONTROLS)
def test_a_control_finds_its_own_leak_and_no_other(leak):
    labels, train = frame(leak, 1)
    truth, target = frame(leak, 2)
    fitted = fit_controls(train, labels, seed=0)
    reached = {name: auroc(truth, control.predict(target)) for name, control in fitted.items()}
    assert reached.pop(leak) > 0.95
    others = {name: value for name, value in reached.items() if {leak, name} != {"length", "tfidf"}}
    assert all(0.35 < value < 0.65 for value in others.values()), others


def test_unseen_values_and_empty_frames_are_predicted():
    labels, train = frame("source", 1)
    fitted = fit_controls(train, labels, seed=0)
    foreign = train.head(3).assign(source="never seen", text="unknown words", age_years=np.nan)
    for control in fitted.values():
        assert ((control.predict(foreign) >= 0) & (control.predict(foreign) <= 1)).all()
        assert control.predict(train.head(0)).shape == (0,)


def test_missing_columns_and_one_label_are_refused():
    labels, train = frame("source", 1)
    with pytest.raises(BadInputError, match="age_years"):
        fit_controls(train.drop(columns="age_years"), labels, seed=0)
    with pytest.raises(BadInputError, match="missing_<field>"):
        fit_controls(train.drop(columns="missing_vitals"), labels, seed=0)
    with pytest.raises(BadInputError, match="one label only"):
        fit_controls(train, np.ones(len(train)), seed=0)
