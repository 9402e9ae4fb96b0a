"""Risks sorted once and counted per distinct value: what every metric here is computed from.

A metric of binary labels needs only how many rare and non-rare cases carry each risk. Counting
with resampling weights makes a bootstrap of all metrics a few cumulative sums instead of a sort
per resample.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rarealert.errors import BadInputError, RareAlertError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

_MAX_GROUPS = 512  # risks a calibration curve is fitted on in a resample
_SOME = 1e-12  # cases; less than any that was drawn, and no division by zero


class UndefinedMetricError(RareAlertError):
    """The cases do not define the metric; the sentence says why."""


@dataclass(frozen=True)
class RiskCounts:
    """How many cases carry each risk, in ``r`` samples at once (one, or one per resample).

    ``risk`` holds the distinct risks, shape ``(g,)``, ascending; ``rare`` and ``nonrare`` hold
    weighted counts, shape ``(r, g)``.
    """

    risk: FloatArray
    rare: FloatArray
    nonrare: FloatArray

    @cached_property
    def rare_up_to(self) -> FloatArray:
        """Rare cases with at most each risk, shape ``(r, g)``."""
        return np.asarray(np.cumsum(self.rare, axis=1))

    @cached_property
    def nonrare_up_to(self) -> FloatArray:
        """Non-rare cases with at most each risk, shape ``(r, g)``."""
        return np.asarray(np.cumsum(self.nonrare, axis=1))

    @property
    def n_rare(self) -> FloatArray:
        """Rare cases, shape ``(r,)``."""
        return self.rare_up_to[:, -1]

    @property
    def n_nonrare(self) -> FloatArray:
        """Non-rare cases, shape ``(r,)``."""
        return self.nonrare_up_to[:, -1]

    @property
    def total(self) -> FloatArray:
        """All cases, shape ``(r,)``."""
        return self.n_rare + self.n_nonrare

    def below(self, threshold: float) -> tuple[FloatArray, FloatArray]:
        """Rare and non-rare cases with a risk below ``threshold``, each of shape ``(r,)``."""
        first = int(np.searchsorted(self.risk, threshold, side="left"))
        if first == 0:
            return np.zeros_like(self.n_rare), np.zeros_like(self.n_rare)
        return self.rare_up_to[:, first - 1], self.nonrare_up_to[:, first - 1]

    @cached_property
    def coarse(self) -> "RiskCounts":
        """Neighbouring risks merged in a bootstrap, so that a fit per resample stays affordable.

        Merged risks weigh by their cases: where many share one risk, a plain mean would move them.
        """
        groups = self.risk.size
        if groups <= _MAX_GROUPS or self.rare.shape[0] == 1:
            return self
        starts = np.linspace(0, groups, _MAX_GROUPS, endpoint=False).astype(np.intp)
        cases = (self.rare + self.nonrare).sum(axis=0)
        cases = np.maximum(cases, _SOME)  # a risk that no resample drew
        return RiskCounts(
            np.add.reduceat(self.risk * cases, starts) / np.add.reduceat(cases, starts),
            np.add.reduceat(self.rare, starts, axis=1),
            np.add.reduceat(self.nonrare, starts, axis=1),
        )


def checked(labels: ArrayLike, risks: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Both as float arrays of shape ``(n,)``.

    Raises:
        BadInputError: lengths differ, nothing is left, a label is not 0 or 1, or a risk is NaN
            or outside 0-1.
    """
    truth = np.asarray(labels, dtype=np.float64)
    risk = np.asarray(risks, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != risk.shape:
        raise BadInputError(
            f"labels have shape {truth.shape} and risks {risk.shape}; give one risk per label."
        )
    if truth.size == 0:
        raise BadInputError("There are no predictions; give at least one case.")
    if not np.isin(truth, (0.0, 1.0)).all():
        raise BadInputError("A label is neither 0 nor 1; give 1 for rare and 0 for non-rare.")
    missing = int(np.isnan(risk).sum())
    if missing:
        raise BadInputError(f"{missing} risks are NaN; leave cases without a prediction out.")
    if (risk < 0).any() or (risk > 1).any():
        raise BadInputError("A risk lies outside 0-1; give probabilities, not percentages.")
    return truth, risk


class Ranking:
    """Labels and risks of ``n`` cases, sorted once by risk, ties merged."""

    def __init__(self, labels: ArrayLike, risks: ArrayLike) -> None:
        truth, risk = checked(labels, risks)
        self._order: IntArray = np.argsort(risk, kind="stable")
        ordered = risk[self._order]
        self._truth = truth[self._order]
        new = np.flatnonzero(np.diff(ordered) > 0) + 1
        self._starts: IntArray = np.concatenate([[0], new]).astype(np.intp)
        self._risk = ordered[self._starts]

    def count(self, weights: NDArray[np.generic] | None = None) -> RiskCounts:
        """Counts under case ``weights`` of shape ``(r, n)``; without weights every case once."""
        if weights is None:
            ordered = np.ones((1, self._order.size))
        else:
            ordered = np.take(weights.astype(np.float64), self._order, axis=1)
        rare = ordered * self._truth
        nonrare = ordered - rare
        if self._starts.size < self._order.size:
            rare = np.add.reduceat(rare, self._starts, axis=1)
            nonrare = np.add.reduceat(nonrare, self._starts, axis=1)
        return RiskCounts(self._risk, rare, nonrare)


def ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """``numerator / denominator``, NaN where the denominator is 0 (a resample without a class)."""
    undefined = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    return np.asarray(np.divide(numerator, denominator, out=undefined, where=denominator > 0))


def single(values: FloatArray, why_undefined: str) -> float:
    """The one value of a one-sample result.

    Raises:
        UndefinedMetricError: with ``why_undefined``, where the value is NaN.
    """
    value = float(values[0])
    if np.isnan(value):
        raise UndefinedMetricError(why_undefined)
    return value
