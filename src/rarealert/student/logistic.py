"""Ridge-logistic regression against shares of a label, for the readout and for finding risks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TOLERANCE = 1e-6  # of the gradient; scikit-learn's 1e-4 stops visibly short of the minimum
_ITERATIONS = 1000  # of L-BFGS, a bound; fewer than 100 reach the tolerance


def fit_logistic(
    features: Any, share: NDArray[np.float64], strengths: Sequence[float]
) -> NDArray[np.float64]:
    """Weights and last the bias for each of ``strengths``, shape ``(strengths, columns + 1)``.

    Minimises ``strength * sum(cross-entropy) + |weights|² / 2``, the bias free. The cross-entropy
    against a share is that of both labels, weighted by the share and by its rest.

    Args:
        features: dense or sparse (CSR), shape ``(rows, columns)``.
        share: the share 0-1 of the positive label in each row, shape ``(rows,)``.
        strengths: inverse penalties; each fit starts from the solution of the one before.
    """
    from scipy.sparse import issparse, vstack
    from sklearn.linear_model import LogisticRegression

    stack = vstack if issparse(features) else np.vstack
    weight = np.concatenate([share, 1 - share])
    kept = weight > 0
    both = stack([features, features])[kept]
    positive = (np.arange(len(weight)) < len(share))[kept]
    model = LogisticRegression(warm_start=True, tol=_TOLERANCE, max_iter=_ITERATIONS)
    found = []
    for strength in strengths:
        model.set_params(C=strength).fit(both, positive, sample_weight=weight[kept])
        found.append(np.append(model.coef_[0], model.intercept_))
    return np.stack(found)
