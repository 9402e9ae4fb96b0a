"""The training set, and folds that keep all cases of a disease together."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rarealert.calibration.calibrators import disease_folds
from rarealert.ensemble.algorithms import independence_weights
from rarealert.errors import BadInputError

Floats = NDArray[np.float64]

_FEWEST = 3  # diseases of each class: one held out, one to calibrate on, one to learn from


@dataclass(frozen=True)
class TrainingSet:
    """What the ensemble is fitted on; every array has one row a case.

    ``values`` has shape ``(n_cases, n_features)`` with NaN for gaps, ``rare`` is the label and
    ``disease`` the group that no fold may divide. ``risks``, shape ``(n_cases, n_teachers)``, are
    NaN where a teacher did not answer.
    """

    values: Floats
    rare: NDArray[np.bool_]
    disease: NDArray[np.str_]
    risks: Floats

    def part(self, rows: NDArray[np.bool_]) -> "TrainingSet":
        """Select the rows where ``rows`` is true."""
        return TrainingSet(self.values[rows], self.rare[rows], self.disease[rows], self.risks[rows])

    def weights(self) -> Floats:
        """Weights, shape ``(n_cases,)``, that make label and answering teachers independent.

        Only missing answers count as gaps: a column that is unknown because of an answer's content,
        such as the distance between disorders where none was named, may be learnt from.
        """
        return independence_weights(self.risks, self.rare)

    def folds(self, folds: int, seed: int) -> NDArray[np.intp]:
        """The fold of each case, as from ``disease_folds``, shape ``(n_cases,)``."""
        return disease_folds(self.rare, self.disease, folds, seed)


def check_learnable(data: TrainingSet, name: str) -> None:
    """Refuse data with too few diseases to fit on some and hold out others.

    Raises:
        BadInputError: ``data``, called ``name`` in the sentence, has fewer than three diseases of
            a class, or no case at all.
    """
    for label, of_class in (("rare", data.rare), ("nonrare", ~data.rare)):
        diseases = np.unique(data.disease[of_class]).size
        if diseases < _FEWEST:
            raise BadInputError(
                f"{name}: {diseases} diseases with label {label} have an answered case; expected "
                f"at least {_FEWEST}, to fit on some and hold out others. Add cases, or ask a "
                "teacher about the unanswered ones."
            )


def draw_in_folds(
    rare: NDArray[np.bool_], fold: NDArray[np.intp], most: int, seed: int
) -> NDArray[np.bool_]:
    """Draw at most ``most`` cases by fold and label; a mask of shape ``(n_cases,)``.

    Each fold keeps its share of the cases of either label, at least one, so that none is left
    empty however large a disease is.
    """
    total = len(rare)
    if total <= most:
        return np.ones(total, dtype=bool)
    rng = np.random.default_rng(seed)
    depth = np.empty(total)  # 0 for the first of a stratum, near 1 for its last
    stratum = 2 * fold + rare
    for number in np.unique(stratum):
        rows = rng.permutation(np.flatnonzero(stratum == number))
        depth[rows] = np.arange(len(rows)) / len(rows)
    drawn = np.zeros(total, dtype=bool)
    drawn[np.argsort(depth, kind="stable")[:most]] = True
    return drawn
