"""What a risk is worth to the one who acts on it: net benefit and the decision curve."""

import numpy as np
from numpy.typing import ArrayLike

from rarealert.metrics.counts import FloatArray, Ranking, RiskCounts, ratio


def net_benefit_of(counts: RiskCounts, threshold: float) -> FloatArray:
    """Net benefit per case of acting at ``threshold``, shape ``(r,)``.

    True positives minus false positives weighed by the odds of the threshold, over all cases:
    Vickers and Elkin, Med Decis Making 26:565 (2006).
    """
    rare_below, nonrare_below = counts.below(threshold)
    gained = counts.n_rare - rare_below
    lost = (counts.n_nonrare - nonrare_below) * threshold / (1 - threshold)
    return ratio(gained - lost, counts.total)


def net_benefit(labels: ArrayLike, risks: ArrayLike, threshold: float) -> float:
    """Net benefit per case of acting at or above ``threshold`` (0 <= threshold < 1)."""
    return float(net_benefit_of(Ranking(labels, risks).count(), threshold)[0])


def net_benefit_of_all(labels: ArrayLike, threshold: float) -> float:
    """Net benefit per case of acting on everyone."""
    truth = np.asarray(labels, dtype=np.float64)
    return net_benefit(truth, np.ones_like(truth), threshold)


def decision_curve(labels: ArrayLike, risks: ArrayLike, thresholds: FloatArray) -> FloatArray:
    """Net benefit at each threshold, shape ``(n_thresholds,)``."""
    counts = Ranking(labels, risks).count()
    return np.array([net_benefit_of(counts, float(at))[0] for at in thresholds])
