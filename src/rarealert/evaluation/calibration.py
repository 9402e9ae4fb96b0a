"""Whether a risk of 20 % comes true in 20 of 100 cases.

``*_of`` functions take ``RiskCounts`` of ``r`` samples and give shape ``(r,)`` with NaN where a
sample does not define the metric; the others take labels and risks of shape ``(n,)`` and raise
``UndefinedMetricError`` instead.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rarealert.evaluation.discrimination import (
    BOTH_CLASSES,
    FloatArray,
    Ranking,
    RiskCounts,
    ratio,
    single,
)

ECE_BINS = 10
_LOGIT_CLIP = 1e-4  # a risk below 1 in 10,000 can't be told from 0 on any sample here
_NEWTON_STEPS = 30
_NEWTON_STEP_LIMIT = 3.0  # logits a step; keeps a nearly separable sample from oscillating
_RIDGE = 1e-8
_NO_SLOPE = "it needs both classes, risks that differ, and labels they do not separate completely"


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


def brier(labels: ArrayLike, risks: ArrayLike) -> float:
    """Brier score, 0 to 1, lower is better."""
    return float(brier_of(Ranking(labels, risks).count())[0])


def log_loss(labels: ArrayLike, risks: ArrayLike) -> float:
    """Log loss in nats, lower is better."""
    return float(log_loss_of(Ranking(labels, risks).count())[0])


def ece(labels: ArrayLike, risks: ArrayLike) -> float:
    """Expected calibration error, 0 to 1, over ten equal-width bins."""
    return float(ece_of(Ranking(labels, risks).count())[0])


def observed_to_expected(labels: ArrayLike, risks: ArrayLike) -> float:
    """Observed over expected rare cases."""
    why = "every risk is 0, so no case is expected"
    return single(observed_to_expected_of(Ranking(labels, risks).count()), why)


def calibration_slope(labels: ArrayLike, risks: ArrayLike) -> float:
    """Slope of the logistic recalibration."""
    return single(calibration_slope_of(Ranking(labels, risks).count()), _NO_SLOPE)


def calibration_intercept(labels: ArrayLike, risks: ArrayLike) -> float:
    """Calibration in the large, in logits."""
    return single(calibration_intercept_of(Ranking(labels, risks).count()), BOTH_CLASSES)


def ici(labels: ArrayLike, risks: ArrayLike) -> float:
    """Integrated calibration index, 0 to 1."""
    return single(ici_of(Ranking(labels, risks).count()), BOTH_CLASSES)


def calibration_points(labels: ArrayLike, risks: ArrayLike, bins: int) -> FloatArray:
    """Mean risk, observed share of rare cases and cases of up to ``bins`` equally full bins.

    Shape ``(n_bins, 3)``; equal risks stay in one bin.
    """
    counts = Ranking(labels, risks).count()
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
    undetermined solvable; callers decide which results count.
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
