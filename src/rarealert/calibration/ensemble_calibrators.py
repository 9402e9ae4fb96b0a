"""From scores to risks: five ways and leaving them as they are, chosen on held-out folds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression, isotonic_regression
from sklearn.metrics import log_loss

Floats = NDArray[np.float64]

_GRID = 64  # scores at which Venn-Abers is worked out, between them interpolated
_EDGE = 1e-6  # scores this close to 0 or 1 count as certain; their logarithm must stay finite


@dataclass(frozen=True)
class Calibrator:
    """A frozen, non-decreasing map from score to risk, both in 0 to 1.

    ``parameters`` are intercept and the slopes on ``log s`` and ``-log(1 - s)`` for ``platt``,
    ``temperature`` and ``beta``, or scores followed by their risks for ``isotonic`` and
    ``venn_abers``; nothing for ``none``.
    """

    method: str
    parameters: tuple[float, ...] = ()

    def __call__(self, scores: Floats) -> Floats:
        """Risks of ``scores``, same shape."""
        if self.method == "none":
            return np.asarray(scores, dtype=np.float64)
        if self.method in ("isotonic", "venn_abers"):
            half = len(self.parameters) // 2
            steps = np.asarray(self.parameters)
            return np.asarray(np.interp(scores, steps[:half], steps[half:]), dtype=np.float64)
        intercept, low, high = self.parameters
        sides = _log_sides(scores)
        return np.asarray(expit(intercept + low * sides[0] + high * sides[1]), dtype=np.float64)


def _log_sides(scores: Floats) -> Floats:
    """``log s`` and ``-log(1 - s)``, shape ``(2, n)``."""
    inside = np.clip(scores, _EDGE, 1 - _EDGE)
    return np.asarray([np.log(inside), -np.log1p(-inside)], dtype=np.float64)


def soft_targets(rare: NDArray[np.bool_], weights: Floats) -> Floats:
    """Platt's targets, which keep the maps finite when the classes separate.

    Platt, Probabilistic outputs for support vector machines, 1999, section 2.2.
    """
    of_rare, of_others = weights[rare].sum(), weights[~rare].sum()
    targets = np.where(rare, (of_rare + 1) / (of_rare + 2), 1 / (of_others + 2))
    return np.asarray(targets, dtype=np.float64)


def fit_sigmoid(design: Floats, targets: Floats, weights: Floats) -> Floats:
    """Intercept and non-negative slopes that minimise the weighted log loss, shape ``(1 + k,)``."""

    def loss(theta: Floats) -> tuple[float, Floats]:
        line = theta[0] + theta[1:] @ design
        # log(1 + exp(line)) - target * line is the cross-entropy of a logit
        value = float(weights @ (np.logaddexp(0, line) - targets * line))
        slack = weights * (expit(line) - targets)
        return value, np.concatenate([[slack.sum()], design @ slack])

    k = len(design)
    start = np.concatenate([[0.0], np.full(k, 1.0)])
    bounds = [(None, None), *[(0, None)] * k]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return np.asarray(found.x, dtype=np.float64)


def fit_none(_scores: Floats, _rare: NDArray[np.bool_], _weights: Floats) -> Calibrator:
    """Leave the scores as they are."""
    return Calibrator("none")


def fit_platt(scores: Floats, rare: NDArray[np.bool_], weights: Floats) -> Calibrator:
    """A sigmoid of the score's logit (Platt, 1999)."""
    line = logit(np.clip(scores, _EDGE, 1 - _EDGE))[None, :]
    intercept, slope = fit_sigmoid(line, soft_targets(rare, weights), weights)
    return Calibrator("platt", (float(intercept), float(slope), float(slope)))


def fit_temperature(scores: Floats, rare: NDArray[np.bool_], weights: Floats) -> Calibrator:
    """The score's logit over one temperature (Guo et al., ICML 2017); 0.5 stays 0.5."""
    line = logit(np.clip(scores, _EDGE, 1 - _EDGE))
    targets = soft_targets(rare, weights)

    def loss(log_slope: float) -> float:
        scaled = np.exp(log_slope) * line
        return float(weights @ (np.logaddexp(0, scaled) - targets * scaled))

    slope = float(np.exp(minimize_scalar(loss, bounds=(-5, 5), method="bounded").x))
    return Calibrator("temperature", (0.0, slope, slope))


def fit_venn_abers(scores: Floats, rare: NDArray[np.bool_], weights: Floats) -> Calibrator:
    """The inductive Venn-Abers predictor, merged to one risk for log loss.

    Vovk and Petej, Venn-Abers predictors, UAI 2014: isotonic regressions with the new case taken
    as non-rare and as rare give p0 and p1; the risk is p1 / (1 - p0 + p1). Worked out at up to 64
    quantiles of the scores, with the new case weighing 1, and linear between.
    """
    grid = np.unique(np.quantile(scores, np.linspace(0, 1, _GRID)))
    order = np.argsort(scores, kind="stable")
    ranked, labels, heavy = scores[order], rare[order].astype(float), weights[order]
    risks = []
    for score in grid:
        given = []
        for label in (0.0, 1.0):
            # among equal scores the mean decides, so they are one block to the new case
            first, last = np.searchsorted(ranked, score), np.searchsorted(ranked, score, "right")
            block = heavy[first:last]
            mean = (block @ labels[first:last] + label) / (block.sum() + 1)
            fitted = isotonic_regression(
                np.concatenate([labels[:first], [mean], labels[last:]]),
                sample_weight=np.concatenate([heavy[:first], [block.sum() + 1], heavy[last:]]),
            )
            given.append(fitted[first])
        risks.append(given[1] / (1 - given[0] + given[1]))
    return Calibrator("venn_abers", (*grid.tolist(), *map(float, risks)))


def fit_beta(scores: Floats, rare: NDArray[np.bool_], weights: Floats) -> Calibrator:
    """A sigmoid with a slope of its own on either side.

    Kull, Silva Filho and Flach, Beta calibration, AISTATS 2017; slopes are kept from falling
    below 0, so that the map never turns ranks round.
    """
    theta = fit_sigmoid(_log_sides(scores), soft_targets(rare, weights), weights)
    return Calibrator("beta", tuple(float(value) for value in theta))


def fit_isotonic(scores: Floats, rare: NDArray[np.bool_], weights: Floats) -> Calibrator:
    """A non-decreasing step map (Zadrozny and Elkan, 2002), linear between its steps."""
    model = IsotonicRegression(out_of_bounds="clip")
    model.fit(scores, soft_targets(rare, weights), sample_weight=weights)
    steps: Any = np.concatenate([model.X_thresholds_, model.y_thresholds_])
    return Calibrator("isotonic", tuple(float(value) for value in steps))


METHODS: Mapping[str, Callable[[Floats, NDArray[np.bool_], Floats], Calibrator]] = {
    "none": fit_none,
    "temperature": fit_temperature,
    "platt": fit_platt,
    "beta": fit_beta,
    "isotonic": fit_isotonic,
    "venn_abers": fit_venn_abers,
}
"""Every calibration by its name in reports."""


def held_out_losses(
    scores: Floats, rare: NDArray[np.bool_], weights: Floats, fold: NDArray[np.intp]
) -> dict[str, float]:
    """Log loss of each method on folds it was not fitted on, in nats.

    ``scores`` must themselves be out-of-fold; all arrays have shape ``(n_cases,)``.
    """
    losses = {}
    for method, fit in METHODS.items():
        risks = np.empty(len(scores))
        for number in np.unique(fold):
            out = fold == number
            risks[out] = fit(scores[~out], rare[~out], weights[~out])(scores[out])
        losses[method] = float(log_loss(rare, risks, sample_weight=weights, labels=[False, True]))
    return losses


def choose_calibrator(
    scores: Floats, rare: NDArray[np.bool_], weights: Floats, fold: NDArray[np.intp]
) -> Calibrator:
    """The method with the least held-out log loss, fitted on all of ``scores`` and frozen.

    A tie goes to the method named first, which is the simpler one.
    """
    losses = held_out_losses(scores, rare, weights, fold)
    return METHODS[min(losses, key=losses.__getitem__)](scores, rare, weights)
