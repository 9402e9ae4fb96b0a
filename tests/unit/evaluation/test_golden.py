"""Our figures against R's pROC 1.18.0 and rms 6.5.0 (golden/golden.R), and against MLstatkit."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from MLstatkit import Delong_test

from rarealert.evaluation import calibration, discrimination
from rarealert.evaluation import discrimination as decision
from rarealert.evaluation.intervals import delong

FOLDER = Path(__file__).parent / "golden"
GOLDEN = json.loads((FOLDER / "golden.json").read_text())


@pytest.fixture(scope="module")
def data():
    with (FOLDER / "golden.csv").open() as file:
        rows = list(csv.DictReader(file))
    return tuple(np.array([float(row[name]) for row in rows]) for name in rows[0])


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("auroc", discrimination.auroc),
        ("brier", calibration.brier),
        ("calibration_slope", calibration.calibration_slope),
        ("val_prob_slope", calibration.calibration_slope),
        ("calibration_intercept", calibration.calibration_intercept),
        ("ici", calibration.ici),
        ("net_benefit_at_5pct", lambda y, p: decision.net_benefit(y, p, 0.05)),
        (
            "sensitivity_at_95_specificity",
            lambda y, p: discrimination.sensitivity_at_specificity(y, p, 0.95),
        ),
    ],
)
def test_agrees_with_r(data, name, own):
    labels, first, _ = data
    assert own(labels, first) == pytest.approx(GOLDEN[name], abs=1e-7)


def test_ici_is_near_the_one_of_another_smoother(data):
    # val.prob smooths by lowess, we by a spline: Austin and Steyerberg compare both
    labels, first, _ = data
    assert calibration.ici(labels, first) == pytest.approx(GOLDEN["val_prob_eavg"], abs=0.01)


def test_delong_agrees_with_proc(data):
    labels, first, second = data
    found = delong(labels, first, second)
    assert found.difference == pytest.approx(GOLDEN["auroc"] - GOLDEN["auroc_second"], abs=1e-9)
    assert found.p_value == pytest.approx(GOLDEN["delong_p"], rel=1e-6)
    # a constant rival has no variance of its own, so the difference's is the model's
    alone = delong(labels, first, np.full(labels.size, 0.5))
    assert alone.standard_error**2 == pytest.approx(GOLDEN["delong_variance"], rel=1e-6)


@pytest.mark.parametrize("digits", [1, 3])
def test_delong_agrees_with_mlstatkit_with_and_without_ties(data, digits):
    labels, first, second = data
    first, second = np.round(first, digits), np.round(second, digits)
    z_score, p_value, *_ = Delong_test(labels.astype(int), first, second)
    found = delong(labels, first, second)
    assert found.p_value == pytest.approx(p_value, rel=1e-6)
    assert abs(found.difference / found.standard_error) == pytest.approx(abs(z_score), rel=1e-6)
