"""Two models on the same cases: DeLong's test, bootstrap p-values and their adjustment."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rarealert.errors import BadInputError
from rarealert.metrics.counts import FloatArray, UndefinedMetricError, checked


@dataclass(frozen=True)
class DeLong:
    """Difference of two paired AUROCs with its standard error and two-sided p-value."""

    difference: float
    standard_error: float
    p_value: float


def delong(labels: ArrayLike, first: ArrayLike, second: ArrayLike) -> DeLong:
    """DeLong's test of AUROC(first) - AUROC(second) on the same cases, taken as independent.

    DeLong, DeLong and Clarke-Pearson, Biometrics 44:837 (1988), by the mid-ranks of Sun and Xu,
    IEEE Signal Process Lett 21:1389 (2014).

    Raises:
        BadInputError: malformed labels or risks.
        UndefinedMetricError: fewer than two rare or two non-rare cases.
    """
    truth, one = checked(labels, first)
    other = checked(labels, second)[1]
    rare = truth == 1
    m, n = int(rare.sum()), int((~rare).sum())
    if min(m, n) < 2:
        raise UndefinedMetricError("it needs at least two rare and two non-rare cases")
    parts = [_components(risk[rare], risk[~rare]) for risk in (one, other)]
    areas = [float(by_rare.mean()) for by_rare, _ in parts]
    across_rare = np.cov(np.stack([by_rare for by_rare, _ in parts]))
    across_nonrare = np.cov(np.stack([by_nonrare for _, by_nonrare in parts]))
    covariance = across_rare / m + across_nonrare / n
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    error = float(np.sqrt(max(variance, 0.0)))
    difference = areas[0] - areas[1]
    return DeLong(difference, error, _two_sided(difference, error))


def _components(rare: FloatArray, nonrare: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Structural components of the AUROC: per rare case ``(m,)`` and per non-rare case ``(n,)``."""
    from scipy.stats import rankdata

    m, n = rare.size, nonrare.size
    ranks = rankdata(np.concatenate([rare, nonrare]))
    by_rare = (ranks[:m] - rankdata(rare)) / n
    by_nonrare = 1 - (ranks[m:] - rankdata(nonrare)) / m
    return by_rare, by_nonrare


def _two_sided(difference: float, error: float) -> float:
    from scipy.special import erfc

    if error == 0:
        return 1.0 if abs(difference) < 1e-12 else 0.0
    return float(erfc(abs(difference) / error / np.sqrt(2)))


def bootstrap_p_value(differences: FloatArray) -> float:
    """Two-sided p-value that the difference is 0, from its resamples, shape ``(r,)``.

    Twice the smaller tail with one resample added to each, so never 0 (Davison and Hinkley,
    Bootstrap Methods and their Application, 1997, 4.2).
    """
    defined = differences[~np.isnan(differences)]
    if defined.size == 0:
        raise UndefinedMetricError("no resample defines the difference")
    tail = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (defined.size + 1))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p-values, by name (Scand J Stat 6:65, 1979).

    Raises:
        BadInputError: a p-value lies outside 0-1.
    """
    adjusted: dict[str, float] = {}
    running = 0.0
    for place, name in enumerate(sorted(p_values, key=lambda name: (p_values[name], name))):
        if not 0 <= p_values[name] <= 1:
            raise BadInputError(f"The p-value of {name} is {p_values[name]}; it must lie in 0-1.")
        running = max(running, (len(p_values) - place) * p_values[name])
        adjusted[name] = min(1.0, running)
    return adjusted
