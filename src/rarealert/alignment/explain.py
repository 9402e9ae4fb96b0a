"""Whom the ensemble listened to, and what would be lost without them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from rarealert.alignment.algorithms import fit_pipeline, raw_scores
from rarealert.alignment.features import Panel, Voice, build_features
from rarealert.alignment.folds import TrainingSet
from rarealert.alignment.search import Search, weighted_auroc


@dataclass(frozen=True)
class TeacherReport:
    """One teacher's part in the ensemble, all on out-of-fold scores of the training part.

    ``auroc_alone`` is that of its own risks, ``None`` where it answered one class only.
    ``lost_when_shuffled`` is the AUROC lost when its answers are dealt to other cases (Breiman's
    permutation importance), ``weight`` its share of all such losses, and ``lost_without`` what is
    lost when the ensemble is fitted without it: near 0 where others say the same.
    """

    teacher: str
    answered: int
    auroc_alone: float | None
    weight: float
    lost_when_shuffled: float
    lost_without: float


def teacher_reports(
    panel: Panel, teachers: Sequence[str], data: TrainingSet, found: Search, seed: int
) -> list[TeacherReport]:
    """A report for each teacher, the heaviest first, for the best candidate of ``found``.

    ``panel`` holds the cases of ``data`` and no other.
    """
    probe = _Probe(panel, tuple(teachers), data, found, seed)
    shuffled = {name: probe.loss_when_shuffled(name) for name in teachers}
    total = sum(max(0.0, loss) for loss in shuffled.values())
    reports = [
        TeacherReport(
            teacher=name,
            answered=sum(name in said for said in panel.values()),
            auroc_alone=_auroc_alone(data.rare, data.values[:, position]),
            weight=max(0.0, shuffled[name]) / total if total else 1 / len(teachers),
            lost_when_shuffled=shuffled[name],
            lost_without=probe.loss_without(name) if len(teachers) > 1 else 0.0,
        )
        for position, name in enumerate(teachers)
    ]
    return sorted(reports, key=lambda report: (-report.weight, report.teacher))


def _auroc_alone(rare: NDArray[np.bool_], risks: NDArray[np.float64]) -> float | None:
    answered = ~np.isnan(risks)
    if np.unique(rare[answered]).size < 2:
        return None
    return float(roc_auc_score(rare[answered], risks[answered]))


class _Probe:
    """The best candidate, fitted fold by fold on panels that were tampered with."""

    def __init__(
        self,
        panel: Panel,
        teachers: tuple[str, ...],
        data: TrainingSet,
        found: Search,
        seed: int,
    ) -> None:
        self.panel, self.teachers, self.data, self.seed = panel, teachers, data, seed
        self.found, self.candidate = found, found.best.candidate
        self.models = [
            self._fit(self._values(panel, teachers)[found.fold != number], found.fold != number)
            for number in range(int(found.fold.max()) + 1)
        ]

    def loss_when_shuffled(self, teacher: str) -> float:
        """AUROC lost when ``teacher`` speaks of another case of the same fold."""
        values = self._values(self._shuffled(teacher), self.teachers)
        scores = np.empty(len(self.data.rare))
        for number, model in enumerate(self.models):
            out = self.found.fold == number
            scores[out] = raw_scores(model, values[out])
        return self.found.best.auroc - weighted_auroc(self.data.rare, scores, self.found.weights)

    def loss_without(self, teacher: str) -> float:
        """AUROC lost on the cases that someone else answered, after fitting without ``teacher``."""
        others = tuple(name for name in self.teachers if name != teacher)
        kept = np.asarray(
            [bool(self.panel[case].keys() - {teacher}) for case in sorted(self.panel)]
        )
        fold, rare, weights = (
            array[kept] for array in (self.found.fold, self.data.rare, self.found.weights)
        )
        full = self.found.best.scores
        if full is None or np.unique(rare).size < 2:
            return 0.0
        values = self._values(self.panel, others)
        scores = np.empty(len(rare))
        for number in np.unique(fold):
            out = fold == number
            model = self._fit(values[~out], kept & (self.found.fold != number))
            scores[out] = raw_scores(model, values[out])
        return weighted_auroc(rare, full[kept], weights) - weighted_auroc(rare, scores, weights)

    def _values(self, panel: Panel, teachers: tuple[str, ...]) -> NDArray[np.float64]:
        features = build_features(panel, teachers)
        return features.values[:, features.columns(self.candidate.feature_set)]

    def _fit(self, values: NDArray[np.float64], rows: NDArray[np.bool_]) -> object:
        return fit_pipeline(
            self.candidate.algorithm,
            self.candidate.settings,
            values,
            self.data.rare[rows],
            self.seed,
        )

    def _shuffled(self, teacher: str) -> Panel:
        """The panel with ``teacher``'s answers dealt anew within each fold."""
        rng = np.random.default_rng(self.seed)
        dealt: dict[str, Voice] = {}
        case_ids = sorted(self.panel)
        for number in np.unique(self.found.fold):
            answered = [
                case_id
                for case_id, fold in zip(case_ids, self.found.fold, strict=True)
                if fold == number and teacher in self.panel[case_id]
            ]
            for case_id, other in zip(answered, rng.permutation(len(answered)), strict=True):
                dealt[case_id] = self.panel[answered[other]][teacher]
        return {
            case_id: said | {teacher: dealt[case_id]} if case_id in dealt else said
            for case_id, said in ((case, dict(self.panel[case])) for case in case_ids)
        }


def best_teacher(reports: Sequence[TeacherReport]) -> Mapping[str, str | float] | None:
    """Name and AUROC of the teacher that alone does best; ``None`` where none can be judged."""
    judged = [report for report in reports if report.auroc_alone is not None]
    if not judged:
        return None
    best = max(judged, key=lambda report: report.auroc_alone or 0.0)
    return {"teacher": best.teacher, "auroc": best.auroc_alone or 0.0}
