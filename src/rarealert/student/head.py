"""The readout's start: a logistic fit on frozen features, before any adapter is trained."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rarealert.student.network import RiskHead

_STRENGTHS = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)  # inverse penalties, from few columns' worth to many
_FOLDS = 5
_MATCH_TRUST = 10.0  # times a column of the states; validation is flat from 10 to 30
_TOLERANCE = 1e-6  # of the gradient; leaves logits within 0.0001 of the minimum's
_ITERATIONS = 1000  # of L-BFGS, a bound; some 20 to 70 reach the tolerance

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """What a head is fitted on: ``features`` of shape ``(n, columns)``, the rest ``(n,)``.

    ``target`` is the risk 0-1 to imitate, ``rare`` the label, ``groups`` names the disease.
    ``spoken`` is the column of ``features`` that holds what knowledge says of findings, and
    ``matched`` the one that says how profiles match the visit, if any does.
    """

    features: Floats
    rare: NDArray[np.bool_]
    target: NDArray[np.float64]
    groups: Sequence[str]
    spoken: int | None = None
    matched: int | None = None


def fit_head(rows: Rows, soft_weight: float, finding_share: float) -> RiskHead:
    """A ridge-logistic head on standardised features.

    Its loss is the cross-entropy against ``w * target + (1 - w) * rare``, ``w`` being
    ``soft_weight``. The penalty is the one with the best AUROC of the labels on folds grouped by
    disease. How well profiles match is one column beside a thousand and bears a hundredth of their
    penalty. What knowledge says of findings was learnt without these cases and joins with a fixed
    weight, by which it moves the logit ``finding_share / (1 - finding_share)`` times as much as
    words and states do: fitted, it would be trusted too much, because it was learnt from the
    profiles of these cases' diseases.
    """
    mean = rows.features.mean(axis=0)
    scale = rows.features.std(axis=0) + 1e-6
    scaled = (rows.features - mean) / scale
    spoken, matched = (_marked(scaled.shape[1], one) for one in (rows.spoken, rows.matched))
    trust = np.where(matched, np.float32(_MATCH_TRUST), np.float32(1))
    share = soft_weight * rows.target + (1 - soft_weight) * rows.rare
    fitted = ~spoken
    asked = np.ascontiguousarray((scaled * trust)[:, fitted])
    found = _fit(asked, share, (_choose_strength(rows, asked, share),))[0]
    weights = np.zeros(len(trust))
    weights[fitted] = trust[fitted] * found[:-1]
    if spoken.any():
        read = fitted & ~matched
        weights[spoken] = finding_share * float((scaled[:, read] @ weights[read]).std())
        weights[read] *= 1 - finding_share
    return _head(mean, scale, weights, found[-1:])


def _marked(width: int, column: int | None) -> NDArray[np.bool_]:
    marks = np.zeros(width, dtype=bool)
    if column is not None:
        marks[column] = True
    return marks


def _head(mean: Floats, scale: Floats, weights: Doubles, bias: Doubles) -> RiskHead:
    head = RiskHead(len(weights))
    with torch.no_grad():
        head.mean.copy_(torch.from_numpy(mean))
        head.scale.copy_(torch.from_numpy(scale))
        head.linear.weight.copy_(torch.from_numpy(weights[None]))
        head.linear.bias.copy_(torch.from_numpy(bias))
    return head


def _choose_strength(rows: Rows, scaled: Floats, share: NDArray[np.float64]) -> float:
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold

    split = StratifiedGroupKFold(
        n_splits=min(_FOLDS, len(set(rows.groups))), shuffle=True, random_state=0
    )
    scores = np.zeros((len(_STRENGTHS), len(rows.rare)))
    for fit, held in split.split(scaled, rows.rare, rows.groups):
        fitted = _fit(scaled[fit], share[fit], _STRENGTHS)
        scores[:, held] = (scaled[held] @ fitted[:, :-1].T + fitted[:, -1]).T
    aurocs = [roc_auc_score(rows.rare, row) for row in scores]
    return _STRENGTHS[int(np.argmax(aurocs))]


def _fit(
    scaled: Floats,
    share: NDArray[np.float64],
    strengths: Sequence[float],
) -> NDArray[np.float64]:
    """Weights and last the bias for each of ``strengths``, shape ``(strengths, columns + 1)``.

    Minimises ``strength * sum(cross-entropy) + |weights|² / 2``, the bias free.
    Cross-entropy against a share is that of both labels, weighed by the share and its rest, so
    every row stands twice. The penalty doesn't see a rotation, so what is fitted are the rows'
    coordinates in the space that they span, which is smaller than theirs where columns are many.
    Each strength starts from the solution of the one before.
    """
    from sklearn.linear_model import LogisticRegression

    left, lengths, axes = np.linalg.svd(scaled, full_matrices=False)
    inside = (left * lengths).astype(np.float64)
    twice = np.concatenate([inside, inside])
    label = np.arange(len(twice)) < len(inside)
    weight = np.concatenate([share, 1 - share])
    fit = LogisticRegression(warm_start=True, tol=_TOLERANCE, max_iter=_ITERATIONS)
    found = []
    for strength in strengths:
        fit.set_params(C=strength).fit(twice, label, sample_weight=weight)
        found.append(np.append(fit.coef_[0] @ axes, fit.intercept_))
    return np.stack(found)
