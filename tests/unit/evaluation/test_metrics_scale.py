"""A hospital's year of predictions: the whole report in minutes, and no bound moved by merging."""

import time

import numpy as np
import pytest

from rarealert.evaluation import intervals
from rarealert.evaluation.intervals import Bootstrap, Job, draw
from rarealert.evaluation.measures import METRICS, Study
from rarealert.evaluation.report import Reference, build_report
from rarealert.evaluation.subgroups import Traits

MODELS = [
    "student",
    "ensemble",
    *(f"teacher:{k}" for k in range(6)),
    *(f"control:{k}" for k in "abcd"),
]


def population(n, diseases, seed=1):
    """``n`` cases, 12 models of falling strength, 33 heads, three sources."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % 2 == 0).astype(float)
    drawn = rng.integers(0, diseases // 2, n)
    clusters = np.array([f"{label:.0f}-{k}" for label, k in zip(labels, drawn, strict=True)])
    risks = {
        model: 1 / (1 + np.exp(-1.5 * (labels - 0.5) * (1 - at / 14) - rng.normal(size=n)))
        for at, model in enumerate(MODELS)
    }
    reference = Reference(labels[:2000], {name: risk[:2000] for name, risk in risks.items()})
    heads = [f"Head {k}" if rare else None for rare, k in zip(labels, drawn % 33, strict=True)]
    traits = Traits(
        source=np.array(["a", "b", "c"])[rng.integers(0, 3, n)],
        head=heads,
        age_years=rng.integers(0, 90, n).astype(float).tolist(),
        sex=[("female", "male")[k] for k in rng.integers(0, 2, n)],
    )
    return Study(labels, clusters, risks, reference.thresholds(risks)), traits, reference


def seconds_of_report(n, diseases, resamples):
    """Processor seconds: wall time would measure how busy the machine is."""
    study, traits, reference = population(n, diseases)
    started = time.process_time()
    report = build_report(study, traits, reference, Bootstrap(resamples, 0.95, 1), "x")
    assert len(report["models"]) == 12
    assert report["models"]["student"]["auroc"]["n"] == n
    return time.process_time() - started


@pytest.mark.scale
@pytest.mark.timeout(1800)
def test_160_000_predictions_of_12_models_with_1_000_resamples_take_less_than_three_minutes():
    assert seconds_of_report(160_000, 4_000, 1_000) < 180


def test_a_report_costs_milliseconds_a_resample():
    few, many = (seconds_of_report(2_000, 200, resamples) for resamples in (2, 18))
    assert (many - few) / 16 < 0.09  # 180 s for 1,000 resamples, half of it for the rest


def test_merging_neighbouring_risks_moves_no_bound(monkeypatch):
    study, _, _ = population(12_000, 600)
    plan = Bootstrap(60, 0.95, 1)
    job = Job("student", np.arange(12_000), study.labels, study.risks["student"], METRICS)
    merged = draw({"all": job}, study.diseases, plan)["all"]
    monkeypatch.setattr(intervals, "_MAX_GROUPS", 12_000)
    exact = draw({"all": job}, study.diseases, plan)["all"]
    for name in METRICS:
        assert np.abs(merged[name] - exact[name]).max() < 1e-3, name
    assert not np.array_equal(merged["brier"], exact["brier"])
