"""The training part as it stands, and as it would be had the panel said something else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from rarealert.alignment.features import build_features
from rarealert.alignment.folds import TrainingSet, drawn_in_folds
from rarealert.alignment.panel import Panel
from rarealert.alignment.search import weighted_auroc
from rarealert.alignment.targets import CrossFitted


@dataclass(frozen=True)
class Evidence:
    """Cross-fitted models with what they were fitted on; ``panel`` has the rows of ``data``.

    ``panel`` holds the teachers in the order of ``blocks``; ``places``, ``(n_cases,)``, are the
    rows of the training part that are looked at.
    """

    panel: Panel
    blocks: tuple[tuple[str, ...], ...]
    visits: Mapping[str, Sequence[float]] | None
    data: TrainingSet
    models: CrossFitted
    weights: NDArray[np.float64]
    places: NDArray[np.intp]

    def values(self, panel: Panel) -> NDArray[np.float64]:
        """The features of a tampered ``panel``, one row for each case of ``data``.

        A case that nobody answers any more has no known feature of its answers.
        """
        features = build_features(panel, self.blocks, self.visits)
        if len(features.case_ids) == len(self.data.rare):
            return features.values
        row_of = {case_id: row for row, case_id in enumerate(self.panel.case_ids)}
        values = np.full((len(self.data.rare), len(features.names)), np.nan)
        values[[row_of[case_id] for case_id in features.case_ids]] = features.values
        return values

    def risks(self, panel: Panel) -> NDArray[np.float64]:
        """Out-of-fold risks had the teachers said what ``panel`` says, shape ``(n_cases,)``."""
        return self.models.risks(self.values(panel))

    def auroc(self, panel: Panel) -> float:
        """AUROC of these risks, weighted so that who was asked tells nothing."""
        return weighted_auroc(self.data.rare, self.risks(panel), self.weights)

    def shuffle(self, teacher: str, seed: int) -> NDArray[np.intp]:
        """A new order of the cases that ``teacher`` answered, within each fold."""
        rng = np.random.default_rng((seed, crc32(teacher.encode())))
        order = np.arange(len(self.data.rare))
        answered = self.panel.answered()[:, self.panel.teachers.index(teacher)]
        for number in np.unique(self.models.fold):
            rows = np.flatnonzero(answered & (self.models.fold == number))
            order[rows] = rng.permutation(rows)
        return order

    def sample(self, cases: int, seed: int) -> "Evidence":
        """At most ``cases`` of the cases, drawn by fold and label; the models stay as they are."""
        mask = drawn_in_folds(self.data.rare, self.models.fold, cases, seed)
        if mask.all():
            return self
        rows = np.flatnonzero(mask)
        return replace(
            self,
            panel=self.panel.rows(rows),
            data=self.data.part(mask),
            models=CrossFitted(self.models.models, self.models.fold[rows]),
            weights=self.weights[rows],
            places=self.places[rows],
        )


def gather(
    panel: Panel,
    blocks: tuple[tuple[str, ...], ...],
    visits: Mapping[str, Sequence[float]] | None,
    data: TrainingSet,
    models: CrossFitted,
) -> Evidence:
    """The evidence of a fitted training part."""
    chosen = panel.of([name for block in blocks for name in block])
    places = np.arange(len(data.rare))
    return Evidence(chosen, blocks, visits, data, models, data.weights(), places)
