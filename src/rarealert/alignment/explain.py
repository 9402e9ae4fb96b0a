"""Whom the ensemble listened to, and what would be lost without them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from joblib import Parallel, delayed  # type: ignore[import-untyped]
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from rarealert.alignment.evidence import Evidence
from rarealert.alignment.search import Judge, Search, mean_known, workers_for


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
