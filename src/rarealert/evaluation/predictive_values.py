"""Predictive values of the alerts where rare disease is as rare as in practice."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from rarealert.calibration.prevalence import shift_prevalence
from rarealert.evaluation.intervals import Bootstrap, draw
from rarealert.evaluation.metrics import (
    CountsMetric,
    FloatArray,
    ratio,
    sensitivity_of,
    specificity_of,
)
from rarealert.evaluation.study import Study

PREVALENCES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3)
"""Shares of rare disease among visits, from open primary care to a specialist's clinic."""

ACT_AT = 0.05  # shifted risk at which to act: one rare disease found is worth 19 false alarms


def predictive_values(
    sensitivity: FloatArray, specificity: FloatArray, prevalence: float
) -> dict[str, FloatArray]:
    """PPV, NPV, alerts per 1,000 visits and number needed to evaluate, each of shape ``(r,)``.

    By Bayes' rule from sensitivity and specificity, shape ``(r,)`` (Vecchio, N Engl J Med
    274:1171, 1966). This assumes that cases of either kind look the same at any prevalence, which
    selected cases seldom do. NaN where no visit would be alerted, or not alerted.
    """
    true_alerts = sensitivity * prevalence
    true_silence = specificity * (1 - prevalence)
    alerts = true_alerts + (1 - specificity) * (1 - prevalence)
    return {
        "ppv": ratio(true_alerts, alerts),
        "npv": ratio(true_silence, 1 - alerts),
        "alerts_per_1000": 1000 * alerts,
        "number_needed_to_evaluate": ratio(alerts, true_alerts),
    }


def prevalence_table(
    study: Study, model: str, measured_at: float, plan: Bootstrap
) -> list[dict[str, Any]]:
    """Predictive values of the alerts of ``model`` by prevalence, with intervals.

    ``measured_at`` is the share of rare cases that the model is calibrated at.

    Returns:
        One row a prevalence: the values at the alert threshold chosen on validation, that
        threshold as a risk at this prevalence (``threshold_as_risk``), and under
        ``at_shifted_risk`` the values of another rule, to act where the risk, shifted to this
        prevalence, reaches ``ACT_AT``. Empty where the model has no threshold or answered cases
        of one label only.
    """
    index = study.answered(model)
    chosen = study.thresholds.get(model)
    if chosen is None or np.unique(study.labels[index]).size < 2:
        return []
    alert = chosen.at_95_specificity
    act_at = {p: float(shift_prevalence(ACT_AT, p, measured_at)) for p in PREVALENCES}
    metrics: dict[str, CountsMetric] = {}
    for rule, threshold in {"alert": alert, **{f"{p}": at for p, at in act_at.items()}}.items():
        metrics[f"{rule} sensitivity"] = partial(sensitivity_of, threshold=threshold)
        metrics[f"{rule} specificity"] = partial(specificity_of, threshold=threshold)
    job = study.job(model, index, metrics)
    draws = draw({model: job}, study.diseases, plan)[model]
    return [
        {
            "prevalence": prevalence,
            **_row(job.observed, draws, "alert", prevalence, plan),
            "threshold_as_risk": float(shift_prevalence(min(alert, 1.0), measured_at, prevalence)),
            "at_shifted_risk": {
                "risk": ACT_AT,
                "sensitivity": job.observed[f"{prevalence} sensitivity"],
                "specificity": job.observed[f"{prevalence} specificity"],
                **_row(job.observed, draws, f"{prevalence}", prevalence, plan),
            },
        }
        for prevalence in PREVALENCES
    ]


def _row(
    values: Mapping[str, float],
    draws: Mapping[str, FloatArray],
    rule: str,
    prevalence: float,
    plan: Bootstrap,
) -> dict[str, Any]:
    """The four predictive values and their intervals; ``None`` where undefined."""
    sensitivity, specificity = f"{rule} sensitivity", f"{rule} specificity"
    sample = predictive_values(
        np.array([values[sensitivity]]), np.array([values[specificity]]), prevalence
    )
    resampled = predictive_values(draws[sensitivity], draws[specificity], prevalence)
    row: dict[str, Any] = {"ci": {}}
    for name, (value,) in sample.items():
        row[name] = None if np.isnan(value) else float(value)
        row["ci"][name] = plan.interval(float(value), resampled[name])
    return row
