"""Risks sorted once and counted per distinct value: what every metric here is computed from.

A metric of binary labels needs only how many rare and non-rare cases carry each risk. Counting
with resampling weights makes a bootstrap of all metrics a few cumulative sums instead of a sort
per resample.

How well risks tell rare from non-rare cases.

``*_of`` functions take ``RiskCounts`` of ``r`` samples and give shape ``(r,)`` with NaN where a
sample does not define the metric; the functions without the suffix take labels (1 rare, 0 not)
and risks of shape ``(n,)`` and raise ``UndefinedMetricError`` instead.

What a risk is worth to the one who acts on it: net benefit and the decision curve.
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


BOTH_CLASSES = "it needs both rare and non-rare cases"
_TINY = 1e-12  # cases; stands for none where no case is flagged and precision counts for nothing


def _inner(left: FloatArray, right: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("rg,rg->r", left, right))


def auroc_of(counts: RiskCounts) -> FloatArray:
    """Area under the ROC curve as the Mann-Whitney statistic, ties counted half.

    Hanley and McNeil, Radiology 143:29 (1982).
    """
    up_to, tied = _inner(counts.rare, counts.nonrare_up_to), _inner(counts.rare, counts.nonrare)
    wins = up_to - tied / 2
    return ratio(wins, counts.n_rare * counts.n_nonrare)


def auprc_of(counts: RiskCounts) -> FloatArray:
    """Average precision: precision at each distinct risk, weighted by the recall it adds.

    The step-wise sum of scikit-learn's ``average_precision_score``; no interpolation (Davis and
    Goadrich, ICML 2006, show why a trapezium would flatter).
    """
    flagged_rare = counts.n_rare[:, None] - counts.rare_up_to + counts.rare
    flagged = counts.n_nonrare[:, None] - counts.nonrare_up_to + counts.nonrare
    flagged += flagged_rare
    precision = flagged_rare / np.maximum(flagged, _TINY)
    value = ratio(_inner(counts.rare, precision), counts.n_rare)
    return np.where(counts.n_nonrare > 0, value, np.nan)


def sensitivity_of(counts: RiskCounts, threshold: float) -> FloatArray:
    """Share of rare cases with a risk at or above ``threshold``."""
    return ratio(counts.n_rare - counts.below(threshold)[0], counts.n_rare)


def specificity_of(counts: RiskCounts, threshold: float) -> FloatArray:
    """Share of non-rare cases with a risk below ``threshold``."""
    return ratio(counts.below(threshold)[1], counts.n_nonrare)


def auroc(labels: ArrayLike, risks: ArrayLike) -> float:
    """Area under the ROC curve, 0 to 1."""
    return single(auroc_of(Ranking(labels, risks).count()), BOTH_CLASSES)


def auprc(labels: ArrayLike, risks: ArrayLike) -> float:
    """Average precision, 0 to 1; its chance level is the share of rare cases."""
    return single(auprc_of(Ranking(labels, risks).count()), BOTH_CLASSES)


def sensitivity(labels: ArrayLike, risks: ArrayLike, threshold: float) -> float:
    """Share of rare cases at or above ``threshold``."""
    return single(sensitivity_of(Ranking(labels, risks).count(), threshold), "no case is rare")


def specificity(labels: ArrayLike, risks: ArrayLike, threshold: float) -> float:
    """Share of non-rare cases below ``threshold``."""
    return single(specificity_of(Ranking(labels, risks).count(), threshold), "every case is rare")


def sensitivity_at_specificity(labels: ArrayLike, risks: ArrayLike, target: float) -> float:
    """The highest sensitivity of these same cases with a specificity of at least ``target``.

    It chooses its threshold on the cases it measures: right on a validation part, flattering on
    a test part, where ``sensitivity`` takes a threshold chosen elsewhere.
    """
    return sensitivity(labels, risks, threshold_at_specificity(labels, risks, target))


def specificity_at_sensitivity(labels: ArrayLike, risks: ArrayLike, target: float) -> float:
    """The highest specificity of these same cases with a sensitivity of at least ``target``."""
    return specificity(labels, risks, threshold_at_sensitivity(labels, risks, target))


def threshold_at_specificity(labels: ArrayLike, risks: ArrayLike, target: float) -> float:
    """The lowest threshold whose specificity on these cases is at least ``target``.

    Just above the highest risk where even that risk is too common among non-rare cases.
    """
    counts = Ranking(labels, risks).count()
    single(counts.n_nonrare * np.where(counts.n_nonrare > 0, 1, np.nan), "every case is rare")
    above = np.append(counts.risk, np.nextafter(counts.risk[-1], np.inf))
    below = np.concatenate([[0.0], counts.nonrare_up_to[0]])
    return float(above[np.argmax(below >= target * counts.n_nonrare[0] - 1e-9)])


def threshold_at_sensitivity(labels: ArrayLike, risks: ArrayLike, target: float) -> float:
    """The highest threshold whose sensitivity on these cases is at least ``target``."""
    counts = Ranking(labels, risks).count()
    single(counts.n_rare * np.where(counts.n_rare > 0, 1, np.nan), "no case is rare")
    flagged = np.cumsum(counts.rare[0, ::-1])
    first = int(np.argmax(flagged >= target * counts.n_rare[0] - 1e-9))
    return float(counts.risk[::-1][first])


def roc_points(labels: ArrayLike, risks: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """False and true positive rate at every distinct threshold, from (0, 0) to (1, 1)."""
    counts = Ranking(labels, risks).count()
    single(auroc_of(counts), BOTH_CLASSES)
    fpr = np.cumsum(counts.nonrare[0, ::-1]) / counts.n_nonrare[0]
    tpr = np.cumsum(counts.rare[0, ::-1]) / counts.n_rare[0]
    return np.concatenate([[0.0], fpr]), np.concatenate([[0.0], tpr])


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
