"""Keep who was asked from telling the label.

Recorded panels come in blocks: one source was shown to these teachers, another to those, and the
sources differ in their share of rare cases. A model that sees where the gaps are then learns the
source. Two measures close this way:

- ``NeutralImputer`` fills a gap with the value that speaks for neither class, so that a missing
  teacher says nothing, and silences a column that nearly only one class has;
- ``independence_weights`` weighs the training cases so that label and pattern of gaps are
  independent, which leaves nothing to be learnt from the pattern.
"""

from typing import Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression

_LARGEST_WEIGHT = 10.0  # one case must not outweigh a dozen, however odd its pattern
_LARGEST_GAP = 0.5  # beyond it trees still told the classes apart by presence, weights or not


def audible(values: NDArray[np.float64], rare: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each column may be heard, shape ``(n_features,)``.

    It must be known in both classes, and in shares of them that differ by at most 0.5.
    """
    known = ~np.isnan(values)
    of_rare, of_others = known[rare].mean(axis=0), known[~rare].mean(axis=0)
    both = (of_rare > 0) & (of_others > 0)
    return np.asarray(both & (np.abs(of_rare - of_others) <= _LARGEST_GAP), dtype=bool)


class NeutralImputer(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # sklearn is untyped
    """Fill each gap with the value at which a column speaks for neither class.

    For two normal classes of equal variance the log likelihood ratio of linear discriminant
    analysis is 0 half-way between their means, whatever the share of rare cases is: that value is
    the fill. A column that is not ``audible`` would tell by its presence: it becomes 0 throughout.
    """

    neutral_: NDArray[np.float64]
    heard_: NDArray[np.bool_]

    def fit(self, values: NDArray[np.float64], rare: NDArray[np.bool_]) -> Self:
        """Learn the fills from ``values``, shape ``(n_cases, n_features)``, and their labels."""
        rare = np.asarray(rare, dtype=bool)
        self.heard_ = audible(values, rare)
        self.neutral_ = np.zeros(values.shape[1])
        heard = values[:, self.heard_]
        self.neutral_[self.heard_] = (
            np.nanmean(heard[rare], axis=0) + np.nanmean(heard[~rare], axis=0)
        ) / 2
        return self

    def transform(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """``values`` without gaps, same shape."""
        filled = np.where(np.isnan(values), self.neutral_, values)
        return np.where(self.heard_, filled, 0.0)


def independence_weights(
    values: NDArray[np.float64], rare: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Weights, shape ``(n_cases,)``, mean 1, that make label and pattern of gaps independent.

    Each case weighs ``P(label) / P(label | pattern)``, the reweighing of Kamiran and Calders
    (Data preprocessing techniques for classification without discrimination, 2012), with the
    conditional share from a logistic regression on the gaps, so that rare patterns borrow from
    common ones. Without gaps, or with the same gaps everywhere, all weights are 1.
    """
    gaps = np.isnan(values[:, audible(values, rare)])
    patterns = np.unique(gaps, axis=1)
    patterns = patterns[:, patterns.any(axis=0) & ~patterns.all(axis=0)]
    if not patterns.size:
        return np.ones(len(rare))
    model = LogisticRegression(C=10.0, max_iter=1000).fit(patterns.astype(float), rare)
    given_pattern = model.predict_proba(patterns.astype(float))[:, 1]
    share = rare.mean()
    weights = np.where(rare, share / given_pattern, (1 - share) / (1 - given_pattern))
    weights = np.minimum(weights, _LARGEST_WEIGHT)
    normalised: NDArray[np.float64] = weights / weights.mean()
    return normalised
