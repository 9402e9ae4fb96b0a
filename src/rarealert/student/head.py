"""The readout's start: a logistic fit on frozen features, before any adapter is trained."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from rarealert.student.network import RiskHead

_STRENGTHS = (1e-3, 3e-3, 1e-2, 3e-2)  # inverse penalties; there are more columns than cases
_FOLDS = 5


def fit_head(
    features: NDArray[np.float32],
    rare: NDArray[np.bool_],
    target: NDArray[np.float64],
    soft_weight: float,
    groups: Sequence[str],
) -> RiskHead:
    """A ridge-logistic head on standardised ``features``, shape ``(n, columns)``.

    Each case counts as rare with weight ``w * target + (1 - w) * rare`` and as non-rare with the
    rest, which is the cross-entropy against soft targets. The penalty is the one with the best
    AUROC of the labels on folds grouped by disease, ``groups`` naming the disease of each case.
    """
    mean = features.mean(axis=0)
    scale = features.std(axis=0) + 1e-6
    scaled = (features - mean) / scale
    share = soft_weight * target + (1 - soft_weight) * rare
    strength = _choose_strength(scaled, rare, share, groups)
    weights, bias = _fit(scaled, share, strength)
    head = RiskHead(features.shape[1])
    with torch.no_grad():
        head.mean.copy_(torch.from_numpy(mean))
        head.scale.copy_(torch.from_numpy(scale))
        head.linear.weight.copy_(torch.from_numpy(weights))
        head.linear.bias.copy_(torch.from_numpy(bias))
    return head


def _choose_strength(
    scaled: NDArray[np.float32],
    rare: NDArray[np.bool_],
    share: NDArray[np.float64],
    groups: Sequence[str],
) -> float:
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold

    count = min(_FOLDS, len(set(groups)))
    split = StratifiedGroupKFold(n_splits=count, shuffle=True, random_state=0)
    folds = list(split.split(scaled, rare, groups))
    aurocs = {}
    for strength in _STRENGTHS:
        scores = np.zeros(len(rare))
        for rows, held in folds:
            weights, bias = _fit(scaled[rows], share[rows], strength)
            scores[held] = scaled[held] @ weights[0] + bias
        aurocs[strength] = roc_auc_score(rare, scores)
    return max(aurocs, key=lambda strength: aurocs[strength])


def _fit(
    scaled: NDArray[np.float32], share: NDArray[np.float64], strength: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights ``(1, columns)`` and bias ``(1,)`` of a logistic fit on soft shares of "rare"."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=200).fit(
        np.concatenate([scaled, scaled]),
        np.repeat([True, False], len(scaled)),
        sample_weight=np.concatenate([share, 1 - share]),
    )
    return np.asarray(model.coef_, dtype=float), np.asarray(model.intercept_, dtype=float)
