"""Shapley values of the ensemble's log odds, by column, teacher and feature group.

Own code of thirty lines instead of the shap package, which would add 190 MB of compiler to every
installation (docs/decisions/0061).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit
from scipy.stats import spearmanr

from rarealert.alignment.ensemble import FittedModel
from rarealert.alignment.evidence import Evidence
from rarealert.alignment.features import group_of

Floats = NDArray[np.float64]

_BACKGROUND = 10  # cases that stand for "unknown"; the cost grows with them
_EDGE = 1e-3  # a risk nearer to 0 or 1 counts as this, or one certain case would fill the plot


@dataclass(frozen=True)
class Shapley:
    """Explained cases, each by a model that never saw its disease.

    ``rows`` are their places in the evidence, ``contributions``, shape ``(k, m)``, those of
    the columns ``names`` in log odds, ``base``, ``(k,)``, the log odds when nothing is known, and
    ``fold`` the fold of each. A case's row and its base add up to its log odds.
    """

    rows: NDArray[np.intp]
    names: tuple[str, ...]
    contributions: Floats
    base: Floats
    fold: NDArray[np.intp]

    def by_group(self) -> Mapping[str, Floats]:
        """Contributions, shape ``(k,)``, of each teacher's risk and of each other group."""
        places: dict[str, list[int]] = {}
        for place, name in enumerate(self.names):
            group = name if group_of(name) == "risk" else group_of(name)
            places.setdefault(group, []).append(place)
        return {group: self.contributions[:, found].sum(axis=1) for group, found in places.items()}


def explain(evidence: Evidence, names: tuple[str, ...], cases: int, seed: int) -> Shapley:
    """Explain up to ``cases`` cases, drawn evenly from the folds; ``names`` are all columns'."""
    rng = np.random.default_rng(seed)
    models, fold = evidence.models.models, evidence.models.fold
    used = sorted({place for model in models for place in columns_heard(model)})
    rows, values, bases = [], [], []
    for number, model in enumerate(models):
        inside, outside = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        background = evidence.data.values[
            rng.choice(outside, min(_BACKGROUND, len(outside)), replace=False)
        ]
        take = min(max(1, cases // len(models)), len(inside))
        for row in np.sort(rng.choice(inside, take, replace=False)):
            found, base = shapley_values(
                log_odds_of(model), evidence.data.values[row], background, used, rng
            )
            rows.append(row)
            values.append(found)
            bases.append(base)
    chosen = np.asarray(rows, dtype=np.intp)
    return Shapley(
        chosen,
        tuple(names[place] for place in used),
        np.asarray(values),
        np.asarray(bases),
        fold[chosen],
    )


def shapley_values(
    function: Callable[[Floats], Floats],
    case: Floats,
    background: Floats,
    players: list[int],
    rng: np.random.Generator,
) -> tuple[Floats, float]:
    """Contributions of the columns ``players``, shape ``(m,)``, and the value without them.

    Interventional: a column that is not in a coalition has the background's values. Sampled from
    one random order of the columns and its reverse, which is exact where no more than two columns
    interact (Mitchell et al., Sampling permutations for Shapley value estimation, JMLR 2022).
    """
    order = rng.permutation(len(players))
    steps = np.arange(len(players) + 1)[:, None]
    rank = np.argsort(order)
    masks = np.concatenate([rank[None, :] < steps, (len(players) - 1 - rank)[None, :] < steps])
    mixed = np.tile(background, (len(masks), 1, 1))
    mixed[:, :, players] = np.where(
        masks[:, None, :], case[players], background[None][:, :, players]
    )
    heard = function(mixed.reshape(-1, len(case))).reshape(len(masks), -1).mean(axis=1)
    forward, backward = np.split(heard, 2)
    values = np.empty(len(players))
    values[order] = np.diff(forward) / 2
    values[order[::-1]] += np.diff(backward) / 2
    return values, float(forward[0])


def columns_heard(model: FittedModel) -> list[int]:
    """Positions, ascending, of the columns that a member with any weight reads."""
    read = {
        int(place)
        for member, weight in zip(model.members, model.blend.weights, strict=True)
        if weight
        for place in member.columns
    }
    return sorted(read)


def log_odds_of(model: FittedModel) -> Callable[[Floats], Floats]:
    """The function that is explained: values ``(n, n_features)`` to log odds ``(n,)``."""

    def function(values: Floats) -> Floats:
        return np.asarray(logit(np.clip(model.risks(values), _EDGE, 1 - _EDGE)))

    return function


@dataclass(frozen=True)
class Importance:
    """Mean absolute contribution of a teacher or group in log odds, and its sd over folds."""

    name: str
    mean: float
    sd_over_folds: float


def importances(found: Shapley) -> list[Importance]:
    """Every teacher and group, the heaviest first."""
    rows = []
    for name, values in found.by_group().items():
        of_folds = [np.abs(values[found.fold == one]).mean() for one in np.unique(found.fold)]
        rows.append(Importance(name, float(np.abs(values).mean()), float(np.std(of_folds))))
    return sorted(rows, key=lambda row: (-row.mean, row.name))


def stability(found: Shapley) -> float | None:
    """Mean Spearman correlation, over pairs of folds, of the groups' mean contributions.

    1 where all folds listen to the same voices; ``None`` for one fold or fewer than three groups.
    """
    if not found.names:
        return None
    groups = np.abs(np.column_stack(list(found.by_group().values())))
    folds = [groups[found.fold == number].mean(axis=0) for number in np.unique(found.fold)]
    told = [
        float(spearmanr(one, other).statistic)
        for one, other in combinations(folds, 2)
        if np.ptp(one) > 0 and np.ptp(other) > 0
    ]
    return float(np.mean(told)) if told and groups.shape[1] > 2 else None
