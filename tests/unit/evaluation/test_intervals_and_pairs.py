"""Intervals, paired tests, prevalence and the report's rules about small or empty cells."""

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap
from sklearn.metrics import roc_auc_score

from rarealert.errors import BadInputError
from rarealert.evaluation import discrimination as counts
from rarealert.evaluation.discrimination import auroc, auroc_of
from rarealert.evaluation.intervals import (
    Bootstrap,
    bootstrap_interval,
    bootstrap_p_value,
    delong,
    holm,
)
from rarealert.evaluation.measures import METRICS, THRESHOLDED, Study, Thresholds, compare, evaluate
from rarealert.evaluation.prevalence import at_prevalence
from rarealert.evaluation.report import _comparisons
from rarealert.evaluation.subgroups import Traits, head_cells

PLAN = Bootstrap(resamples=400, confidence=0.95, seed=5)


def study(n=300, seed=2):
    rng = np.random.default_rng(seed)
    labels = np.repeat([1.0, 0.0], n // 2)
    clusters = np.array([f"{label:.0f}-{rng.integers(30)}" for label in labels])
    good = 1 / (1 + np.exp(-2 * (labels - 0.5) - rng.normal(size=n)))
    gaps = good.copy()
    gaps[::7] = np.nan
    risks = {"student": good, "teacher:gaps": gaps, "control:coin": rng.random(n)}
    thresholds = {name: Thresholds(0.8, 0.2) for name in ("student", "teacher:gaps")}
    return Study(labels, clusters, risks, thresholds)


def test_case_bootstrap_agrees_with_scipy():
    one = study()
    own = bootstrap_interval(one.labels, one.risks["student"], auroc_of, PLAN)
    other = scipy_bootstrap(
        (one.labels, one.risks["student"]),
        roc_auc_score,
        paired=True,
        vectorized=False,
        n_resamples=400,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert own == pytest.approx((other.low, other.high), abs=0.012)


def test_clusters_widen_the_interval_of_cases_that_repeat_each_other():
    one = study(60)
    labels, risks = np.repeat(one.labels, 10), np.repeat(one.risks["student"], 10)
    by_case = bootstrap_interval(labels, risks, auroc_of, PLAN)
    clustered = bootstrap_interval(labels, risks, auroc_of, PLAN, np.repeat(np.arange(60), 10))
    assert clustered[1] - clustered[0] > 2 * (by_case[1] - by_case[0])


def test_every_interval_holds_its_value_and_every_figure_is_finite():
    one = study()
    found = evaluate(one, {"all": np.arange(300)}, (*METRICS, *THRESHOLDED), PLAN)["all"]
    assert set(found["student"].estimates) == {*METRICS, *THRESHOLDED}
    assert found["teacher:gaps"].estimates["auroc"].n == 300 - 43
    assert set(found["control:coin"].absent) == set(THRESHOLDED)
    for result in found.values():
        for estimate in result.estimates.values():
            assert np.isfinite([estimate.value, estimate.ci_low, estimate.ci_high]).all()
            assert estimate.ci_low <= estimate.value <= estimate.ci_high


def test_one_class_and_one_disease_are_absent_with_the_reason():
    one = study()
    rare = np.flatnonzero(one.labels == 1)
    same = np.flatnonzero((one.clusters == one.clusters[0]) | (one.labels == 0))
    found = evaluate(one, {"rare": rare, "same": same}, ("auroc",), PLAN)
    assert found["rare"]["student"].absent == {"auroc": "no non-rare case"}
    assert "one disease" in found["same"]["student"].absent["auroc"]


def test_the_same_seed_gives_the_same_intervals_and_another_does_not():
    one = study()
    args = (one.labels, one.risks["student"], auroc_of)
    assert bootstrap_interval(*args, PLAN) == bootstrap_interval(*args, PLAN)
    assert bootstrap_interval(*args, PLAN) != bootstrap_interval(*args, Bootstrap(400, 0.95, 6))


def test_chunks_do_not_change_the_number_of_resamples(monkeypatch):
    monkeypatch.setattr("rarealert.evaluation.intervals._CHUNK_WEIGHTS", 700)
    sizes = [chunk.shape for chunk in PLAN.weights(300)]
    assert sum(rows for rows, _ in sizes) == 400
    assert sizes[0] == (2, 300)


def test_clusters_and_labels_must_match():
    with pytest.raises(BadInputError, match="one per label"):
        bootstrap_interval([0, 1], [0.1, 0.2], auroc_of, PLAN, ["a"])


def _delong_by_definition(labels, first, second):
    """All pairs of rare and non-rare cases, as the 1988 paper writes it."""
    rare, parts = labels == 1, []
    for risk in (first, second):
        won = (risk[rare][:, None] > risk[~rare]) + 0.5 * (risk[rare][:, None] == risk[~rare])
        parts.append((won.mean(axis=1), won.mean(axis=0)))
    cov = sum(np.cov([part[k] for part in parts]) / parts[0][k].size for k in (0, 1))
    return np.sqrt(cov[0, 0] + cov[1, 1] - 2 * cov[0, 1])


def test_delong_equals_its_definition_by_all_pairs():
    one = study()
    first, second = np.round(one.risks["student"], 1), one.risks["control:coin"]
    found = delong(one.labels, first, second)
    assert found.difference == pytest.approx(auroc(one.labels, first) - auroc(one.labels, second))
    by_pairs = _delong_by_definition(one.labels, first, second)
    assert found.standard_error == pytest.approx(by_pairs, abs=1e-12)
    assert delong(one.labels, first, first).p_value == 1


def test_holm_by_hand_and_bootstrap_p_is_never_zero():
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03})
    assert found == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert bootstrap_p_value(np.full(99, 0.2)) == pytest.approx(0.02)


def test_comparison_is_paired_on_cases_both_answered():
    one = study()
    pairs = {"gaps": ("student", "teacher:gaps"), "coin": ("student", "control:coin")}
    found = compare(one, pairs, "auroc", PLAN)
    assert found["gaps"].difference.n == 300 - 43
    assert found["gaps"].difference.value == 0
    assert found["gaps"].p_holm == 1
    assert found["coin"].difference.ci_low > 0
    assert found["coin"].p_holm >= found["coin"].p_value


def test_predictive_values_by_hand():
    found = at_prevalence(0.8, 0.9, 0.01)
    assert found.ppv == pytest.approx(0.008 / 0.107)
    assert found.npv == pytest.approx(0.891 / 0.893)
    assert found.alerts_per_1000 == pytest.approx(107)
    assert found.number_needed_to_evaluate == pytest.approx(0.107 / 0.008)
    assert at_prevalence(0, 1, 0.01).ppv is None


def test_small_heads_are_pooled_under_a_name_that_says_so():
    one = study()
    heads = ["large"] * 100 + ["small"] * 5 + [None] * 45 + [None] * 150
    traits = Traits(np.array(["s"] * 300), heads, [None] * 300, [None] * 300)
    cells = head_cells(one, traits)
    pooled = "other heads (each fewer than 10 rare cases)"
    assert list(cells) == ["large", "no head known", pooled]
    assert [index.size for index in cells.values()] == [250, 195, 155]


def test_fourteen_pairs_get_below_the_floor_of_the_intervals_resamples():
    one, rng = study(120), np.random.default_rng(4)
    coins = {f"control:coin{i}": rng.random(one.labels.size) for i in range(14)}
    many = Study(one.labels, one.diseases, {"student": one.risks["student"], **coins}, {})
    plan = Bootstrap(resamples=200, confidence=0.95, seed=5)
    pairs = {name: ("student", name) for name in coins}
    few = {name: each.p_holm for name, each in compare(many, pairs, "auroc", plan).items()}
    found = _comparisons(many, plan)
    assert min(few.values()) > 0.1
    assert len(found) == 14
    assert max(each["p_holm"] for each in found.values()) < 0.05


def test_calibration_intervals_hold_where_many_cases_share_one_risk(monkeypatch):
    rng = np.random.default_rng(0)
    labels = (rng.random(3000) < 0.05).astype(float)
    risks = 1 / (1 + np.exp(-(1.5 * labels + rng.normal(size=3000) - 3.7)))
    risks[rng.random(3000) < 0.5] = 0.5  # visits that said too little
    plan = Bootstrap(60, 0.95, 1)
    metrics = [METRICS[name] for name in ("calibration_slope", "calibration_intercept", "ici")]
    merged = [bootstrap_interval(labels, risks, metric, plan) for metric in metrics]
    monkeypatch.setattr(counts, "_MAX_GROUPS", 10_000)
    exact = [bootstrap_interval(labels, risks, metric, plan) for metric in metrics]
    np.testing.assert_allclose(merged, exact, atol=0.002)
