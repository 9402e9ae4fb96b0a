"""The readout's start: a logistic fit on frozen features, before any adapter is trained."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rarealert.student.network import RiskHead

_STRENGTHS = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)  # inverse penalties, from few columns' worth to many
_FOLDS = 5
_ITERATIONS = 100  # of L-BFGS; further ones move no AUROC in the third decimal

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Rows:
    """What a head is fitted on: ``features`` of shape ``(n, columns)``, the rest ``(n,)``.

    ``target`` is the risk 0-1 to imitate, ``rare`` the label, ``groups`` names the disease. Rows
    with ``judged`` are cases; the others, of knowledge, help to fit and are never judged by.
    """

    features: Floats
    rare: NDArray[np.bool_]
    target: NDArray[np.float64]
    groups: Sequence[str]
    judged: NDArray[np.bool_]


def fit_head(rows: Rows, soft_weight: float, knowledge_weight: float) -> RiskHead:
    """A ridge-logistic head on features standardised by the judged rows.

    Its loss is the cross-entropy against ``w * target + (1 - w) * rare``, ``w`` being
    ``soft_weight``; a row of knowledge counts ``knowledge_weight`` of a case. The penalty is the
    one with the best AUROC of the judged labels on folds grouped by disease; a disease that is
    held out there is held out of knowledge too.
    """
    mean = rows.features[rows.judged].mean(axis=0)
    scale = rows.features[rows.judged].std(axis=0) + 1e-6
    scaled = (rows.features - mean) / scale
    share = soft_weight * rows.target + (1 - soft_weight) * rows.rare
    counts = np.where(rows.judged, 1.0, knowledge_weight)
    strength = _choose_strength(rows, scaled, share, counts)
    weights = _fit(scaled, share, counts, (strength,))[0]
    head = RiskHead(scaled.shape[1])
    with torch.no_grad():
        head.mean.copy_(torch.from_numpy(mean))
        head.scale.copy_(torch.from_numpy(scale))
        head.linear.weight.copy_(torch.from_numpy(weights[None, :-1]))
        head.linear.bias.copy_(torch.from_numpy(weights[-1:]))
    return head


def _choose_strength(
    rows: Rows, scaled: Floats, share: NDArray[np.float64], counts: NDArray[np.float64]
) -> float:
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold

    groups = np.asarray(rows.groups)
    split = StratifiedGroupKFold(
        n_splits=min(_FOLDS, len(set(groups[rows.judged]))), shuffle=True, random_state=0
    )
    scores = np.zeros((len(_STRENGTHS), len(rows.rare)))
    for fit, held in split.split(scaled, rows.rare, groups):
        asked = held[rows.judged[held]]
        if len(asked):
            fitted = _fit(scaled[fit], share[fit], counts[fit], _STRENGTHS)
            scores[:, asked] = (scaled[asked] @ fitted[:, :-1].T + fitted[:, -1]).T
    judged = rows.judged
    aurocs = [roc_auc_score(rows.rare[judged], row[judged]) for row in scores]
    return _STRENGTHS[int(np.argmax(aurocs))]


def _fit(
    scaled: Floats,
    share: NDArray[np.float64],
    counts: NDArray[np.float64],
    strengths: Sequence[float],
) -> NDArray[np.float64]:
    """Weights and last the bias for each of ``strengths``, shape ``(strengths, columns + 1)``.

    Minimises ``strength * sum(count * cross-entropy) + |weights|² / 2``, the bias free, as
    scikit-learn's logistic regression does, but for shares instead of labels, which there would
    need every row twice. Each strength starts from the solution of the one before.
    """
    from scipy.optimize import minimize

    flipped = np.ascontiguousarray(scaled.T)

    def loss(values: NDArray[np.float64], strength: float) -> tuple[float, NDArray[np.float64]]:
        weights, bias = values[:-1], values[-1]
        logits = (scaled @ weights.astype(np.float32)).astype(np.float64) + bias
        entropy = np.logaddexp(0, logits) - share * logits
        error = strength * counts * (1 / (1 + np.exp(-logits)) - share)
        slope = (flipped @ error.astype(np.float32)).astype(np.float64) + weights
        value = strength * float(counts @ entropy) + float(weights @ weights) / 2
        return value, np.append(slope, error.sum())

    values = np.zeros(scaled.shape[1] + 1)
    found = []
    for strength in strengths:
        values = minimize(
            loss,
            values,
            args=(strength,),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": _ITERATIONS},
        ).x
        found.append(values)
    return np.stack(found)
