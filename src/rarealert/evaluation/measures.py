"""All models on all subgroups: the point values, their intervals, and what is absent and why."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rarealert.evaluation import calibration, discrimination
from rarealert.evaluation import discrimination as decision
from rarealert.evaluation.discrimination import FloatArray, IntArray, Ranking, UndefinedMetricError
from rarealert.evaluation.intervals import (
    Bootstrap,
    CountsMetric,
    Job,
    bootstrap_p_value,
    delong,
    draw,
    holm,
)

OPERATING_POINT = 0.95  # the specificity, and the sensitivity, at which thresholds are chosen
NET_BENEFIT_AT = 0.05  # threshold probability: one rare disease found is worth 19 false alarms
_MIN_CLUSTERS = 2  # of a class; one disease has no spread to resample

METRICS: Mapping[str, CountsMetric] = {
    "auroc": discrimination.auroc_of,
    "auprc": discrimination.auprc_of,
    "brier": calibration.brier_of,
    "log_loss": calibration.log_loss_of,
    "ece": calibration.ece_of,
    "ici": calibration.ici_of,
    "calibration_slope": calibration.calibration_slope_of,
    "calibration_intercept": calibration.calibration_intercept_of,
    "observed_to_expected": calibration.observed_to_expected_of,
    "net_benefit_at_5pct": partial(decision.net_benefit_of, threshold=NET_BENEFIT_AT),
}
"""Metrics that need both classes and no threshold of the validation part."""

SENSITIVITIES = ("sensitivity_at_95_specificity", "achieved_sensitivity")
SPECIFICITIES = ("specificity_at_95_sensitivity", "achieved_specificity")
THRESHOLDED = SENSITIVITIES + SPECIFICITIES
"""Metrics at a threshold chosen on the validation part."""


@dataclass(frozen=True)
class Thresholds:
    """Where one model alerts, chosen on the validation part, in its own risk's unit (0-1)."""

    at_95_specificity: float
    at_95_sensitivity: float

    @classmethod
    def chosen_on(cls, labels: FloatArray, risks: FloatArray) -> "Thresholds":
        """The thresholds that reach 95 % on these cases.

        Raises:
            UndefinedMetricError: a class is missing.
        """
        return cls(
            discrimination.threshold_at_specificity(labels, risks, OPERATING_POINT),
            discrimination.threshold_at_sensitivity(labels, risks, OPERATING_POINT),
        )


@dataclass(frozen=True)
class Estimate:
    """A metric's value with its interval on ``n`` cases."""

    value: float
    ci_low: float
    ci_high: float
    n: int


@dataclass(frozen=True)
class Result:
    """What one model reached on one subgroup, and why some metrics are absent."""

    estimates: dict[str, Estimate]
    absent: dict[str, str]


@dataclass(frozen=True)
class Study:
    """All models on the same ``n`` cases.

    ``labels``, shape ``(n,)``, 1 rare and 0 not; ``clusters``, shape ``(n,)``, the disease;
    ``risks`` by model, shape ``(n,)``, NaN where the model gave no answer; ``thresholds`` by
    model, absent where the validation part could not choose them.
    """

    labels: FloatArray
    clusters: NDArray[np.str_]
    risks: Mapping[str, FloatArray]
    thresholds: Mapping[str, Thresholds]

    @cached_property
    def diseases(self) -> IntArray:
        """``clusters`` as numbers from 0, shape ``(n,)``: names are slow to compare."""
        return np.unique(self.clusters, return_inverse=True)[1].reshape(-1)

    def answered(self, model: str, among: IntArray) -> IntArray:
        """The cases of ``among`` that ``model`` answered."""
        return among[~np.isnan(self.risks[model][among])]

    def job(self, model: str, index: IntArray, metrics: Mapping[str, CountsMetric]) -> Job:
        """``model`` on the cases at ``index``."""
        return Job(model, index, self.labels[index], self.risks[model][index], metrics)


def evaluate(
    study: Study, cells: Mapping[str, IntArray], metrics: Iterable[str], plan: Bootstrap
) -> dict[str, dict[str, Result]]:
    """Every model on every subgroup: ``{cell: {model: Result}}``.

    ``cells`` names subgroups by the indices of their cases; ``metrics`` are names of
    ``METRICS`` and ``THRESHOLDED``.
    """
    names = tuple(metrics)
    jobs: dict[str, Job] = {}
    absent: dict[str, dict[str, str]] = {}
    for cell, among in cells.items():
        for model in study.risks:
            key = f"{cell}\n{model}"
            index = study.answered(model, among)
            absent[key] = _absent(study, model, index, names)
            wanted = [name for name in names if name not in absent[key]]
            if wanted:
                functions = {name: _function(name, study.thresholds.get(model)) for name in wanted}
                jobs[key] = study.job(model, index, functions)
    drawn = draw(jobs, study.diseases, plan)
    return {
        cell: {
            model: _result(
                jobs.get(f"{cell}\n{model}"),
                drawn.get(f"{cell}\n{model}", {}),
                absent[f"{cell}\n{model}"],
                plan,
            )
            for model in study.risks
        }
        for cell in cells
    }


@dataclass(frozen=True)
class Comparison:
    """First minus second model on the ``n`` cases both answered, by the same resamples.

    ``p_holm`` adjusts the bootstrap p-value for all comparisons made; ``p_delong`` takes cases
    as independent and stands beside it for readers who expect it.
    """

    difference: Estimate
    p_value: float
    p_holm: float
    p_delong: float


def compare(
    study: Study, pairs: Mapping[str, tuple[str, str]], metric: str, plan: Bootstrap
) -> dict[str, Comparison]:
    """Paired differences of ``metric``, by the name of the pair.

    A pair is left out where the cases both answered do not define the metric.
    """
    function = METRICS[metric]
    jobs: dict[str, Job] = {}
    for name, (first, second) in pairs.items():
        shared = study.answered(second, study.answered(first, np.arange(study.labels.size)))
        if _too_few(study, shared) is None:
            jobs[f"{name}\n0"] = study.job(first, shared, {metric: function})
            jobs[f"{name}\n1"] = study.job(second, shared, {metric: function})
    drawn = draw(jobs, study.diseases, plan)
    found: dict[str, tuple[Estimate, float, float]] = {}
    for name in pairs:
        if f"{name}\n0" not in jobs:
            continue
        one, other = jobs[f"{name}\n0"], jobs[f"{name}\n1"]
        value = _value(one, function) - _value(other, function)
        draws = drawn[f"{name}\n0"][metric] - drawn[f"{name}\n1"][metric]
        interval = plan.interval(value, draws)
        if interval is not None:
            estimate = Estimate(value, *interval, n=one.index.size)
            p_delong = delong(one.labels, one.risks, other.risks).p_value
            found[name] = (estimate, bootstrap_p_value(draws), p_delong)
    adjusted = holm({name: p_value for name, (_, p_value, _) in found.items()})
    return {
        name: Comparison(estimate, p_value, adjusted[name], p_delong)
        for name, (estimate, p_value, p_delong) in found.items()
    }


def _function(name: str, thresholds: Thresholds | None) -> CountsMetric:
    if name in METRICS:
        return METRICS[name]
    assert thresholds is not None, "thresholded metrics without thresholds are marked absent"
    at_specificity, at_sensitivity = thresholds.at_95_specificity, thresholds.at_95_sensitivity
    return {
        "sensitivity_at_95_specificity": partial(
            discrimination.sensitivity_of, threshold=at_specificity
        ),
        "achieved_specificity": partial(discrimination.specificity_of, threshold=at_specificity),
        "specificity_at_95_sensitivity": partial(
            discrimination.specificity_of, threshold=at_sensitivity
        ),
        "achieved_sensitivity": partial(discrimination.sensitivity_of, threshold=at_sensitivity),
    }[name]


def _too_few(study: Study, index: IntArray, classes: tuple[int, ...] = (0, 1)) -> str | None:
    """Why the cases at ``index`` can't carry an interval over these classes, if they can't."""
    for label in classes:
        word = ("non-rare", "rare")[label]
        of_class = index[study.labels[index] == label]
        if of_class.size == 0:
            return f"no {word} case"
        if np.unique(study.diseases[of_class]).size < _MIN_CLUSTERS:
            return f"all {word} cases have one disease, which leaves no spread for an interval"
    return None


def why_absent(report: Mapping[str, Any], model: str, metric: str) -> str:
    """Why ``metrics.json`` has no ``metric`` of ``model`` on the test part."""
    reasons: Mapping[str, str] = report.get("absent", {}).get("models", {}).get(model, {})
    return reasons.get(metric, "it was not scored")


def _absent(study: Study, model: str, index: IntArray, names: tuple[str, ...]) -> dict[str, str]:
    reasons: dict[str, str] = {}
    nonrare, rare = _too_few(study, index, (0,)), _too_few(study, index, (1,))
    for name in names:
        reason = rare if name in SENSITIVITIES else nonrare if name in SPECIFICITIES else None
        if name not in THRESHOLDED:
            reason = nonrare or rare
        if reason is None and name in THRESHOLDED and model not in study.thresholds:
            reason = "the validation part holds no rare or no non-rare answer to choose it on"
        if reason is not None:
            reasons[name] = reason
    return reasons


def _value(job: Job, function: CountsMetric) -> float:
    return float(function(Ranking(job.labels, job.risks).count())[0])


def _result(
    job: Job | None,
    drawn: Mapping[str, FloatArray],
    absent: Mapping[str, str],
    plan: Bootstrap,
) -> Result:
    estimates: dict[str, Estimate] = {}
    missing = dict(absent)
    if job is not None:
        counts = Ranking(job.labels, job.risks).count()
        for name, function in job.metrics.items():
            value = float(function(counts)[0])
            interval = None if np.isnan(value) else plan.interval(value, drawn[name])
            if interval is None:
                missing[name] = _undefined(name, value)
            else:
                estimates[name] = Estimate(value, *interval, n=job.index.size)
    return Result(estimates, missing)


def _undefined(name: str, value: float) -> str:
    if not np.isnan(value):
        return "too many resamples do not define it for an interval"
    if name == "calibration_slope":
        return "the risks do not differ, or separate the labels completely"
    return "these risks do not define it"


__all__ = [
    "METRICS",
    "THRESHOLDED",
    "Comparison",
    "Estimate",
    "Result",
    "Study",
    "Thresholds",
    "UndefinedMetricError",
    "compare",
    "evaluate",
]
