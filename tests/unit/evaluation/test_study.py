"""Intervals, paired comparisons, and which figures a study defines."""

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap
from sklearn.metrics import roc_auc_score

from rarealert.evaluation import intervals, metrics
from rarealert.evaluation.intervals import Bootstrap, ResampleTask, bootstrap_p_value, draw, holm
from rarealert.evaluation.metrics import METRICS
from rarealert.evaluation.report import build_report
from rarealert.evaluation.study import THRESHOLDED, Reference, Study, compare, evaluate
from rarealert.evaluation.subgroups import Traits


def interval(labels, risks, clusters=None, plan=None, metric="auroc"):
    index = np.arange(len(labels))
    job = ResampleTask(
        "model", index, np.asarray(labels), np.asarray(risks), {metric: METRICS[metric]}
    )
    plan = plan or Bootstrap(400, 0.95, 5)
    drawn = draw({"job": job}, index if clusters is None else clusters, plan)["job"]
    estimate = job.estimates(drawn, plan)[metric]
    return estimate.ci_low, estimate.ci_high


def test_case_bootstrap_agrees_with_scipy(make_study):
    one = make_study(300)
    sample = (one.labels, one.risks["student"])
    other = scipy_bootstrap(
        sample,
        roc_auc_score,
        paired=True,
        vectorized=False,
        n_resamples=400,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert interval(*sample) == pytest.approx((other.low, other.high), abs=0.012)


def test_clusters_widen_the_interval_of_cases_that_repeat_each_other(make_study):
    one = make_study(60)
    labels, risks = np.repeat(one.labels, 10), np.repeat(one.risks["student"], 10)
    by_case = interval(labels, risks)
    clustered = interval(labels, risks, np.repeat(np.arange(60), 10))
    assert clustered[1] - clustered[0] > 2 * (by_case[1] - by_case[0])


def test_every_interval_contains_its_value_and_every_figure_is_finite(make_study, plan):
    one = make_study()
    found = evaluate(one, {"all": one.everyone}, (*METRICS, *THRESHOLDED), plan)["all"]
    assert set(found["student"].estimates) == {*METRICS, *THRESHOLDED}
    assert found["teacher:gaps"].estimates["auroc"].n == 400 - 58
    assert set(found["control:coin"].absent) == set(THRESHOLDED)
    for result in found.values():
        for estimate in result.estimates.values():
            assert np.isfinite([estimate.value, estimate.ci_low, estimate.ci_high]).all()
            assert estimate.ci_low <= estimate.value <= estimate.ci_high


def test_one_class_and_one_disease_are_absent_with_the_reason(make_study, plan):
    one = make_study()
    rare = np.flatnonzero(one.labels == 1)
    same = np.flatnonzero((one.clusters == one.clusters[0]) | (one.labels == 0))
    found = evaluate(one, {"rare": rare, "same": same}, ("auroc",), plan)
    assert found["rare"]["student"].absent == {"auroc": "no non-rare case"}
    assert "one disease" in found["same"]["student"].absent["auroc"]


def test_the_seed_alone_decides_the_resamples(make_study, monkeypatch):
    sample = make_study().labels, make_study().risks["student"]
    first = interval(*sample)
    assert interval(*sample, plan=Bootstrap(400, 0.95, 6)) != first
    monkeypatch.setattr(intervals, "_CHUNK_WEIGHTS", 700)
    sizes = [chunk.shape for chunk in Bootstrap(400, 0.95, 5).weights(300)]
    assert sizes[0] == (2, 300)
    assert sum(rows for rows, _ in sizes) == 400


def test_holm_by_hand_and_a_bootstrap_p_value_is_never_zero():
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03})
    assert found == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert bootstrap_p_value(np.full(99, 0.2)) == pytest.approx(0.02)


def test_comparison_is_paired_on_cases_both_answered(make_study, plan):
    pairs = {"gaps": ("student", "teacher:gaps"), "coin": ("student", "control:coin")}
    found = compare(make_study(), pairs, "auroc", plan)
    assert found["gaps"].difference.n == 400 - 58
    assert found["gaps"].difference.value == 0
    assert found["gaps"].p_holm == 1
    assert found["coin"].difference.ci_low > 0
    assert found["coin"].p_holm >= found["coin"].p_value


def test_fourteen_pairs_are_significant_with_the_resamples_of_the_report(make_study):
    one, rng = make_study(120), np.random.default_rng(4)
    coins = {f"control:coin{i}": rng.random(one.labels.size) for i in range(14)}
    many = Study(one.labels, one.diseases, {"student": one.risks["student"], **coins}, {})
    plan = Bootstrap(resamples=200, confidence=0.95, seed=5)
    few = compare(many, {name: ("student", name) for name in coins}, "auroc", plan)
    assert min(each.p_holm for each in few.values()) > 0.1
    traits = Traits(np.full(120, "s"), [None] * 120, [None] * 120, [None] * 120)
    reference = Reference(many.labels, many.risks)
    found = build_report(many, traits, reference, plan, "digest")["comparisons"]
    assert len(found) == 14
    assert max(each["p_holm"] for each in found.values()) < 0.05


@pytest.mark.parametrize("metric", ["calibration_slope", "calibration_intercept", "ici"])
def test_merging_risks_in_a_fit_moves_no_bound(monkeypatch, metric):
    rng = np.random.default_rng(0)
    labels = (rng.random(3000) < 0.05).astype(float)
    risks = 1 / (1 + np.exp(-(1.5 * labels + rng.normal(size=3000) - 3.7)))
    risks[rng.random(3000) < 0.5] = 0.5  # many cases share one risk
    plan = Bootstrap(60, 0.95, 1)
    merged = interval(labels, risks, plan=plan, metric=metric)
    monkeypatch.setattr(metrics, "_MAX_FITTED", 10_000)
    assert interval(labels, risks, plan=plan, metric=metric) == pytest.approx(merged, abs=0.002)


def test_merging_neighbouring_risks_of_many_cases_moves_no_bound(make_study, monkeypatch):
    study = make_study(12_000)
    plan = Bootstrap(60, 0.95, 1)
    job = study.job("student", study.everyone, METRICS)
    merged = draw({"all": job}, study.diseases, plan)["all"]
    monkeypatch.setattr(intervals, "_MAX_GROUPS", 12_000)
    exact = draw({"all": job}, study.diseases, plan)["all"]
    for name in METRICS:
        assert np.abs(merged[name] - exact[name]).max() < 1e-3, name
    assert not np.array_equal(merged["brier"], exact["brier"])


@pytest.mark.scale
@pytest.mark.timeout(1800)
def test_a_report_on_160_000_cases_with_1_000_resamples(make_study):
    study, n = make_study(160_000), 160_000
    reference = Reference(study.labels[::80], {m: risk[::80] for m, risk in study.risks.items()})
    rng = np.random.default_rng(1)
    traits = Traits(
        source=np.array(["a", "b", "c"])[rng.integers(0, 3, n)],
        head=[f"Head {k % 33}" if label else None for k, label in enumerate(study.labels)],
        age_years=rng.integers(0, 90, n).astype(float).tolist(),
        sex=[("female", "male")[k] for k in rng.integers(0, 2, n)],
    )
    report = build_report(study, traits, reference, Bootstrap(1000, 0.95, 1), "digest")
    assert report["models"]["student"]["auroc"]["n"] == n
