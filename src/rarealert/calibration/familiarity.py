"""How far a case's features are from those of the training cases.

The distance is Mahalanobis' under probabilistic principal components (Tipping and Bishop, JRSS B
61:611, 1999; Lee et al., NeurIPS 2018). One method serves the ensemble's hundred columns and the
student's thousand: the components estimate a covariance from fewer cases than columns, and a clinic
needs no more than numpy to evaluate them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_COMPONENTS = 64  # a few hundred cases estimate only noise beyond these
_SMALLEST = 1e-6  # a column that varies less is constant; the least variance of the rest


@dataclass(frozen=True)
class Familiarity:
    """The distribution of training features, ``d`` columns in ``k`` components.

    ``mean`` and ``scale`` have shape ``(d,)``, ``axes`` ``(k, d)``; ``spread``, shape ``(k,)``, is
    the variance along each axis and ``rest`` the mean variance outside them.
    """

    mean: Floats
    scale: Floats
    axes: Floats
    spread: Floats
    rest: float

    def distance(self, features: ArrayLike) -> Floats:
        """Return the Mahalanobis distance of each row of ``features``, shape ``(n,)``.

        A missing value, NaN, counts as the training mean.
        """
        scaled = _scaled(np.asarray(features, dtype=np.float64), self.mean, self.scale)
        inside = scaled @ self.axes.T
        outside = np.maximum((scaled**2).sum(axis=1) - (inside**2).sum(axis=1), 0.0)
        squared = (inside**2 / self.spread).sum(axis=1) + outside / self.rest
        return np.asarray(np.sqrt(squared))


def fit_familiarity(features: Floats) -> Familiarity:
    """Fit on training features, shape ``(n, d)``, NaN where unknown, with ``n`` at least 3."""
    known = ~np.isnan(features)
    filled = np.where(known, features, 0.0)
    counts = np.maximum(known.sum(axis=0), 1)
    mean = filled.sum(axis=0) / counts
    deviation = np.sqrt((np.where(known, features - mean, 0.0) ** 2).sum(axis=0) / counts)
    scale = np.where(deviation > _SMALLEST, deviation, 1.0)
    scaled = _scaled(features, mean, scale)
    count, width = scaled.shape
    _, lengths, axes = np.linalg.svd(scaled, full_matrices=False)
    variance = lengths**2 / max(count - 1, 1)
    kept = min(_COMPONENTS, (count - 1) // 2, width - 1)
    rest = max(float(variance[kept:].sum() / (width - kept)), _SMALLEST)
    return Familiarity(mean, scale, axes[:kept], np.maximum(variance[:kept], rest), rest)


def _scaled(features: Floats, mean: Floats, scale: Floats) -> Floats:
    return np.where(np.isnan(features), 0.0, (features - mean) / scale)
