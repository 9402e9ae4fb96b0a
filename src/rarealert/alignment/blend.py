"""Several members, one score: the best alone, their average, or a stack, whichever holds out best.

A stack with weights below 0 would let a member speak against itself, so weights stay at 0 or above.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.metrics import log_loss

from rarealert.alignment.calibration import fit_sigmoid, soft_targets
from rarealert.alignment.search import weighted_auroc

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_EDGE = 1e-6  # as in calibration: a certain score's logit must stay finite


@dataclass(frozen=True)
class Blend:
    """A frozen map from ``m`` scores to one: the sigmoid of a weighted sum of their logits."""

    method: str
    intercept: float
    weights: tuple[float, ...]

    def __call__(self, scores: Floats) -> Floats:
        """Scores 0 to 1, shape ``(n_cases,)``, from those of the members, ``(n_cases, m)``."""
        line = self.intercept + _logits(scores) @ np.asarray(self.weights)
        return np.asarray(expit(line), dtype=np.float64)


def _logits(scores: Floats) -> Floats:
    return np.asarray(logit(np.clip(scores, _EDGE, 1 - _EDGE)), dtype=np.float64)


def fit_best(scores: Floats, rare: Bools, weights: Floats) -> Blend:
    """Only the member of the highest AUROC."""
    aurocs = [weighted_auroc(rare, column, weights) for column in scores.T]
    return _alone(scores, rare, weights, int(np.argmax(aurocs)))


def _alone(scores: Floats, rare: Bools, weights: Floats, place: int) -> Blend:
    line = _logits(scores[:, [place]]).T
    intercept, slope = fit_sigmoid(line, soft_targets(rare, weights), weights)
    of_members = np.zeros(scores.shape[1])
    of_members[place] = slope
    return Blend("best", float(intercept), tuple(of_members.tolist()))


def fit_average(scores: Floats, rare: Bools, weights: Floats) -> Blend:
    """The mean of the members' calibrated log odds."""
    members = [_alone(scores, rare, weights, place) for place in range(scores.shape[1])]
    return Blend(
        "average",
        float(np.mean([one.intercept for one in members])),
        tuple(np.mean([one.weights for one in members], axis=0).tolist()),
    )


def fit_stack(scores: Floats, rare: Bools, weights: Floats) -> Blend:
    """A logistic regression on the members (Wolpert, Stacked generalization, 1992)."""
    theta = fit_sigmoid(_logits(scores).T, soft_targets(rare, weights), weights)
    return Blend("stack", float(theta[0]), tuple(theta[1:].tolist()))


METHODS: Mapping[str, Callable[[Floats, Bools, Floats], Blend]] = {
    "best": fit_best,
    "average": fit_average,
    "stack": fit_stack,
}
"""Every way to join members, by its name in reports."""


def choose_blend(
    scores: Floats, rare: Bools, weights: Floats, fold: NDArray[np.intp]
) -> tuple[Blend, Floats]:
    """The method with the least held-out log loss, fitted on all, and its held-out scores.

    ``scores`` of the members, shape ``(n_cases, m)``, must themselves be out-of-fold. A tie goes
    to the method named first, which is the simpler one.
    """
    held_out = {}
    for method, fit in METHODS.items():
        joined = np.empty(len(scores))
        for number in np.unique(fold):
            out = fold == number
            joined[out] = fit(scores[~out], rare[~out], weights[~out])(scores[out])
        held_out[method] = joined
    losses = {
        method: log_loss(rare, joined, sample_weight=weights, labels=[False, True])
        for method, joined in held_out.items()
    }
    chosen = min(losses, key=losses.__getitem__)
    return METHODS[chosen](scores, rare, weights), held_out[chosen]
