"""All models on the same cases: their metrics by subgroup, and their paired differences."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rarealert.evaluation.intervals import (
    Bootstrap,
    Estimate,
    ResampleTask,
    bootstrap_p_value,
    delong,
    draw,
    holm,
)
from rarealert.evaluation.metrics import (
    METRICS,
    OPERATING_POINT,
    CountsMetric,
    FloatArray,
    IntArray,
    auroc,
    sensitivity_of,
    specificity_of,
    threshold_at_sensitivity,
    threshold_at_specificity,
)
from rarealert.evaluation.predictions import PARTS, check_predictions
from rarealert.visits.case import LabelledCase
from rarealert.visits.store import disease_groups, is_rare

if TYPE_CHECKING:
    import pandas as pd

_MIN_CLUSTERS = 2  # diseases of a label; one has no spread to resample

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
            threshold_at_specificity(labels, risks, OPERATING_POINT),
            threshold_at_sensitivity(labels, risks, OPERATING_POINT),
        )

    def metric(self, name: str) -> CountsMetric:
        """The metric ``name`` of ``THRESHOLDED`` at these thresholds."""
        metrics: dict[str, CountsMetric] = {
            "sensitivity_at_95_specificity": partial(
                sensitivity_of, threshold=self.at_95_specificity
            ),
            "achieved_specificity": partial(specificity_of, threshold=self.at_95_specificity),
            "specificity_at_95_sensitivity": partial(
                specificity_of, threshold=self.at_95_sensitivity
            ),
            "achieved_sensitivity": partial(sensitivity_of, threshold=self.at_95_sensitivity),
        }
        return metrics[name]


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

    @property
    def everyone(self) -> IntArray:
        """The positions of all cases."""
        return np.arange(self.labels.size)

    def answered(self, model: str, among: IntArray | None = None) -> IntArray:
        """The cases that ``model`` answered, of those at ``among`` or of all."""
        index = self.everyone if among is None else among
        return index[~np.isnan(self.risks[model][index])]

    def job(self, model: str, index: IntArray, metrics: Mapping[str, CountsMetric]) -> ResampleTask:
        """``metrics`` of ``model`` on the cases at ``index``."""
        return ResampleTask(model, index, self.labels[index], self.risks[model][index], metrics)


@dataclass(frozen=True)
class Reference:
    """The validation part: labels ``(n,)`` and risks by model ``(n,)``, NaN where unanswered.

    ``measured_at`` is the share of rare cases that a model is calibrated at, by model, where it
    was not calibrated on this part.
    """

    labels: FloatArray
    risks: Mapping[str, FloatArray]
    measured_at: Mapping[str, float] = field(default_factory=dict)

    def prevalence(self, model: str) -> float:
        """The share of rare cases that ``model`` is calibrated at."""
        return self.measured_at.get(model, float(self.labels.mean()))

    def answered(self, model: str) -> tuple[FloatArray, FloatArray]:
        """Labels and risks of the cases that ``model`` answered."""
        risks = self.risks.get(model, np.full(self.labels.size, np.nan))
        present = ~np.isnan(risks)
        return self.labels[present], risks[present]

    def thresholds(self, models: Iterable[str]) -> dict[str, Thresholds]:
        """Thresholds of every model that answered rare and non-rare cases."""
        return {
            model: Thresholds.chosen_on(labels, risks)
            for model in models
            for labels, risks in [self.answered(model)]
            if np.unique(labels).size == 2
        }

    def best(self, models: Iterable[str]) -> str | None:
        """The model with the highest AUROC; a choice made here does not bias the test part."""
        reached = {
            model: auroc(labels, risks)
            for model in models
            for labels, risks in [self.answered(model)]
            if np.unique(labels).size == 2
        }
        return max(sorted(reached), key=lambda model: reached[model], default=None)


def study_of(
    frame: "pd.DataFrame", cases: Mapping[str, Sequence[LabelledCase]]
) -> tuple[Study, Reference]:
    """Predictions arranged by case: the test part to measure, the validation part to choose on.

    ``frame`` is what ``read_predictions`` returns; ``cases`` holds at least both of its parts.

    Raises:
        BadInputError: the predictions are not complete and valid; see ``check_predictions``.
    """
    ids = {part: [item.case.case_id for item in cases[part]] for part in PARTS}
    check_predictions(frame, ids)
    risks: dict[str, dict[str, FloatArray]] = {}
    for part in PARTS:
        rows = frame[frame["part"] == part]
        wide = rows.pivot_table(index="case_id", columns="model", values="risk").reindex(ids[part])
        risks[part] = {str(name): wide[name].to_numpy(np.float64) for name in sorted(wide.columns)}
    labels = {part: np.array(is_rare(cases[part]), dtype=np.float64) for part in PARTS}
    reference = Reference(labels["valid"], risks["valid"])
    study = Study(
        labels=labels["test"],
        clusters=np.array(disease_groups(cases["test"]), dtype=np.str_),
        risks=risks["test"],
        thresholds=reference.thresholds(risks["test"]),
    )
    return study, reference


@dataclass(frozen=True)
class Result:
    """The metrics of one model on one subgroup, and why some are absent."""

    estimates: dict[str, Estimate]
    absent: dict[str, str]


def evaluate(
    study: Study, cells: Mapping[str, IntArray], metrics: Iterable[str], plan: Bootstrap
) -> dict[str, dict[str, Result]]:
    """Every model on every subgroup: ``{cell: {model: Result}}``.

    ``cells`` names subgroups by the indices of their cases; ``metrics`` are names of
    ``METRICS`` and ``THRESHOLDED``.
    """
    names = tuple(metrics)
    jobs: dict[str, ResampleTask] = {}
    absent: dict[str, dict[str, str]] = {}
    for cell, among in cells.items():
        for model in study.risks:
            key = f"{cell}\n{model}"
            index = study.answered(model, among)
            absent[key] = _absent(study, model, index, names)
            functions = {
                name: METRICS[name] if name in METRICS else study.thresholds[model].metric(name)
                for name in names
                if name not in absent[key]
            }
            if functions:
                jobs[key] = study.job(model, index, functions)
    drawn = draw(jobs, study.diseases, plan)
    results = {key: _result(jobs.get(key), drawn.get(key, {}), absent[key], plan) for key in absent}
    return {cell: {model: results[f"{cell}\n{model}"] for model in study.risks} for cell in cells}


def _absent(study: Study, model: str, index: IntArray, names: tuple[str, ...]) -> dict[str, str]:
    """Why the cases at ``index`` do not define a metric, by its name."""
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


def _too_few(study: Study, index: IntArray, classes: tuple[int, ...] = (0, 1)) -> str | None:
    """Why the cases at ``index`` allow no interval over these classes; ``None`` if they do."""
    for label in classes:
        word = ("non-rare", "rare")[label]
        of_class = index[study.labels[index] == label]
        if of_class.size == 0:
            return f"no {word} case"
        if np.unique(study.diseases[of_class]).size < _MIN_CLUSTERS:
            return f"all {word} cases have one disease, which leaves no spread for an interval"
    return None


def _result(
    job: ResampleTask | None,
    draws: Mapping[str, FloatArray],
    absent: Mapping[str, str],
    plan: Bootstrap,
) -> Result:
    if job is None:
        return Result({}, dict(absent))
    found = job.estimates(draws, plan)
    undefined = {
        name: _why_undefined(name, job.observed[name])
        for name, estimate in found.items()
        if estimate is None
    }
    estimates = {name: estimate for name, estimate in found.items() if estimate is not None}
    return Result(estimates, {**absent, **undefined})


def _why_undefined(name: str, value: float) -> str:
    if not np.isnan(value):
        return "too many resamples do not define it for an interval"
    if name == "calibration_slope":
        return "the risks do not differ, or separate the labels completely"
    return "these risks do not define it"


@dataclass(frozen=True)
class Comparison:
    """First minus second model on the ``n`` cases both answered, by the same resamples.

    ``p_holm`` adjusts the bootstrap p-value for all comparisons made. ``p_delong`` takes cases
    as independent; it is given for readers who expect it.
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
    jobs: dict[str, ResampleTask] = {}
    for name, (first, second) in pairs.items():
        shared = study.answered(second, study.answered(first))
        if _too_few(study, shared) is None:
            for place, model in enumerate((first, second)):
                jobs[f"{name}\n{place}"] = study.job(model, shared, {metric: METRICS[metric]})
    drawn = draw(jobs, study.diseases, plan)
    found: dict[str, tuple[Estimate, float, float]] = {}
    for name in pairs:
        if f"{name}\n0" not in jobs:
            continue
        one, other = jobs[f"{name}\n0"], jobs[f"{name}\n1"]
        draws = drawn[f"{name}\n0"][metric] - drawn[f"{name}\n1"][metric]
        difference = one.observed[metric] - other.observed[metric]
        estimate = plan.estimate(difference, draws, one.index.size)
        if estimate is not None:
            p_delong = delong(one.labels, one.risks, other.risks).p_value
            found[name] = (estimate, bootstrap_p_value(draws), p_delong)
    adjusted = holm({name: p_value for name, (_, p_value, _) in found.items()})
    return {
        name: Comparison(estimate, p_value, adjusted[name], p_delong)
        for name, (estimate, p_value, p_delong) in found.items()
    }
