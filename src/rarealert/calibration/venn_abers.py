"""The Venn-Abers predictor: a pair of probabilities around the risk of a new case.

Isotonic regression gives the pair when the new case is added to the calibration cases as
non-rare, and as rare (Vovk and Petej, Venn-Abers predictors, UAI 2014).
"""

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

Floats = NDArray[np.float64]

_MOST_GROUPS = 1000  # of calibration cases; more groups change no interval visibly


class VennAbers(BaseModel):
    """The pairs for every log odds, which are constant between those of the calibration cases.

    ``log_odds`` ascend, shape ``(k,)``. ``at_low`` and ``at_high`` are the pair of a case with
    exactly these log odds, shape ``(k,)``; ``between_low`` and ``between_high`` that of a case
    below, between or above them, shape ``(k + 1,)``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    log_odds: tuple[float, ...]
    at_low: tuple[float, ...]
    at_high: tuple[float, ...]
    between_low: tuple[float, ...]
    between_high: tuple[float, ...]

    def interval(self, log_odds: Floats) -> tuple[Floats, Floats]:
        """Return the lower and upper probability 0 to 1, each of shape ``(n,)``."""
        known = np.asarray(self.log_odds)
        left = np.searchsorted(known, log_odds, side="left")
        exact = np.searchsorted(known, log_odds, side="right") > left
        place = np.minimum(left, len(known) - 1)
        low = np.where(exact, np.asarray(self.at_low)[place], np.asarray(self.between_low)[left])
        high = np.where(exact, np.asarray(self.at_high)[place], np.asarray(self.between_high)[left])
        return low, high

    def supported(self, risk: Floats) -> Floats:
        """Return ``risk`` within what the calibration cases support, same shape.

        Beyond its extreme cases a calibrator only extrapolates: no risk is above the lower
        probability of a case that exceeds them all, or below the upper one of a case beneath.
        """
        least, most = self.between_high[0], self.between_low[-1]
        return np.clip(risk, min(least, most), max(least, most))


def fit_venn_abers(log_odds: Floats, rare: NDArray[np.bool_]) -> VennAbers:
    """Tabulate the pairs that the calibration cases' ``log_odds`` and labels, ``(n,)``, give.

    A pair depends only on the place of the new log odds among the known ones, so the table is
    exact up to 1,000 distinct log odds; beyond that, neighbours share a group.
    """
    known, means, sizes = pool(log_odds, rare.astype(float), np.ones(len(rare)))
    if len(known) > _MOST_GROUPS:
        group = np.arange(len(known)) * _MOST_GROUPS // len(known)
        first = np.searchsorted(group, np.arange(_MOST_GROUPS))
        totals = np.add.reduceat(sizes, first)
        means = np.add.reduceat(means * sizes, first) / totals
        known, sizes = known[first], totals
    outside = [known[:1] - 1, (known[:-1] + known[1:]) / 2, known[-1:] + 1]
    at = probability_pairs(known, means, sizes, known)
    between = probability_pairs(known, means, sizes, np.concatenate(outside))
    return VennAbers(
        log_odds=tuple(known.tolist()),
        at_low=tuple(at[0].round(6).tolist()),
        at_high=tuple(at[1].round(6).tolist()),
        between_low=tuple(between[0].round(6).tolist()),
        between_high=tuple(between[1].round(6).tolist()),
    )


def pool(log_odds: Floats, targets: Floats, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Merge cases with equal log odds, as isotonic regression treats them as one.

    Returns:
        The distinct ``log_odds`` in ascending order, their mean target and their total weight,
        each of shape ``(k,)``.
    """
    known, inverse = np.unique(log_odds, return_inverse=True)
    totals: Floats = np.bincount(inverse, weights=weights).astype(np.float64)
    means = np.bincount(inverse, weights=weights * targets) / totals
    return known, means, totals


def probability_pairs(
    known: Floats, means: Floats, weights: Floats, new: Floats
) -> tuple[Floats, Floats]:
    """Return both probabilities of one more case, of weight 1, at each of the log odds ``new``.

    ``known``, ``means`` and ``weights`` are those of ``pool``; the results have the shape of
    ``new``.
    """
    from scipy.optimize import isotonic_regression

    pairs = np.empty((2, len(new)))
    places = np.searchsorted(known, new)
    for column, (place, value) in enumerate(zip(places, new, strict=True)):
        exact = place < len(known) and known[place] == value
        for label in (0, 1):
            if exact:
                heavier, moved = weights.copy(), means.copy()
                heavier[place] += 1
                moved[place] += (label - moved[place]) / heavier[place]
            else:
                heavier = np.insert(weights, place, 1.0)
                moved = np.insert(means, place, float(label))
            pairs[label, column] = isotonic_regression(moved, weights=heavier).x[place]
    return pairs[0], pairs[1]
