"""Metrics against scikit-learn, R, hand-computed values and their own laws."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from MLstatkit import Delong_test
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression

from rarealert.errors import BadInputError
from rarealert.evaluation.intervals import delong
from rarealert.evaluation.metrics import (
    METRICS,
    RiskCounts,
    UndefinedMetricError,
    auroc,
    measure,
    net_benefit_of,
    roc_points,
    sensitivity_of,
    specificity_of,
    threshold_at_sensitivity,
    threshold_at_specificity,
)

FOLDER = Path(__file__).parent / "golden"
GOLDEN = json.loads((FOLDER / "golden.json").read_text())  # golden.R: pROC 1.18.0, rms 6.5.0
HAND = ([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])


def sample(n=400, seed=0, digits=2):
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.4).astype(float)
    return labels, np.round(0.3 * labels + 0.7 * rng.random(n), digits)


@pytest.fixture(scope="module")
def golden():
    with (FOLDER / "golden.csv").open() as file:
        rows = list(csv.DictReader(file))
    return tuple(np.array([float(row[name]) for row in rows]) for name in rows[0])


samples = (
    st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=4, max_size=40)
    .filter(lambda rows: 0 < sum(label for label, _ in rows) < len(rows))
    .map(lambda rows: np.array(rows, dtype=float) / (1, 20))
)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("auroc", sk.roc_auc_score),
        ("auprc", sk.average_precision_score),
        ("brier", sk.brier_score_loss),
        ("log_loss", sk.log_loss),
    ],
)
@pytest.mark.parametrize("digits", [1, 2, 8])
def test_agrees_with_scikit_learn_with_and_without_ties(name, other, digits):
    labels, risks = sample(digits=digits)
    assert measure(name, labels, risks) == pytest.approx(other(labels, risks), abs=1e-12)


@pytest.mark.parametrize(
    ("name", "in_r"),
    [
        *((name, name) for name in ("auroc", "brier", "calibration_slope", "ici")),
        *((name, name) for name in ("calibration_intercept", "net_benefit_at_5pct")),
        ("calibration_slope", "val_prob_slope"),
    ],
)
def test_agrees_with_r(golden, name, in_r):
    labels, risks, _ = golden
    assert measure(name, labels, risks) == pytest.approx(GOLDEN[in_r], abs=1e-7)


def test_sensitivity_at_a_specificity_agrees_with_r(golden):
    labels, risks, _ = golden
    at = threshold_at_specificity(labels, risks, 0.95)
    found = sensitivity_of(RiskCounts.of(labels, risks), at)
    assert found == pytest.approx(GOLDEN["sensitivity_at_95_specificity"], abs=1e-7)


def test_ici_is_near_the_one_of_another_smoother(golden):
    # val.prob smooths by lowess, ours by a spline: Austin and Steyerberg compare both
    labels, risks, _ = golden
    assert measure("ici", labels, risks) == pytest.approx(GOLDEN["val_prob_eavg"], abs=0.01)


def test_delong_agrees_with_proc(golden):
    labels, first, second = golden
    found = delong(labels, first, second)
    assert found.difference == pytest.approx(GOLDEN["auroc"] - GOLDEN["auroc_second"], abs=1e-9)
    assert found.p_value == pytest.approx(GOLDEN["delong_p"], rel=1e-6)
    # a constant rival has no variance of its own, so the difference's is the model's
    alone = delong(labels, first, np.full(labels.size, 0.5))
    assert alone.standard_error**2 == pytest.approx(GOLDEN["delong_variance"], rel=1e-6)
    assert delong(labels, first, first).p_value == 1


@pytest.mark.parametrize("digits", [1, 3])
def test_delong_agrees_with_mlstatkit_with_and_without_ties(golden, digits):
    labels, first, second = golden
    first, second = np.round(first, digits), np.round(second, digits)
    z_score, p_value, *_ = Delong_test(labels.astype(int), first, second)
    found = delong(labels, first, second)
    assert found.p_value == pytest.approx(p_value, rel=1e-6)
    assert abs(found.difference / found.standard_error) == pytest.approx(abs(z_score), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("auroc", 0.75),
        ("auprc", 0.5 + 0.5 * 2 / 3),
        ("brier", 0.158125),
        ("observed_to_expected", 2 / 1.65),
        ("ece", 1.35 / 4),  # bins 0.1, 0.3, 0.4, 0.8 hold one case each: gaps 0.1, 0.65, 0.4, 0.2
    ],
)
def test_hand_computed_values(name, expected):
    assert measure(name, *HAND) == pytest.approx(expected)


def test_hand_computed_net_benefit():
    # at 0.3: two true positives, one false positive, odds 3/7
    assert net_benefit_of(RiskCounts.of(*HAND), 0.3) == pytest.approx((2 - 3 / 7) / 4)


def test_calibration_slope_and_intercept_are_logistic_fits():
    labels, risks = sample()
    risks = np.clip(risks, 0.01, 0.99)
    logit = np.log(risks / (1 - risks))
    fit = LogisticRegression(C=1e10, tol=1e-10, max_iter=1000).fit(logit[:, None], labels)
    slope = measure("calibration_slope", labels, risks)
    assert slope == pytest.approx(fit.coef_[0, 0], abs=1e-4)
    shifted = logit + measure("calibration_intercept", labels, risks)
    assert (1 / (1 + np.exp(-shifted))).mean() == pytest.approx(labels.mean(), abs=1e-9)


def test_calibrated_risks_measure_as_calibrated():
    rng = np.random.default_rng(4)
    risks = rng.beta(1, 2, 50_000)
    labels = rng.random(risks.size) < risks
    assert measure("calibration_slope", labels, risks) == pytest.approx(1, abs=0.04)
    assert measure("calibration_intercept", labels, risks) == pytest.approx(0, abs=0.04)
    assert max(measure(name, labels, risks) for name in ("ece", "ici")) < 0.01
    assert measure("ici", labels, risks**2) > 0.1


@given(samples)
@settings(max_examples=60)
def test_auroc_ignores_a_monotone_map_and_turns_with_its_sign(rows):
    labels, risks = rows.T
    value = auroc(labels, risks)
    assert auroc(labels, risks**3 / 2) == pytest.approx(value)
    assert auroc(labels, 1 - risks) == pytest.approx(1 - value)
    fpr, tpr = roc_points(labels, risks)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(tpr, fpr) == pytest.approx(value)


@given(samples, st.data())
@settings(max_examples=60)
def test_weights_count_as_repeated_cases(rows, data):
    times = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows))))
    labels, risks = np.repeat(rows, times, axis=0).T
    if np.unique(labels).size < 2:
        return
    repeated = RiskCounts.of(labels, risks)
    distinct, place = np.unique(rows[:, 1], return_inverse=True)
    rare, nonrare = (
        np.bincount(place, times * (rows[:, 0] == label), distinct.size)[None] for label in (1, 0)
    )
    weighted = RiskCounts(distinct, rare, nonrare)
    for name, metric in METRICS.items():
        if name == "ici":  # its knots are placed on the whole sample
            continue
        assert metric(weighted)[0] == pytest.approx(metric(repeated)[0], abs=1e-6, nan_ok=True)


@given(samples, st.sampled_from([0.5, 0.8, 0.95, 1.0]))
@settings(max_examples=60)
def test_a_chosen_threshold_reaches_its_target_and_no_other_does_better(rows, target):
    counts = RiskCounts.of(*rows.T)
    at = threshold_at_specificity(*rows.T, target)
    assert specificity_of(counts, at) >= target - 1e-9
    reached = [other for other in [*counts.risk, 2.0] if specificity_of(counts, other) >= target]
    assert sensitivity_of(counts, at) == max(sensitivity_of(counts, other) for other in reached)
    assert sensitivity_of(counts, threshold_at_sensitivity(*rows.T, target)) >= target - 1e-9


@pytest.mark.parametrize(
    ("labels", "risks"),
    [([0, 1], [0.1, np.nan]), ([0, 1], [10, 90]), ([0, 2], [0.1, 0.2]), ([0, 1], [0.1]), ([], [])],
)
def test_malformed_input_is_refused(labels, risks):
    with pytest.raises(BadInputError):
        auroc(labels, risks)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("name", ["auroc", "auprc", "calibration_slope"])
def test_one_class_does_not_define_a_metric(name, label):
    with pytest.raises(UndefinedMetricError):
        measure(name, [label] * 3, [0.1, 0.2, 0.3])


@pytest.mark.parametrize("risks", [[0.1, 0.2, 0.8, 0.9], [0.3] * 4, [0.9, 0.8, 0.2, 0.1]])
def test_no_slope_where_risks_separate_the_labels_or_do_not_differ(risks):
    with pytest.raises(UndefinedMetricError):
        measure("calibration_slope", [0, 0, 1, 1], risks)
