"""Split conformal prediction sets of a stated coverage for each class."""

import math

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Cuts(BaseModel):
    """Scores between which the label is open.

    The set of a case contains "rare" from ``rare_from`` on and "nonrare" up to ``nonrare_to``. A
    bound is ``None`` where there are too few cases to exclude its label at all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rare_from: float | None
    nonrare_to: float | None

    def contains(self, scores: Floats) -> tuple[Bools, Bools]:
        """Whether each score's set contains "rare", and "nonrare", each of shape ``(n,)``."""
        low = -math.inf if self.rare_from is None else self.rare_from
        high = math.inf if self.nonrare_to is None else self.nonrare_to
        return np.asarray(scores >= low), np.asarray(scores <= high)

    def labels(self, score: float) -> tuple[str, ...]:
        """Return the set of one score."""
        rare, nonrare = self.contains(np.asarray(score))
        return (*(["rare"] if rare else []), *(["nonrare"] if nonrare else []))

    def covers(self, rare: Bools, scores: Floats) -> Bools:
        """Whether each case's set contains its label, shape ``(n,)``."""
        has_rare, has_nonrare = self.contains(scores)
        return np.where(rare, has_rare, has_nonrare)

    def decides(self, scores: Floats) -> Bools:
        """Whether each score's set has exactly one label, shape ``(n,)``."""
        has_rare, has_nonrare = self.contains(scores)
        return np.asarray(has_rare != has_nonrare)


def fit_cuts(rare: Bools, scores: Floats, coverage: float) -> Cuts:
    """Fit the cuts on cases that the model was not fitted on.

    Sets are class-conditional, so that they keep their coverage at any prevalence (Vovk, ACML
    2012; Sadinle, Lei and Wasserman, JASA 114:223, 2019).

    Args:
        rare: labels, shape ``(n,)``.
        scores: any score that rises with the risk, shape ``(n,)``.
        coverage: share 0 to 1 of each class whose set is to contain its label.
    """
    rare_from = _quantile(-scores[rare], coverage)
    nonrare_to = _quantile(scores[~rare], coverage)
    return Cuts(rare_from=None if rare_from is None else -rare_from, nonrare_to=nonrare_to)


def _quantile(scores: Floats, level: float) -> float | None:
    """The ``ceil((n + 1) level)``-th smallest score; ``None`` where n is too small for it."""
    rank = math.ceil((scores.size + 1) * level - 1e-9)
    return float(np.sort(scores)[rank - 1]) if rank <= scores.size else None
