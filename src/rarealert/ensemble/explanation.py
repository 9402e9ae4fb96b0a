"""Shapley values of the ensemble's log odds, by column, teacher and feature group.

Own code of thirty lines instead of the shap package, which would add 190 MB of compiler to every
installation (docs/decisions/0016).

Whom the ensemble listened to, and what would be lost without them.

One case's risk, voice by voice: how far each moved it from where nothing is known.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from joblib import Parallel, delayed  # type: ignore[import-untyped]
from numpy.typing import NDArray
from scipy.special import logit
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from rarealert.ensemble.ensemble import Ensemble, FittedModel
from rarealert.ensemble.features import FeatureMatrix, build_features, group_of
from rarealert.ensemble.robustness import Evidence
from rarealert.ensemble.search import Judge, Search, mean_known, workers_for
from rarealert.ensemble.signals import Panel

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


@dataclass(frozen=True)
class TeacherReport:
    """One teacher's part in the ensemble, all on out-of-fold risks of the training part.

    ``auroc_alone`` is that of its own risks, ``None`` where it answered one class only.
    ``lost_when_shuffled`` is the AUROC lost when its answers are dealt to other cases (Breiman's
    permutation importance), ``weight`` its share of all such losses, and ``lost_without`` what the
    heaviest member loses when it is fitted without it: near 0 where others say the same.
    """

    teacher: str
    answered: int
    auroc_alone: float | None
    weight: float
    lost_when_shuffled: float
    lost_without: float


def teacher_reports(evidence: Evidence, found: Search, seed: int) -> list[TeacherReport]:
    """A report for each teacher, the heaviest first."""
    panel, data = evidence.panel, evidence.data
    full = evidence.auroc(panel)
    shuffled = {
        name: full - evidence.auroc(panel.dealt(name, evidence.shuffle(name, seed)))
        for name in panel.teachers
    }
    total = sum(max(0.0, loss) for loss in shuffled.values())
    losses = _losses_without(evidence, found, seed)
    answered = panel.answered()
    reports = [
        TeacherReport(
            teacher=name,
            answered=int(answered[:, place].sum()),
            auroc_alone=_auroc_alone(data.rare, panel.risk[:, place]),
            weight=max(0.0, shuffled[name]) / total if total else 1 / len(panel.teachers),
            lost_when_shuffled=shuffled[name],
            lost_without=losses[name],
        )
        for place, name in enumerate(panel.teachers)
    ]
    return sorted(reports, key=lambda report: (-report.weight, report.teacher))


def _auroc_alone(rare: NDArray[np.bool_], risks: NDArray[np.float64]) -> float | None:
    answered = ~np.isnan(risks)
    if np.unique(rare[answered]).size < 2:
        return None
    return float(roc_auc_score(rare[answered], risks[answered]))


def _losses_without(evidence: Evidence, found: Search, seed: int) -> Mapping[str, float]:
    """AUROC that the best candidate loses when fitted without each teacher, by teacher.

    Judged on the cases that someone else answered; 0 for the only teacher there is.
    """
    teachers = evidence.panel.teachers
    if len(teachers) < 2:
        return dict.fromkeys(teachers, 0.0)
    losses = Parallel(workers_for(len(evidence.data.rare)))(
        delayed(_loss_without)(evidence, found, name, seed) for name in teachers
    )
    return dict(zip(teachers, losses, strict=True))


def _loss_without(evidence: Evidence, found: Search, teacher: str, seed: int) -> float:
    answered = evidence.panel.answered()
    others = [place for place, name in enumerate(evidence.panel.teachers) if name != teacher]
    kept = np.asarray(answered[:, others].any(axis=1))
    if np.unique(evidence.data.rare[kept]).size < 2:
        return 0.0
    gaps = np.zeros_like(answered)
    gaps[:, evidence.panel.teachers.index(teacher)] = True
    candidate = found.best.candidate
    aurocs = []
    for panel in (evidence.panel, evidence.panel.silenced(gaps)):
        whole = replace(evidence.data, values=evidence.values(panel)).part(kept)
        judge = Judge(
            whole, found.columns, evidence.models.fold[kept], evidence.weights[kept], seed
        )
        aurocs.append(mean_known(list(judge.folds(candidate))))
    return aurocs[0] - aurocs[1]


def best_teacher(reports: Sequence[TeacherReport]) -> Mapping[str, str | float] | None:
    """Name and AUROC of the teacher that alone does best, and on how many cases it was judged.

    ``None`` where none can be judged. Teachers that were asked of other cases do not compare.
    """
    judged = [report for report in reports if report.auroc_alone is not None]
    if not judged:
        return None
    best = max(judged, key=lambda report: report.auroc_alone or 0.0)
    return {"teacher": best.teacher, "auroc": best.auroc_alone or 0.0, "cases": best.answered}


_ORDERS = 4  # of the columns, each there and back; Shapley values are their mean


@dataclass(frozen=True)
class Voice:
    """A teacher, or all columns of one kind that are worked out over teachers or visit.

    ``log_odds`` is how far it moved the case's log odds. For a teacher that answered, ``said`` is
    its risk 0 to 1 and ``risk_without`` the ensemble's had it been silent, which its share in the
    other columns enters into too; ``None`` for anything else, and where nobody else answered.
    """

    name: str
    log_odds: float
    said: float | None = None
    risk_without: float | None = None


@dataclass(frozen=True)
class CaseExplanation:
    """A case's ``risk`` 0 to 1 as log odds: ``base``, nothing known, plus all of ``voices``.

    ``voices`` stand with the heaviest first; ``columns`` are the same in full, by column.
    ``labels`` and ``strangeness`` are those of ``Assessment``.
    """

    risk: float
    base: float
    voices: tuple[Voice, ...]
    columns: Mapping[str, float]
    labels: Mapping[float, tuple[str, ...]]
    strangeness: float


def explain_case(
    ensemble: Ensemble,
    panel: Panel,
    visits: Mapping[str, Sequence[float]],
    case_id: str,
    seed: int,
) -> CaseExplanation | None:
    """The frozen ensemble's risk of ``case_id``; ``None`` where no teacher it knows answered.

    All other cases of ``panel`` stand for "unknown". ``visits`` are those of ``visit_features``.
    Shapley values are sampled as ``shapley_values`` says, from four orders drawn by ``seed``.
    """
    features = build_features(panel, ensemble.blocks, visits)
    if case_id not in features.case_ids:
        return None
    row = features.case_ids.index(case_id)
    case, background = features.values[row], np.delete(features.values, row, axis=0)
    model = ensemble.model
    players, rng = columns_heard(model), np.random.default_rng(seed)
    sampled = [
        shapley_values(log_odds_of(model), case, background, players, rng) for _ in range(_ORDERS)
    ]
    values = np.mean([found for found, _ in sampled], axis=0)
    names = tuple(features.names[place] for place in players)
    risk = float(model.risks(case[None])[0])
    return CaseExplanation(
        risk=risk,
        base=sampled[0][1],
        voices=_voices(ensemble, panel, visits, (features, row), (names, values)),
        columns=dict(zip(names, values.tolist(), strict=True)),
        labels={level: cuts.labels(risk) for level, cuts in ensemble.cuts.items()},
        strangeness=float(ensemble.strangeness(case[None])[0]),
    )


def _voices(
    ensemble: Ensemble,
    panel: Panel,
    visits: Mapping[str, Sequence[float]],
    at: tuple[FeatureMatrix, int],
    moved: tuple[tuple[str, ...], NDArray[np.float64]],
) -> tuple[Voice, ...]:
    """Teachers that answered and whatever moved the risk; ``moved`` are columns and values."""
    features, row = at
    case_id = features.case_ids[row]
    names, values = moved
    alone = Shapley(np.zeros(1, int), names, values[None], np.zeros(1), np.zeros(1, int))
    by_group = {name: float(found[0]) for name, found in alone.by_group().items()}
    voices = []
    for place, name in enumerate(features.names):
        if group_of(name) != "risk":
            break  # the risks come first
        said, teacher = features.values[row, place], name.partition(":")[2]
        heard = by_group.pop(name, 0.0)
        if not np.isnan(said):
            without = _risk_without(ensemble, panel.among([case_id]), visits, teacher)
            voices.append(Voice(teacher, heard, float(said), without))
        elif heard:
            voices.append(Voice(teacher, heard))
    voices += [Voice(group, told) for group, told in by_group.items()]
    return tuple(sorted(voices, key=lambda voice: (-abs(voice.log_odds), voice.name)))


def _risk_without(
    ensemble: Ensemble, case: Panel, visits: Mapping[str, Sequence[float]], teacher: str
) -> float | None:
    gaps = np.zeros_like(case.answered())
    gaps[:, case.teachers.index(teacher)] = True
    features = build_features(case.silenced(gaps), ensemble.blocks, visits)
    if not features.case_ids:
        return None
    return float(ensemble.model.risks(features.values)[0])


def draw_background(case_ids: Iterable[str], cases: int, seed: int) -> list[str]:
    """Up to ``cases`` of the ids, drawn at random, the same ones for every case explained."""
    known = sorted(case_ids)
    chosen = np.random.default_rng(seed).choice(len(known), min(cases, len(known)), replace=False)
    return [known[place] for place in sorted(chosen)]
