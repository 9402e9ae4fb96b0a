"""The readout's start: a logistic fit on frozen features, before any adapter is trained."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from rarealert.student.network import RiskHead

_STRENGTHS = (3e-4, 1e-3, 3e-3, 1e-2)  # inverse penalties; there are more columns than cases
_FOLDS = 5


def fit_head(
    features: NDArray[np.float32],
    rare: NDArray[np.bool_],
    target: NDArray[np.float64],
    soft_weight: float,
    strength: float,
) -> RiskHead:
    """A ridge-logistic head on standardised ``features``, shape ``(n, columns)``.

    Each case counts as rare with weight ``w * target + (1 - w) * rare`` and as non-rare with the
    rest, which is the cross-entropy against soft targets. ``strength`` is the inverse penalty.
    """
    from sklearn.linear_model import LogisticRegression

    mean = features.mean(axis=0)
    scale = features.std(axis=0) + 1e-6
    scaled = ((features - mean) / scale).astype(np.float64)
    share = soft_weight * target + (1 - soft_weight) * rare
    model = LogisticRegression(C=strength, max_iter=200).fit(
        np.concatenate([scaled, scaled]),
        np.repeat([True, False], len(scaled)),
        sample_weight=np.concatenate([share, 1 - share]),
    )
    head = RiskHead(features.shape[1])
    with torch.no_grad():
        head.mean.copy_(torch.from_numpy(mean))
        head.scale.copy_(torch.from_numpy(scale))
        head.linear.weight.copy_(torch.from_numpy(model.coef_))
        head.linear.bias.copy_(torch.from_numpy(model.intercept_))
    return head


def choose_strength(
    features: NDArray[np.float32], rare: NDArray[np.bool_], groups: Sequence[str]
) -> float:
    """The inverse penalty with the best AUROC of the labels on folds grouped by disease."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold

    scaled = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
    count = min(_FOLDS, len(set(groups)))
    split = StratifiedGroupKFold(n_splits=count, shuffle=True, random_state=0)
    folds = list(split.split(scaled, rare, groups))
    aurocs = {}
    for strength in _STRENGTHS:
        scores = np.zeros(len(rare))
        for rows, held in folds:
            model = LogisticRegression(C=strength, max_iter=200).fit(scaled[rows], rare[rows])
            scores[held] = model.decision_function(scaled[held])
        aurocs[strength] = roc_auc_score(rare, scores)
    return max(aurocs, key=lambda strength: aurocs[strength])
