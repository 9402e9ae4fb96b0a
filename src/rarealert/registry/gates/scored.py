"""Labels and usable risks of one model on some of the test cases."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from rarealert.metrics.counts import UndefinedMetricError
from rarealert.metrics.discrimination import auroc
from rarealert.registry.evidence import Evidence

Floats = NDArray[np.float64]


def scored(
    evidence: Evidence, model: str, among: Iterable[str] | None = None
) -> tuple[Floats, Floats]:
    """Labels (1 rare) and risks 0-1 of the cases ``model`` answered, each of shape ``(n,)``."""
    risks = evidence.answered(model)
    ids = sorted(risks if among is None else risks.keys() & set(among))
    return (
        np.array([float(evidence.rare[key]) for key in ids]),
        np.array([risks[key] for key in ids], dtype=np.float64),
    )


def auroc_or_none(
    evidence: Evidence, model: str, among: Iterable[str] | None = None
) -> float | None:
    """AUROC on the cases answered, ``None`` where they do not define it."""
    labels, risks = scored(evidence, model, among)
    if labels.size == 0:
        return None
    try:
        return float(auroc(labels, risks))
    except UndefinedMetricError:
        return None
