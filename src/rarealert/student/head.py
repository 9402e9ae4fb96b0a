"""The readout's start: a logistic fit on frozen features, before any adapter is trained."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rarealert.student.logistic import fit_logistic
from rarealert.student.network import RiskHead

_STRENGTHS = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)  # inverse penalties to choose from
_FOLDS = 5
_MATCH_SCALE = 10.0  # of the profile match beside the states; validation is flat from 10 to 30

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class HeadData:
    """What a head is fitted on: ``features`` of shape ``(n, columns)``, the rest ``(n,)``.

    ``target`` is the risk 0-1 to imitate, ``rare`` the label, ``groups`` the disease.
    ``finding_column`` and ``match_column`` are the columns of finding risk and profile match,
    ``None`` without them.
    """

    features: Floats
    rare: NDArray[np.bool_]
    target: NDArray[np.float64]
    groups: Sequence[str]
    finding_column: int | None = None
    match_column: int | None = None


def fit_head(data: HeadData, soft_weight: float, finding_share: float) -> RiskHead:
    """A ridge-logistic head on standardised features.

    Its loss is the cross-entropy against ``w * target + (1 - w) * rare``, ``w`` being
    ``soft_weight``. The penalty is the one with the best AUROC of the labels on folds grouped by
    disease. The profile match is one column beside a thousand and has a hundredth of their penalty.

    The finding risk is not fitted: it was learnt from the profiles of these cases' diseases, so a
    fit would trust it too much. Its weight is fixed, so that it moves the logit
    ``finding_share / (1 - finding_share)`` times as much as words and states do.
    """
    mean = data.features.mean(axis=0)
    scale = data.features.std(axis=0) + 1e-6
    scaled = (data.features - mean) / scale
    columns = np.arange(scaled.shape[1])
    is_finding, is_match = columns == data.finding_column, columns == data.match_column
    stretch = np.where(is_match, _MATCH_SCALE, 1.0)
    share = soft_weight * data.target + (1 - soft_weight) * data.rare
    fitted = (scaled * stretch)[:, ~is_finding]
    found = fit_logistic(fitted, share, (_choose_strength(data, fitted, share),))[0]
    weights = np.zeros(len(columns))
    weights[~is_finding] = stretch[~is_finding] * found[:-1]
    if is_finding.any():
        own = ~is_finding & ~is_match
        weights[is_finding] = finding_share * float((scaled[:, own] @ weights[own]).std())
        weights[own] *= 1 - finding_share
    head = RiskHead(len(weights))
    with torch.no_grad():
        head.mean.copy_(torch.from_numpy(mean))
        head.scale.copy_(torch.from_numpy(scale))
        head.linear.weight.copy_(torch.from_numpy(weights[None]))
        head.linear.bias.copy_(torch.from_numpy(found[-1:]))
    return head


def _choose_strength(
    data: HeadData, scaled: NDArray[np.float64], share: NDArray[np.float64]
) -> float:
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold

    folds = min(_FOLDS, len(set(data.groups)))
    split = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=0)
    scores = np.zeros((len(_STRENGTHS), len(data.rare)))
    for fit, held in split.split(scaled, data.rare, data.groups):
        fitted = fit_logistic(scaled[fit], share[fit], _STRENGTHS)
        scores[:, held] = (scaled[held] @ fitted[:, :-1].T + fitted[:, -1]).T
    aurocs = [roc_auc_score(data.rare, row) for row in scores]
    return _STRENGTHS[int(np.argmax(aurocs))]
