"""Which teachers and features move the ensemble's risks: Shapley values and losses without each.

Shapley values are computed here in a few lines instead of by the shap package, which would add
190 MB of compiler to every installation (docs/decisions/0016).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from joblib import Parallel, delayed  # type: ignore[import-untyped]
from numpy.typing import NDArray
from scipy.special import logit
from scipy.stats import spearmanr

from rarealert.ensemble.ensemble import FittedModel
from rarealert.ensemble.features import group_of
from rarealert.ensemble.search import (
    CrossValidation,
    Search,
    mean_known,
    weighted_auroc,
    workers_for,
)
from rarealert.ensemble.stress_tests import SHUFFLED, OutOfFold, StressTest

Floats = NDArray[np.float64]

_BACKGROUND = 10  # cases that represent "unknown"; the cost grows with them
_EDGE = 1e-3  # a risk nearer to 0 or 1 counts as this, or one certain case would fill the plot


@dataclass(frozen=True)
class Shapley:
    """Explained cases, each by a model that never saw its disease.

    ``rows`` are their places in the training part, ``contributions``, shape ``(k, m)``, those of
    the columns ``names`` in log odds, ``base``, ``(k,)``, the log odds when nothing is known, and
    ``fold`` the fold of each. A case's row and its base add up to its log odds.
    """

    rows: NDArray[np.intp]
    names: tuple[str, ...]
    contributions: Floats
    base: Floats
    fold: NDArray[np.intp]


def explain_cases(study: OutOfFold, names: Sequence[str], cases: int, seed: int) -> Shapley:
    """Explain up to ``cases`` cases, drawn evenly from the folds; ``names`` are all columns'."""
    rng = np.random.default_rng(seed)
    models, fold = study.models.models, study.models.fold
    used = sorted({place for model in models for place in used_columns(model)})
    rows, values, bases = [], [], []
    for number, model in enumerate(models):
        inside, outside = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        background = study.data.values[
            rng.choice(outside, min(_BACKGROUND, len(outside)), replace=False)
        ]
        take = min(max(1, cases // len(models)), len(inside))
        for row in np.sort(rng.choice(inside, take, replace=False)):
            found, base = shapley_values(
                log_odds_of(model), study.data.values[row], background, used, rng
            )
            rows.append(row)
            values.append(found)
            bases.append(base)
    chosen = np.asarray(rows, dtype=np.intp)
    in_order = tuple(names[place] for place in used)
    return Shapley(chosen, in_order, np.asarray(values), np.asarray(bases), fold[chosen])


def shapley_values(
    function: Callable[[Floats], Floats],
    case: Floats,
    background: Floats,
    players: list[int],
    rng: np.random.Generator,
) -> tuple[Floats, float]:
    """Sample interventional Shapley values of one case.

    A column that is not in a coalition has the background's values. One random order of the columns
    and its reverse are sampled, which is exact where no more than two columns interact (Mitchell et
    al., Sampling permutations for Shapley value estimation, JMLR 2022).

    Args:
        function: maps values ``(n, n_features)`` to ``(n,)``.
        case: the values to explain, shape ``(n_features,)``.
        background: values that represent "unknown", shape ``(b, n_features)``.
        players: positions of the columns that take part, ``m`` of them.
        rng: draws the order.

    Returns:
        The contributions of ``players``, shape ``(m,)``, and the function's value without them.
    """
    order = rng.permutation(len(players))
    steps = np.arange(len(players) + 1)[:, None]
    rank = np.argsort(order)
    masks = np.concatenate([rank[None, :] < steps, (len(players) - 1 - rank)[None, :] < steps])
    mixed = np.tile(background, (len(masks), 1, 1))
    mixed[:, :, players] = np.where(
        masks[:, None, :], case[players], background[None][:, :, players]
    )
    means = function(mixed.reshape(-1, len(case))).reshape(len(masks), -1).mean(axis=1)
    forward, backward = np.split(means, 2)
    values = np.empty(len(players))
    values[order] = np.diff(forward) / 2
    values[order[::-1]] += np.diff(backward) / 2
    return values, float(forward[0])


def used_columns(model: FittedModel) -> list[int]:
    """Positions, ascending, of the columns that a member with any weight reads."""
    return sorted({int(place) for _, one in model.weighted_members() for place in one.columns})


def log_odds_of(model: FittedModel) -> Callable[[Floats], Floats]:
    """The function that is explained: values ``(n, n_features)`` to log odds ``(n,)``."""

    def function(values: Floats) -> Floats:
        return np.asarray(logit(np.clip(model.risks(values), _EDGE, 1 - _EDGE)))

    return function


def sum_by_group(names: Sequence[str], contributions: Floats) -> dict[str, Floats]:
    """Sum the last axis of ``contributions``, the columns ``names``, by teacher and group.

    Each teacher's risk is a key by itself, as is each other group of columns.
    """
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        group = name if group_of(name) == "risk" else group_of(name)
        places.setdefault(group, []).append(place)
    return {group: contributions[..., found].sum(axis=-1) for group, found in places.items()}


@dataclass(frozen=True)
class Importance:
    """Mean absolute contribution of a teacher or group in log odds, and its sd over folds."""

    name: str
    mean: float
    sd_over_folds: float


def importances(found: Shapley) -> list[Importance]:
    """Rank every teacher and group, the heaviest first."""
    rows = []
    for name, values in sum_by_group(found.names, found.contributions).items():
        of_folds = [np.abs(values[found.fold == one]).mean() for one in np.unique(found.fold)]
        rows.append(Importance(name, float(np.abs(values).mean()), float(np.std(of_folds))))
    return sorted(rows, key=lambda row: (-row.mean, row.name))


def stability(found: Shapley) -> float | None:
    """Mean Spearman correlation, over pairs of folds, of the groups' mean contributions.

    1 where all folds rank the groups alike; ``None`` for one fold or fewer than three groups.
    """
    by_group = sum_by_group(found.names, found.contributions)
    if len(by_group) < 3:
        return None
    groups = np.abs(np.column_stack(list(by_group.values())))
    folds = [groups[found.fold == number].mean(axis=0) for number in np.unique(found.fold)]
    correlations = [
        float(spearmanr(one, other).statistic)
        for one, other in combinations(folds, 2)
        if np.ptp(one) > 0 and np.ptp(other) > 0
    ]
    return float(np.mean(correlations)) if correlations else None


@dataclass(frozen=True)
class TeacherReport:
    """One teacher's part in the ensemble, all on out-of-fold risks of the training part.

    ``auroc_alone`` is that of its own risks, ``None`` where it answered one class only.
    ``lost_when_shuffled`` is the AUROC lost when its answers are permuted (Breiman's permutation
    importance), ``weight`` its share of all such losses, and ``lost_without`` the loss of the best
    candidate when it is fitted without the teacher: near 0 where others answer alike.
    """

    teacher: str
    answered: int
    auroc_alone: float | None
    weight: float
    lost_when_shuffled: float
    lost_without: float


def teacher_reports(
    study: OutOfFold, found: Search, tests: Sequence[StressTest], seed: int
) -> list[TeacherReport]:
    """A report for each teacher, the heaviest first; ``tests`` are those of ``stress_tests``."""
    signals = study.signals
    shuffled = {row.detail: row.lost for row in tests if row.kind == SHUFFLED}
    total = sum(max(0.0, loss) for loss in shuffled.values())
    losses = _losses_without(study, found, seed)
    answered = signals.answered()
    reports = [
        TeacherReport(
            teacher=name,
            answered=int(answered[:, place].sum()),
            auroc_alone=_auroc_alone(study.data.rare, signals.risk[:, place]),
            weight=max(0.0, shuffled[name]) / total if total else 1 / len(signals.teachers),
            lost_when_shuffled=shuffled[name],
            lost_without=losses[name],
        )
        for place, name in enumerate(signals.teachers)
    ]
    return sorted(reports, key=lambda report: (-report.weight, report.teacher))


def _auroc_alone(rare: NDArray[np.bool_], risks: Floats) -> float | None:
    answered = ~np.isnan(risks)
    found = weighted_auroc(rare[answered], risks[answered], np.ones(int(answered.sum())))
    return None if np.isnan(found) else found


def _losses_without(study: OutOfFold, found: Search, seed: int) -> Mapping[str, float]:
    """AUROC that the best candidate loses when fitted without each teacher, by teacher.

    Judged on the cases that another teacher answered; 0 for the only teacher there is.
    """
    teachers = study.signals.teachers
    if len(teachers) < 2:
        return dict.fromkeys(teachers, 0.0)
    losses = Parallel(workers_for(len(study.data.rare)))(
        delayed(_loss_without)(study, found, name, seed) for name in teachers
    )
    return dict(zip(teachers, losses, strict=True))


def _loss_without(study: OutOfFold, found: Search, teacher: str, seed: int) -> float:
    without = study.signals.without_teacher(teacher)
    kept = np.asarray(without.answered().any(axis=1))
    if np.unique(study.data.rare[kept]).size < 2:
        return 0.0
    aurocs = []
    for signals in (study.signals, without):
        data = replace(study.data, values=study.values(signals)).part(kept)
        fold, weights = study.models.fold[kept], study.weights[kept]
        validation = CrossValidation(data, found.columns, fold, weights, seed)
        aurocs.append(mean_known(list(validation.aurocs(found.best.candidate))))
    return aurocs[0] - aurocs[1]


def best_teacher(reports: Sequence[TeacherReport]) -> Mapping[str, str | float] | None:
    """Name and AUROC of the teacher that alone does best, and the cases it answered.

    ``None`` where none can be judged. Teachers that were asked about other cases do not compare.
    """
    judged = [(report.auroc_alone, report) for report in reports if report.auroc_alone is not None]
    if not judged:
        return None
    auroc, best = max(judged, key=lambda one: one[0])
    return {"teacher": best.teacher, "auroc": auroc, "cases": best.answered}
