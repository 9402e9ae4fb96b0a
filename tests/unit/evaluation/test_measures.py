"""Metrics against scikit-learn, hand-computed values and their own laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression

from rarealert.errors import BadInputError
from rarealert.evaluation import calibration, discrimination
from rarealert.evaluation import discrimination as decision
from rarealert.evaluation.discrimination import Ranking, UndefinedMetricError
from rarealert.evaluation.measures import METRICS

HAND_LABELS = [0, 0, 1, 1]
HAND_RISKS = [0.1, 0.4, 0.35, 0.8]


def sample(n=400, seed=0, digits=2):
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.4).astype(float)
    return labels, np.round(0.3 * labels + 0.7 * rng.random(n), digits)


samples = st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=4, max_size=40).filter(
    lambda rows: 0 < sum(label for label, _ in rows) < len(rows)
)


@pytest.mark.parametrize(
    ("own", "other"),
    [
        (discrimination.auroc, sk.roc_auc_score),
        (discrimination.auprc, sk.average_precision_score),
        (calibration.brier, sk.brier_score_loss),
        (calibration.log_loss, sk.log_loss),
    ],
)
@pytest.mark.parametrize("digits", [1, 2, 8])
def test_agrees_with_scikit_learn_with_and_without_ties(own, other, digits):
    labels, risks = sample(digits=digits)
    assert own(labels, risks) == pytest.approx(other(labels, risks), abs=1e-12)


def test_hand_computed_values():
    assert discrimination.auroc(HAND_LABELS, HAND_RISKS) == 0.75
    assert discrimination.auprc(HAND_LABELS, HAND_RISKS) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert calibration.brier(HAND_LABELS, HAND_RISKS) == pytest.approx(0.158125)
    assert calibration.observed_to_expected(HAND_LABELS, HAND_RISKS) == pytest.approx(2 / 1.65)
    # bins 0.1, 0.3, 0.4, 0.8 hold one case each: gaps 0.1, 0.65, 0.4, 0.2
    assert calibration.ece(HAND_LABELS, HAND_RISKS) == pytest.approx(1.35 / 4)
    # at 0.3: two true positives, one false positive, odds 3/7
    assert decision.net_benefit(HAND_LABELS, HAND_RISKS, 0.3) == pytest.approx((2 - 3 / 7) / 4)
    assert decision.net_benefit_of_all(HAND_LABELS, 0.3) == pytest.approx(0.5 - 0.5 * 3 / 7)


def test_calibration_slope_is_the_unpenalised_logistic_fit():
    labels, risks = sample()
    risks = np.clip(risks, 0.01, 0.99)
    logit = np.log(risks / (1 - risks))[:, None]
    fit = LogisticRegression(C=1e10, tol=1e-10, max_iter=1000).fit(logit, labels)
    assert calibration.calibration_slope(labels, risks) == pytest.approx(fit.coef_[0, 0], abs=1e-4)


def test_intercept_makes_the_risks_right_on_average():
    labels, risks = sample()
    risks = np.clip(risks, 0.01, 0.99)
    shift = calibration.calibration_intercept(labels, risks)
    logit = np.log(risks / (1 - risks)) + shift
    assert (1 / (1 + np.exp(-logit))).mean() == pytest.approx(labels.mean(), abs=1e-9)


def test_calibrated_risks_measure_as_calibrated():
    rng = np.random.default_rng(4)
    risks = rng.beta(1, 2, 50_000)
    labels = rng.random(risks.size) < risks
    assert calibration.calibration_slope(labels, risks) == pytest.approx(1, abs=0.04)
    assert calibration.calibration_intercept(labels, risks) == pytest.approx(0, abs=0.04)
    assert calibration.ece(labels, risks) < 0.01
    assert calibration.ici(labels, risks) < 0.01
    off = risks**2
    assert calibration.ici(labels, off) > 0.1


@given(samples)
@settings(deadline=None, max_examples=60)
def test_auroc_ignores_a_monotone_map_and_turns_with_its_sign(rows):
    labels = np.array([label for label, _ in rows], dtype=float)
    risks = np.array([rank for _, rank in rows]) / 20
    value = discrimination.auroc(labels, risks)
    assert discrimination.auroc(labels, risks**3 / 2) == pytest.approx(value)
    assert discrimination.auroc(labels, 1 - risks) == pytest.approx(1 - value)
    assert 0 <= value <= 1


@given(samples, st.data())
@settings(deadline=None, max_examples=60)
def test_weights_count_as_repeated_cases(rows, data):
    labels = np.array([label for label, _ in rows], dtype=float)
    risks = np.array([rank for _, rank in rows]) / 20
    times = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows))))
    kept = np.repeat(labels, times)
    if np.unique(kept).size < 2:
        return
    weighted = Ranking(labels, risks).count(times[None, :])
    repeated = Ranking(kept, np.repeat(risks, times)).count()
    for name, metric in METRICS.items():
        if name == "ici":  # its knots are placed on the whole sample
            continue
        assert metric(weighted)[0] == pytest.approx(metric(repeated)[0], abs=1e-6, nan_ok=True)


@given(samples, st.sampled_from([0.5, 0.8, 0.95, 1.0]))
@settings(deadline=None, max_examples=60)
def test_a_chosen_threshold_keeps_its_promise(rows, target):
    labels = np.array([label for label, _ in rows], dtype=float)
    risks = np.array([rank for _, rank in rows]) / 20
    at = discrimination.threshold_at_specificity(labels, risks, target)
    assert discrimination.specificity(labels, risks, at) >= target - 1e-9
    best = max(
        discrimination.sensitivity(labels, risks, other)
        for other in [*risks, 2.0]
        if discrimination.specificity(labels, risks, other) >= target - 1e-9
    )
    assert discrimination.sensitivity_at_specificity(labels, risks, target) == best
    at = discrimination.threshold_at_sensitivity(labels, risks, target)
    assert discrimination.sensitivity(labels, risks, at) >= target - 1e-9


@pytest.mark.parametrize(
    ("labels", "risks", "says"),
    [
        ([0, 1], [0.1, float("nan")], "1 risks are NaN"),
        ([0, 1], [10, 90], "outside 0-1"),
        ([0, 2], [0.1, 0.2], "neither 0 nor 1"),
        ([0, 1], [0.1], "one risk per label"),
        ([], [], "no predictions"),
    ],
)
def test_malformed_input_is_refused_in_a_sentence(labels, risks, says):
    with pytest.raises(BadInputError, match=says):
        discrimination.auroc(labels, risks)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_defines_no_auroc_slope_or_precision(label):
    for metric in (discrimination.auroc, discrimination.auprc, calibration.calibration_slope):
        with pytest.raises(UndefinedMetricError, match="both"):
            metric([label] * 3, [0.1, 0.2, 0.3])


def test_no_slope_where_risks_separate_the_labels_or_do_not_differ():
    for risks in ([0.1, 0.2, 0.8, 0.9], [0.3] * 4, [0.9, 0.8, 0.2, 0.1]):
        with pytest.raises(UndefinedMetricError, match="separate"):
            calibration.calibration_slope([0, 0, 1, 1], risks)


def test_roc_starts_at_nothing_and_ends_at_everything():
    fpr, tpr = discrimination.roc_points(*sample())
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(tpr, fpr) == pytest.approx(discrimination.auroc(*sample()))
