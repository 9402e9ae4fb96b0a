"""What is said of a screened visit: the columns that every way of screening shares."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from rarealert.cases.case import TEXT_FIELDS, Case
from rarealert.knowledge.english import is_english
from rarealert.student.evidence import find_evidence

if TYPE_CHECKING:
    from rarealert.student.model import Reading
    from rarealert.student.uncertainty import Doubts

SAID: Final[Mapping[str, str]] = {
    "case_id": "string",
    "risk": "double",
    "risk_low": "double",
    "risk_high": "double",
    "band": "string",
    "abstain": "boolean",
    "out_of_distribution": "boolean",
    "ood_score": "double",
    "not_english": "boolean",
    "truncated": "boolean",
    "evidence": "string",
}
"""Columns of an answer that is always whole, in order, with MLflow's name of each type.

``risk`` is calibrated, 0-1, and ``risk_low`` to ``risk_high`` its Venn-Abers interval. ``abstain``
says that validation does not let the student decide (both labels, or none, in the conformal set).
``ood_score`` is the visit's distance from training in units of the threshold, above 1 being
``out_of_distribution``. ``not_english`` marks a text that the student can't read, whose risk means
nothing. ``evidence`` is a JSON list of ``rarealert.student.evidence.Evidence``.
"""


def say(
    cases: Sequence[Case],
    readings: "Sequence[Reading]",
    doubts: "Doubts",
    calibrated_at: float,
    prevalence: float | None,
) -> dict[str, list[Any]]:
    """The columns of ``SAID`` for ``cases``, at ``prevalence`` if one is given (both 0-1)."""
    import numpy as np

    logits = np.array([reading.risk.logit for reading in readings], dtype=float)
    features = np.array([reading.features for reading in readings], dtype=float)
    low, high = doubts.uncertainty.venn_abers.interval(logits)
    strange = doubts.strangeness(features) if len(readings) else np.zeros(0)

    def restated(risk: float) -> float:
        return risk if prevalence is None else shift_prevalence(risk, calibrated_at, prevalence)

    risks = [float(reading.risk.risk) for reading in readings]
    neutral = doubts.uncertainty.neutral
    return {
        "case_id": [case.case_id for case in cases],
        "risk": [restated(risk) for risk in risks],
        # the risk is a smooth map's, the interval that of steps: it is widened to hold the risk
        "risk_low": [restated(min(*pair)) for pair in zip(low.tolist(), risks, strict=True)],
        "risk_high": [restated(max(*pair)) for pair in zip(high.tolist(), risks, strict=True)],
        "band": [reading.risk.band for reading in readings],
        "abstain": doubts.uncertainty.abstains(logits).tolist(),
        "out_of_distribution": (strange > 1).tolist(),
        "ood_score": strange.tolist(),
        "not_english": [not is_english(_texts(case)) for case in cases],
        "truncated": [reading.risk.truncated for reading in readings],
        "evidence": [
            _json(case, reading, neutral) for case, reading in zip(cases, readings, strict=True)
        ],
    }


def shift_prevalence(risk: float, calibrated_at: float, prevalence: float) -> float:
    """``risk`` restated for a population with another share of rare cases, all in 0-1.

    logit(risk) + logit(prevalence) - logit(calibrated_at): Bayes' rule when only the share of
    the classes differs (Saerens, Latinne and Decaestecker, Neural Comput 14:21, 2002, eq. 2.4).
    """
    if risk in (0.0, 1.0):
        return risk
    odds = risk / (1 - risk) * _odds(prevalence) / _odds(calibrated_at)
    return odds / (1 + odds)


def _odds(share: float) -> float:
    return share / (1 - share)


def _texts(case: Case) -> list[str]:
    return [text for name in TEXT_FIELDS if (text := getattr(case, name))]


def _json(case: Case, reading: "Reading", neutral: float) -> str:
    found = find_evidence(case, reading.text, neutral)
    return json.dumps([item.as_dict() for item in found], ensure_ascii=False, sort_keys=True)
