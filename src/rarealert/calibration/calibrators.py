"""Maps from log odds to calibrated risk, and the choice between them on held-out folds."""

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict

from rarealert.calibration.venn_abers import pool, probability_pairs

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_FOLDS = 5  # on which the method is chosen
_VENN_ABERS_POINTS = 64  # quantiles at which the predictor is evaluated; linear between them


class Calibrator(BaseModel):
    """A frozen, non-decreasing map from log odds to risk.

    ``parameters`` are intercept and slope for ``platt``; intercept and the slopes on both sides
    for ``beta``; log odds followed by their risks for ``isotonic`` and ``venn_abers``; empty for
    ``none``, which is the logistic function alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["none", "platt", "beta", "isotonic", "venn_abers"]
    parameters: tuple[float, ...] = ()

    def risk(self, log_odds: ArrayLike) -> Floats:
        """Return the risks 0 to 1 of ``log_odds``, same shape."""
        from scipy.special import expit

        values = np.asarray(log_odds, dtype=np.float64)
        if self.method in ("isotonic", "venn_abers"):
            known, risks = np.split(np.asarray(self.parameters), 2)
            return np.asarray(np.interp(values, known, risks), dtype=np.float64)
        if self.method == "platt":
            intercept, slope = self.parameters
            values = intercept + slope * values
        elif self.method == "beta":
            intercept, low, high = self.parameters
            below, above = _sides(values)
            values = intercept + low * below + high * above
        return np.asarray(expit(values), dtype=np.float64)


def _sides(log_odds: Floats) -> Floats:
    """``log s`` and ``-log(1 - s)`` of the scores ``s`` with these log odds, shape ``(2, ...)``."""
    return np.stack([-np.logaddexp(0, -log_odds), np.logaddexp(0, log_odds)])


def soft_targets(rare: Bools, weights: Floats) -> Floats:
    """Platt's targets, which keep the maps finite when the classes separate, shape ``(n,)``.

    Platt, Probabilistic outputs for support vector machines, 1999, section 2.2.
    """
    of_rare, of_others = weights[rare].sum(), weights[~rare].sum()
    targets = np.where(rare, (of_rare + 1) / (of_rare + 2), 1 / (of_others + 2))
    return np.asarray(targets, dtype=np.float64)


def fit_sigmoid(design: Floats, targets: Floats, weights: Floats) -> Floats:
    """Fit the intercept and non-negative slopes of a sigmoid by weighted log loss.

    Args:
        design: one row a slope, shape ``(k, n)``.
        targets: probabilities 0 to 1, shape ``(n,)``.
        weights: weights of the cases, shape ``(n,)``.

    Returns:
        The intercept followed by the slopes, shape ``(1 + k,)``.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

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


def _fit_none(_log_odds: Floats, _rare: Bools, _weights: Floats) -> Calibrator:
    """Leave the log odds unchanged."""
    return Calibrator(method="none")


def _fit_platt(log_odds: Floats, rare: Bools, weights: Floats) -> Calibrator:
    """Fit a sigmoid of the log odds (Platt, 1999)."""
    theta = fit_sigmoid(log_odds[None], soft_targets(rare, weights), weights)
    return Calibrator(method="platt", parameters=tuple(theta.tolist()))


def _fit_beta(log_odds: Floats, rare: Bools, weights: Floats) -> Calibrator:
    """Fit a sigmoid with separate slopes on both sides.

    Kull, Silva Filho and Flach, Beta calibration, AISTATS 2017; no slope falls below 0, so that
    the map keeps the ranks.
    """
    theta = fit_sigmoid(_sides(log_odds), soft_targets(rare, weights), weights)
    return Calibrator(method="beta", parameters=tuple(theta.tolist()))


def _fit_isotonic(log_odds: Floats, rare: Bools, weights: Floats) -> Calibrator:
    """Fit a non-decreasing step map (Zadrozny and Elkan, 2002), linear between its steps."""
    from scipy.optimize import isotonic_regression

    known, means, sizes = pool(log_odds, soft_targets(rare, weights), weights)
    risks = isotonic_regression(means, weights=sizes).x
    level = np.diff(risks) == 0
    ends = ~(np.append(level, False) & np.insert(level, 0, False))  # inside a step, no point
    parameters = (*known[ends].tolist(), *risks[ends].tolist())
    return Calibrator(method="isotonic", parameters=parameters)


def _fit_venn_abers(log_odds: Floats, rare: Bools, weights: Floats) -> Calibrator:
    """Fit the Venn-Abers predictor, merged to one risk for log loss.

    Vovk and Petej, Venn-Abers predictors, UAI 2014, section 4: with the pair p0 and p1, the risk
    is p1 / (1 - p0 + p1).
    """
    points = np.unique(np.quantile(log_odds, np.linspace(0, 1, _VENN_ABERS_POINTS)))
    low, high = probability_pairs(*pool(log_odds, rare.astype(float), weights), points)
    risks = high / (1 - low + high)
    return Calibrator(method="venn_abers", parameters=(*points.tolist(), *risks.tolist()))


METHODS: Mapping[str, Callable[[Floats, Bools, Floats], Calibrator]] = {
    "none": _fit_none,
    "platt": _fit_platt,
    "beta": _fit_beta,
    "isotonic": _fit_isotonic,
    "venn_abers": _fit_venn_abers,
}
"""Fit functions by the name of their method in reports, the simplest first."""


def held_out_losses(
    log_odds: Floats, rare: Bools, fold: NDArray[np.intp], weights: Floats
) -> dict[str, float]:
    """Return the log loss in nats of each method on folds that it was not fitted on.

    ``log_odds`` must themselves be out-of-fold; all arrays have shape ``(n,)``.
    """
    from sklearn.metrics import log_loss

    losses = {}
    for method, fit in METHODS.items():
        risks = np.empty(len(log_odds))
        for number in np.unique(fold):
            out = fold == number
            risks[out] = fit(log_odds[~out], rare[~out], weights[~out]).risk(log_odds[out])
        losses[method] = float(log_loss(rare, risks, sample_weight=weights, labels=[False, True]))
    return losses


def choose_calibrator(
    log_odds: Floats, rare: Bools, fold: NDArray[np.intp], weights: Floats | None = None
) -> Calibrator:
    """Choose the method with the lowest held-out log loss and fit it on all cases.

    A tie goes to the simpler method.

    Args:
        log_odds: out-of-fold log odds, shape ``(n,)``.
        rare: labels, shape ``(n,)``.
        fold: number of each case's fold, as from ``disease_folds``, shape ``(n,)``.
        weights: weights of the cases, shape ``(n,)``; equal if missing.
    """
    weights = np.ones(len(rare)) if weights is None else weights
    losses = held_out_losses(log_odds, rare, fold, weights)
    return METHODS[min(losses, key=losses.__getitem__)](log_odds, rare, weights)


def fit_calibrator(log_odds: Floats, rare: Bools, disease: ArrayLike, seed: int) -> Calibrator:
    """Choose and fit a calibrator on cases that the model was not fitted on.

    The choice is made on five folds by ``disease``; all arrays have shape ``(n,)``.
    """
    return choose_calibrator(log_odds, rare, disease_folds(rare, disease, _FOLDS, seed))


def disease_folds(rare: Bools, disease: ArrayLike, folds: int, seed: int) -> NDArray[np.intp]:
    """Assign each case to a fold from 0, stratified by label, shape ``(n,)``.

    All cases of a ``disease`` share one fold. There are at most as many folds as the scarcer
    class has diseases, but at least two.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    disease = np.asarray(disease)
    scarcer = min(np.unique(disease[of]).size for of in (rare, ~rare))
    splitter = StratifiedGroupKFold(max(2, min(folds, scarcer)), shuffle=True, random_state=seed)
    fold = np.empty(len(rare), dtype=np.intp)
    for number, (_, held_out) in enumerate(splitter.split(rare[:, None], rare, disease)):
        fold[held_out] = number
    return fold
