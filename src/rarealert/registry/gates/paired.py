"""AUROC of two models on the cases both answered, with the interval of their difference."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rarealert.metrics.intervals import Bootstrap
from rarealert.metrics.panel import Estimate, Study, compare
from rarealert.registry.evidence import Evidence


@dataclass(frozen=True)
class Pairing:
    """The challenger against others on one locked test part, by the same resamples."""

    evidence: Evidence
    plan: Bootstrap

    def differences(self, others: Mapping[str, Mapping[str, float]]) -> dict[str, Estimate]:
        """AUROC of the challenger minus that of each other model, by name.

        Whole diseases are resampled. A model is left out where the cases both answered do not
        define the difference.
        """
        if not others:
            return {}
        ids = sorted(self.evidence.rare)
        own = self.evidence.answered(self.evidence.challenger)
        risks = {name: _column(ids, risk) for name, risk in {**others, "": own}.items()}
        study = Study(
            labels=np.array([float(self.evidence.rare[key]) for key in ids]),
            clusters=np.array([self.evidence.disease[key] for key in ids]),
            risks=risks,
            thresholds={},
        )
        pairs = {name: ("", name) for name in others}
        found = compare(study, pairs, "auroc", self.plan)
        return {name: comparison.difference for name, comparison in found.items()}


def _column(ids: list[str], risks: Mapping[str, float]) -> NDArray[np.float64]:
    return np.array([risks.get(key, np.nan) for key in ids], dtype=np.float64)
