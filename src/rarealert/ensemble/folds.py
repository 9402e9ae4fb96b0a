"""Folds that cut no disease in two."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from rarealert.ensemble.algorithms import independence_weights
from rarealert.errors import BadInputError

_FEWEST = 3  # diseases of each class: one held out, one to calibrate on, one to learn from


@dataclass(frozen=True)
class TrainingSet:
    """What the ensemble learns from; every array has one row a case.

    ``values`` has shape ``(n_cases, n_features)`` with NaN for gaps, ``rare`` is the label and
    ``disease`` the group that no fold may cut. ``risks``, shape ``(n_cases, n_teachers)``, are NaN
    where a teacher was not heard; ``None`` takes ``values`` for them.
    """

    values: NDArray[np.float64]
    rare: NDArray[np.bool_]
    disease: NDArray[np.str_]
    risks: NDArray[np.float64] | None = None

    def part(self, rows: NDArray[np.bool_]) -> "TrainingSet":
        """The rows where ``rows`` is true."""
        risks = None if self.risks is None else self.risks[rows]
        return TrainingSet(self.values[rows], self.rare[rows], self.disease[rows], risks)

    def only(self, columns: NDArray[np.intp]) -> "TrainingSet":
        """All rows with the chosen columns."""
        return TrainingSet(self.values[:, columns], self.rare, self.disease, self.risks)

    def weights(self) -> NDArray[np.float64]:
        """Weights, shape ``(n_cases,)``, under which who was heard tells nothing of the label.

        Only silent teachers count as gaps: that a column is unknown because of what was said, such
        as the distance between disorders where none was named, is an answer and may be learnt from.
        """
        return independence_weights(self.values if self.risks is None else self.risks, self.rare)

    def cells(self, rows: NDArray[np.intp], columns: Sequence[int]) -> NDArray[np.float64]:
        """The values at the crossings of ``rows`` and ``columns``."""
        return self.values[np.ix_(rows, np.asarray(columns, dtype=np.intp))]


def check_learnable(data: TrainingSet, name: str) -> None:
    """Refuse data from which nothing can be learnt and held out.

    Raises:
        BadInputError: ``data``, called ``name`` in the sentence, has fewer than three diseases of
            a class, or no case at all.
    """
    for label, of_class in (("rare", data.rare), ("nonrare", ~data.rare)):
        diseases = np.unique(data.disease[of_class]).size
        if diseases < _FEWEST:
            raise BadInputError(
                f"{name}: {diseases} diseases with label {label} have an answered case, and "
                f"{_FEWEST} are the fewest that can be learnt from and held out; add cases or "
                "ask a teacher about those that are there."
            )


def disease_folds(data: TrainingSet, folds: int, seed: int) -> NDArray[np.intp]:
    """The fold of each case from 0, shape ``(n_cases,)``, stratified by label.

    No disease lies in two folds. There are at most as many folds as the scarcer class has
    diseases.
    """
    scarcer = min(np.unique(data.disease[of]).size for of in (data.rare, ~data.rare))
    splitter = StratifiedGroupKFold(min(folds, scarcer), shuffle=True, random_state=seed)
    fold = np.empty(len(data.rare), dtype=np.intp)
    for number, (_, held_out) in enumerate(splitter.split(data.values, data.rare, data.disease)):
        fold[held_out] = number
    return fold


def drawn_in_folds(
    rare: NDArray[np.bool_], fold: NDArray[np.intp], most: int, seed: int
) -> NDArray[np.bool_]:
    """Which cases to look at, ``(n_cases,)``: at most ``most``, drawn by fold and label.

    Each fold keeps its share of the cases of either label, one at least, so that none is left
    empty however large a disease is. The folds themselves stay as they are.
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
