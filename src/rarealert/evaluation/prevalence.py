"""What a risk means where rare disease is as rare as it is, not as common as in a study."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from rarealert.calibration.prevalence import shift_prevalence
from rarealert.errors import BadInputError
from rarealert.evaluation.discrimination import (
    FloatArray,
    Ranking,
    ratio,
    sensitivity_of,
    specificity_of,
)
from rarealert.evaluation.intervals import Bootstrap, CountsMetric, draw
from rarealert.evaluation.measures import Study

PREVALENCES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3)
"""Shares of rare disease among visits, from open primary care to a specialist's clinic."""

ACT_AT = 0.05  # shifted risk at which to act: one rare disease found is worth 19 false alarms
_FIGURES = ("ppv", "npv", "alerts_per_1000", "number_needed_to_evaluate")


@dataclass(frozen=True)
class AtPrevalence:
    """Predictive values at one prevalence; ``None`` where no visit would be on that side.

    ``alerts_per_1000`` counts visits; ``number_needed_to_evaluate`` is alerts per true one.
    """

    prevalence: float
    ppv: float | None
    npv: float | None
    alerts_per_1000: float
    number_needed_to_evaluate: float | None


def at_prevalence(sensitivity: float, specificity: float, prevalence: float) -> AtPrevalence:
    """Predictive values by Bayes' rule, holding sensitivity and specificity (all 0 to 1).

    Vecchio, N Engl J Med 274:1171 (1966). Assumes that cases of either kind look the same at
    any prevalence, which a study's selection seldom grants in full.

    Raises:
        BadInputError: a value lies outside 0-1.
    """
    if not all(0 <= value <= 1 for value in (sensitivity, specificity, prevalence)):
        raise BadInputError("Sensitivity, specificity and prevalence must lie in 0-1.")
    found = predictive_values(np.array([sensitivity]), np.array([specificity]), prevalence)
    one = {name: None if np.isnan(values[0]) else float(values[0]) for name, values in found}
    return AtPrevalence(prevalence, **one)  # type: ignore[arg-type]  # alerts are never NaN


def predictive_values(
    sensitivity: FloatArray, specificity: FloatArray, prevalence: float
) -> list[tuple[str, FloatArray]]:
    """PPV, NPV, alerts per 1,000 and number needed to evaluate, each of shape ``(r,)``.

    NaN where no visit would be on that side.
    """
    true_alerts = sensitivity * prevalence
    true_silence = specificity * (1 - prevalence)
    alerts = true_alerts + (1 - specificity) * (1 - prevalence)
    figures = (
        ratio(true_alerts, alerts),
        ratio(true_silence, 1 - alerts),
        1000 * alerts,
        ratio(alerts, true_alerts),
    )
    return list(zip(_FIGURES, figures, strict=True))


def prevalence_table(
    study: Study, model: str, measured_at: float, plan: Bootstrap
) -> list[dict[str, Any]]:
    """One row a prevalence: what alerts of ``model`` would mean there, with intervals.

    Each row holds the figures at the alert threshold chosen on validation, that threshold as a
    risk at this prevalence (``threshold_as_risk``), and under ``at_shifted_risk`` the figures of
    the other rule: act where the risk, shifted to this prevalence, reaches ``ACT_AT``.
    ``measured_at`` is the share of rare cases that the model is calibrated at: validation's for
    the student, that of the training cases it learnt from for the ensemble.
    Empty where the model has no threshold or its answers one class only.
    """
    index = study.answered(model, np.arange(study.labels.size))
    chosen = study.thresholds.get(model)
    if chosen is None or np.unique(study.labels[index]).size < 2:
        return []
    alert = chosen.at_95_specificity
    act_at = {p: float(shift_prevalence(ACT_AT, p, measured_at)) for p in PREVALENCES}
    functions: dict[str, CountsMetric] = {}
    for name, threshold in {"alert": alert, **{f"{p}": at for p, at in act_at.items()}}.items():
        functions[f"{name} sensitivity"] = partial(sensitivity_of, threshold=threshold)
        functions[f"{name} specificity"] = partial(specificity_of, threshold=threshold)
    job = study.job(model, index, functions)
    counts = Ranking(job.labels, job.risks).count()
    values = {name: function(counts) for name, function in functions.items()}
    draws = draw({model: job}, study.diseases, plan)[model]
    return [
        {
            "prevalence": prevalence,
            **_row(values, draws, "alert", prevalence, plan),
            "threshold_as_risk": float(shift_prevalence(min(alert, 1.0), measured_at, prevalence)),
            "at_shifted_risk": {
                "risk": ACT_AT,
                "sensitivity": float(values[f"{prevalence} sensitivity"][0]),
                "specificity": float(values[f"{prevalence} specificity"][0]),
                **_row(values, draws, f"{prevalence}", prevalence, plan),
            },
        }
        for prevalence in PREVALENCES
    ]


def _row(
    values: Mapping[str, FloatArray],
    draws: Mapping[str, FloatArray],
    rule: str,
    prevalence: float,
    plan: Bootstrap,
) -> dict[str, Any]:
    """The four figures and their intervals; ``None`` where undefined."""
    names = (f"{rule} sensitivity", f"{rule} specificity")
    sample = dict(predictive_values(values[names[0]], values[names[1]], prevalence))
    resampled = dict(predictive_values(draws[names[0]], draws[names[1]], prevalence))
    row: dict[str, Any] = {"ci": {}}
    for name in _FIGURES:
        value = float(sample[name][0])
        row[name] = None if np.isnan(value) else value
        row["ci"][name] = None if np.isnan(value) else plan.interval(value, resampled[name])
    return row
