"""Metrics of risks against binary labels, for one sample or for all resamples at once.

Every metric here depends only on how many rare and non-rare cases have each risk. ``RiskCounts``
holds these counts, so a bootstrap of all metrics costs a few cumulative sums a resample instead
of a sort.

``*_of`` functions take the ``RiskCounts`` of ``r`` samples and return shape ``(r,)``, NaN where a
sample does not define the metric. ``measure`` and ``auroc`` take labels (1 rare, 0 non-rare) and
risks (0-1) of shape ``(n,)`` and raise ``UndefinedMetricError`` instead.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rarealert.errors import BadInputError, RareAlertError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

OPERATING_POINT = 0.95  # the specificity, and the sensitivity, at which thresholds are chosen
NET_BENEFIT_AT = 0.05  # threshold probability: one rare disease found is worth 19 false alarms
ECE_BINS = 10
_MAX_FITTED = 512  # distinct risks in a fit of a calibration curve to a resample
_TINY = 1e-12  # cases; smaller than any count, and no division by zero
_LOGIT_CLIP = 1e-4  # no sample here distinguishes a risk below 1 in 10,000 from 0
_NEWTON_STEPS = 30
_NEWTON_STEP_LIMIT = 3.0  # logits a step; keeps a nearly separable sample from oscillating
_RIDGE = 1e-8
_BOTH_CLASSES = "it needs both rare and non-rare cases"


class UndefinedMetricError(RareAlertError):
    """The cases do not define the metric; the message gives the reason."""


@dataclass(frozen=True)
class RiskCounts:
    """How many cases have each risk, in ``r`` samples at once (one, or one per resample).

    ``risk`` holds the distinct risks, shape ``(g,)``, ascending; ``rare`` and ``nonrare`` hold
    weighted counts, shape ``(r, g)``.
    """

    risk: FloatArray
    rare: FloatArray
    nonrare: FloatArray

    @classmethod
    def of(cls, labels: ArrayLike, risks: ArrayLike) -> "RiskCounts":
        """The counts of one sample of ``n`` cases.

        Raises:
            BadInputError: labels or risks are malformed; see ``checked``.
        """
        truth, risk = checked(labels, risks)
        distinct, place = np.unique(risk, return_inverse=True)
        rare, nonrare = (
            np.bincount(place, weights=of_label, minlength=distinct.size).astype(np.float64)
            for of_label in (truth, 1 - truth)
        )
        return cls(distinct, rare[None], nonrare[None])

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
        """The counts with neighbouring risks merged, for metrics that fit a curve per resample.

        A merged risk is the mean over its cases: where many cases share one risk, the mean of the
        distinct risks would be off. One sample is never merged.
        """
        groups = self.risk.size
        if groups <= _MAX_FITTED or self.rare.shape[0] == 1:
            return self
        starts = np.linspace(0, groups, _MAX_FITTED, endpoint=False).astype(np.intp)
        cases = (self.rare + self.nonrare).sum(axis=0)
        cases = np.maximum(cases, _TINY)  # a risk that no resample drew
        return RiskCounts(
            np.add.reduceat(self.risk * cases, starts) / np.add.reduceat(cases, starts),
            np.add.reduceat(self.rare, starts, axis=1),
            np.add.reduceat(self.nonrare, starts, axis=1),
        )


CountsMetric = Callable[[RiskCounts], FloatArray]


def checked(labels: ArrayLike, risks: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Both as float arrays of shape ``(n,)``.

    Raises:
        BadInputError: lengths differ, there is no case, a label is not 0 or 1, or a risk is NaN
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
        raise BadInputError("A risk is outside 0-1; give probabilities, not percentages.")
    return truth, risk


def ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """``numerator / denominator``, NaN where the denominator is 0 (a resample without a class)."""
    undefined = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    return np.asarray(np.divide(numerator, denominator, out=undefined, where=denominator > 0))


def _per_sample_sum(left: FloatArray, right: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("rg,rg->r", left, right))


# Discrimination


def auroc_of(counts: RiskCounts) -> FloatArray:
    """Area under the ROC curve as the Mann-Whitney statistic, ties counted half.

    Hanley and McNeil, Radiology 143:29 (1982).
    """
    tied = _per_sample_sum(counts.rare, counts.nonrare)
    wins = _per_sample_sum(counts.rare, counts.nonrare_up_to) - tied / 2
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
    value = ratio(_per_sample_sum(counts.rare, precision), counts.n_rare)
    return np.where(counts.n_nonrare > 0, value, np.nan)


def sensitivity_of(counts: RiskCounts, threshold: float) -> FloatArray:
    """Share of rare cases with a risk at or above ``threshold``."""
    return ratio(counts.n_rare - counts.below(threshold)[0], counts.n_rare)


def specificity_of(counts: RiskCounts, threshold: float) -> FloatArray:
    """Share of non-rare cases with a risk below ``threshold``."""
    return ratio(counts.below(threshold)[1], counts.n_nonrare)


def threshold_at_specificity(labels: ArrayLike, risks: ArrayLike, target: float) -> float:
    """The lowest threshold whose specificity on these cases is at least ``target``.

    Just above the highest risk where even that risk is too common among non-rare cases.

    Raises:
        UndefinedMetricError: every case is rare.
    """
    counts = RiskCounts.of(labels, risks)
    if not counts.n_nonrare[0]:
        raise UndefinedMetricError("every case is rare")
    above = np.append(counts.risk, np.nextafter(counts.risk[-1], np.inf))
    below = np.concatenate([[0.0], counts.nonrare_up_to[0]])
    return float(above[np.argmax(below >= target * counts.n_nonrare[0] - 1e-9)])


def threshold_at_sensitivity(labels: ArrayLike, risks: ArrayLike, target: float) -> float:
    """The highest threshold whose sensitivity on these cases is at least ``target``.

    Raises:
        UndefinedMetricError: no case is rare.
    """
    counts = RiskCounts.of(labels, risks)
    if not counts.n_rare[0]:
        raise UndefinedMetricError("no case is rare")
    flagged = np.cumsum(counts.rare[0, ::-1])
    first = int(np.argmax(flagged >= target * counts.n_rare[0] - 1e-9))
    return float(counts.risk[::-1][first])


def roc_points(labels: ArrayLike, risks: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """False and true positive rate at every distinct threshold, from (0, 0) to (1, 1).

    Both labels must be present.
    """
    counts = RiskCounts.of(labels, risks)
    fpr = np.cumsum(counts.nonrare[0, ::-1]) / counts.n_nonrare[0]
    tpr = np.cumsum(counts.rare[0, ::-1]) / counts.n_rare[0]
    return np.concatenate([[0.0], fpr]), np.concatenate([[0.0], tpr])


def net_benefit_of(counts: RiskCounts, threshold: float) -> FloatArray:
    """Net benefit per case of acting at or above ``threshold`` (0 <= threshold < 1).

    True positives minus false positives weighted by the odds of the threshold, over all cases:
    Vickers and Elkin, Med Decis Making 26:565 (2006).
    """
    rare_below, nonrare_below = counts.below(threshold)
    gained = counts.n_rare - rare_below
    lost = (counts.n_nonrare - nonrare_below) * threshold / (1 - threshold)
    return ratio(gained - lost, counts.total)


# Calibration


def brier_of(counts: RiskCounts) -> FloatArray:
    """Mean squared difference of risk and label (Brier, Mon Weather Rev 78:1, 1950)."""
    squared = counts.rare @ (1 - counts.risk) ** 2 + counts.nonrare @ counts.risk**2
    return ratio(squared, counts.total)


def log_loss_of(counts: RiskCounts) -> FloatArray:
    """Mean negative log likelihood in nats; risks are clipped by the float's epsilon."""
    tiny = np.finfo(np.float64).eps
    risk = np.clip(counts.risk, tiny, 1 - tiny)
    return ratio(-(counts.rare @ np.log(risk) + counts.nonrare @ np.log1p(-risk)), counts.total)


def ece_of(counts: RiskCounts) -> FloatArray:
    """Expected calibration error over ten bins of equal width (Guo et al., ICML 2017)."""
    bins = np.minimum((counts.risk * ECE_BINS).astype(np.intp), ECE_BINS - 1)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(bins)) + 1])
    gap = counts.nonrare * counts.risk - counts.rare * (1 - counts.risk)
    return ratio(np.abs(np.add.reduceat(gap, starts, axis=1)).sum(axis=1), counts.total)


def observed_to_expected_of(counts: RiskCounts) -> FloatArray:
    """O:E: rare cases over the sum of all risks; above 1 the risks are too low."""
    expected = counts.rare @ counts.risk + counts.nonrare @ counts.risk
    return ratio(counts.n_rare, expected)


def calibration_slope_of(counts: RiskCounts) -> FloatArray:
    """Slope of a logistic regression of the label on the logit of the risk; 1 is ideal.

    Cox, Biometrika 45:562 (1958); Van Calster et al., BMC Med 17:230 (2019). Below 1 the risks
    are too extreme.
    """
    coarse = counts.coarse
    logit = _logit(coarse.risk)
    if logit.size < 2:
        return np.full(counts.rare.shape[0], np.nan)
    design = np.column_stack([np.ones_like(logit), logit])
    slope = _logistic_fit(design, np.zeros_like(logit), coarse)[:, 1]
    return np.where(_separated(coarse), np.nan, slope)


def calibration_intercept_of(counts: RiskCounts) -> FloatArray:
    """Calibration in the large: the intercept with the slope held at 1; 0 is ideal.

    Above 0 the risks are too low on average (Van Calster et al., BMC Med 17:230, 2019).
    """
    coarse = counts.coarse
    logit = _logit(coarse.risk)
    fitted = _logistic_fit(np.ones((logit.size, 1)), logit, coarse)[:, 0]
    return np.where((counts.n_rare > 0) & (counts.n_nonrare > 0), fitted, np.nan)


def ici_of(counts: RiskCounts) -> FloatArray:
    """Integrated calibration index: mean distance of the risks from a smooth calibration curve.

    Austin and Steyerberg, Stat Med 38:4051 (2019), with the curve of Harrell's val.prob family:
    a logistic regression on a restricted cubic spline of the logit with knots at its 10th, 50th
    and 90th percentile; a straight line where these coincide.
    """
    coarse = counts.coarse
    logit = _logit(coarse.risk)
    weight = coarse.rare + coarse.nonrare
    design = _spline(logit, weight.sum(axis=0))
    fitted = _expit(_logistic_fit(design, np.zeros_like(logit), coarse) @ design.T)
    distance = ratio((weight * np.abs(fitted - coarse.risk)).sum(axis=1), coarse.total)
    return np.where((counts.n_rare > 0) & (counts.n_nonrare > 0), distance, np.nan)


def calibration_points(labels: ArrayLike, risks: ArrayLike, bins: int) -> FloatArray:
    """Points of a calibration plot, from up to ``bins`` equally full bins.

    Returns:
        Mean risk, observed share of rare cases and number of cases of each bin, shape
        ``(n_bins, 3)``. Equal risks are in one bin.
    """
    counts = RiskCounts.of(labels, risks)
    weight = (counts.rare + counts.nonrare)[0]
    middle = (np.cumsum(weight) - weight / 2) / weight.sum()
    which = np.minimum((middle * bins).astype(np.intp), bins - 1)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(which)) + 1])
    cases = np.add.reduceat(weight, starts)
    predicted = np.add.reduceat(weight * counts.risk, starts) / cases
    return np.column_stack([predicted, np.add.reduceat(counts.rare[0], starts) / cases, cases])


def _logit(risk: FloatArray) -> FloatArray:
    clipped = np.clip(risk, _LOGIT_CLIP, 1 - _LOGIT_CLIP)
    return np.asarray(np.log(clipped / (1 - clipped)))


def _expit(logit: FloatArray) -> FloatArray:
    return np.asarray(1 / (1 + np.exp(-np.clip(logit, -40, 40))))


def _separated(counts: RiskCounts) -> NDArray[np.bool_]:
    """Samples without a finite slope: at most one risk is shared by rare and non-rare cases."""
    last = counts.risk.size - 1
    rare, nonrare = counts.rare > 0, counts.nonrare > 0
    lowest_rare, highest_rare = rare.argmax(axis=1), last - rare[:, ::-1].argmax(axis=1)
    lowest, highest = nonrare.argmax(axis=1), last - nonrare[:, ::-1].argmax(axis=1)
    apart = (highest <= lowest_rare) | (highest_rare <= lowest)
    return np.asarray(apart | ~rare.any(axis=1) | ~nonrare.any(axis=1))


def _spline(logit: FloatArray, weight: FloatArray) -> FloatArray:
    """Columns 1, x and one restricted cubic term (Harrell, Regression Modeling Strategies 2.4)."""
    line = np.column_stack([np.ones_like(logit), logit])
    place = np.cumsum(weight) / weight.sum()
    at = np.minimum(np.searchsorted(place, (0.1, 0.5, 0.9)), logit.size - 1)
    low, middle, high = logit[at]
    if not low < middle < high:
        return line

    def cubed(knot: float) -> FloatArray:
        return np.asarray(np.maximum(logit - knot, 0) ** 3)

    bend = cubed(low) - cubed(middle) * (high - low) / (high - middle)
    bend += cubed(high) * (middle - low) / (high - middle)
    return np.column_stack([line, bend / (high - low) ** 2])


def _logistic_fit(design: FloatArray, offset: FloatArray, counts: RiskCounts) -> FloatArray:
    """Maximum-likelihood coefficients of every sample, shape ``(r, d)``, by Newton's method.

    ``design`` has shape ``(g, d)``. A ridge of 1e-8 keeps a sample that leaves a column
    undetermined solvable; callers decide which results are valid.
    """
    weight = counts.rare + counts.nonrare
    columns = design.shape[1]
    fitted = np.zeros((weight.shape[0], columns))
    products = (design[:, :, None] * design[:, None, :]).reshape(design.shape[0], -1)
    ridge = _RIDGE * np.eye(columns)
    for _ in range(_NEWTON_STEPS):
        chance = _expit(fitted @ design.T + offset)
        gradient = (counts.rare - weight * chance) @ design - _RIDGE * fitted
        curvature = (weight * chance * (1 - chance)) @ products
        hessian = curvature.reshape(-1, columns, columns) + ridge
        step = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
        longest = np.abs(step).max(axis=1, keepdims=True)
        fitted = fitted + step * np.minimum(1, _NEWTON_STEP_LIMIT / np.maximum(longest, 1e-300))
        if longest.max() < 1e-9:
            break
    return fitted


# By name

METRICS: Mapping[str, CountsMetric] = {
    "auroc": auroc_of,
    "auprc": auprc_of,
    "brier": brier_of,
    "log_loss": log_loss_of,
    "ece": ece_of,
    "ici": ici_of,
    "calibration_slope": calibration_slope_of,
    "calibration_intercept": calibration_intercept_of,
    "observed_to_expected": observed_to_expected_of,
    "net_benefit_at_5pct": partial(net_benefit_of, threshold=NET_BENEFIT_AT),
}
"""Metrics that need both classes and no threshold of the validation part."""

_WHY_UNDEFINED = {
    "calibration_slope": "it needs both classes, risks that differ, and labels they do not "
    "separate completely",
    "observed_to_expected": "every risk is 0, so no case is expected",
}


def measure(name: str, labels: ArrayLike, risks: ArrayLike) -> float:
    """Value of the metric ``name`` of ``METRICS`` on one sample.

    Raises:
        BadInputError: labels or risks are malformed.
        UndefinedMetricError: the sample does not define the metric.
    """
    value = float(METRICS[name](RiskCounts.of(labels, risks))[0])
    if np.isnan(value):
        raise UndefinedMetricError(_WHY_UNDEFINED.get(name, _BOTH_CLASSES))
    return value


def auroc(labels: ArrayLike, risks: ArrayLike) -> float:
    """Area under the ROC curve, 0 to 1; raises as ``measure`` does."""
    return measure("auroc", labels, risks)
