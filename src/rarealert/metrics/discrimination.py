"""How well risks tell rare from non-rare cases.

``*_of`` functions take ``RiskCounts`` of ``r`` samples and give shape ``(r,)`` with NaN where a
sample does not define the metric; the functions without the suffix take labels (1 rare, 0 not)
and risks of shape ``(n,)`` and raise ``UndefinedMetricError`` instead.
"""

import numpy as np
from numpy.typing import ArrayLike

from rarealert.metrics.counts import FloatArray, Ranking, RiskCounts, ratio, single

BOTH_CLASSES = "it needs both rare and non-rare cases"
_TINY = 1e-12  # cases; stands for none where no case is flagged and precision counts for nothing


def _inner(left: FloatArray, right: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("rg,rg->r", left, right))


def auroc_of(counts: RiskCounts) -> FloatArray:
    """Area under the ROC curve as the Mann-Whitney statistic, ties counted half.

    Hanley and McNeil, Radiology 143:29 (1982).
    """
    up_to, tied = _inner(counts.rare, counts.nonrare_up_to), _inner(counts.rare, counts.nonrare)
    wins = up_to - tied / 2
    return ratio(wins, counts.n_rare * counts.n_nonrare)


def auprc_of(counts: RiskCounts) -> FloatArray:
    """Average precision: precision at each distinct risk, weighted by the recall it adds.

    The step-wise sum of scikit-learn's ``average_precision_score``; no interpolation (Davis and
    Goadrich, ICML 2006, show why a trapezium would flatter).
    """
    flagged_rare = counts.n_rare[:, None] - counts.rare_up_to + counts.rare
    flagged = counts.n_nonrare[:, None] - counts.nonrare_up_to + counts.nonrare
    flagged += flagged_rare
    precision = flagged_rare / np.maximum(flagged, _TINY)
    value = ratio(_inner(counts.rare, precision), counts.n_rare)
    return np.where(counts.n_nonrare > 0, value, np.nan)


def sensitivity_of(counts: RiskCounts, threshold: float) -> FloatArray:
    """Share of rare cases with a risk at or above ``threshold``."""
    return ratio(counts.n_rare - counts.below(threshold)[0], counts.n_rare)


def specificity_of(counts: RiskCounts, threshold: float) -> FloatArray:
    """Share of non-rare cases with a risk below ``threshold``."""
    return ratio(counts.below(threshold)[1], counts.n_nonrare)


def auroc(labels: ArrayLike, risks: ArrayLike) -> float:
    """Area under the ROC curve, 0 to 1."""
    return single(auroc_of(Ranking(labels, risks).count()), BOTH_CLASSES)


def auprc(labels: ArrayLike, risks: ArrayLike) -> float:
    """Average precision, 0 to 1; its chance level is the share of rare cases."""
    return single(auprc_of(Ranking(labels, risks).count()), BOTH_CLASSES)


def sensitivity(labels: ArrayLike, risks: ArrayLike, threshold: float) -> float:
    """Share of rare cases at or above ``threshold``."""
    return single(sensitivity_of(Ranking(labels, risks).count(), threshold), "no case is rare")


def specificity(labels: ArrayLike, risks: ArrayLike, threshold: float) -> float:
    """Share of non-rare cases below ``threshold``."""
    return single(specificity_of(Ranking(labels, risks).count(), threshold), "every case is rare")


def sensitivity_at_specificity(labels: ArrayLike, risks: ArrayLike, target: float) -> float:
    """The highest sensitivity of these same cases with a specificity of at least ``target``.

    It chooses its threshold on the cases it measures: right on a validation part, flattering on
    a test part, where ``sensitivity`` takes a threshold chosen elsewhere.
    """
    return sensitivity(labels, risks, threshold_at_specificity(labels, risks, target))


def specificity_at_sensitivity(labels: ArrayLike, risks: ArrayLike, target: float) -> float:
    """The highest specificity of these same cases with a sensitivity of at least ``target``."""
    return specificity(labels, risks, threshold_at_sensitivity(labels, risks, target))


def threshold_at_specificity(labels: ArrayLike, risks: ArrayLike, target: float) -> float:
    """The lowest threshold whose specificity on these cases is at least ``target``.

    Just above the highest risk where even that risk is too common among non-rare cases.
    """
    counts = Ranking(labels, risks).count()
    single(counts.n_nonrare * np.where(counts.n_nonrare > 0, 1, np.nan), "every case is rare")
    above = np.append(counts.risk, np.nextafter(counts.risk[-1], np.inf))
    below = np.concatenate([[0.0], counts.nonrare_up_to[0]])
    return float(above[np.argmax(below >= target * counts.n_nonrare[0] - 1e-9)])


def threshold_at_sensitivity(labels: ArrayLike, risks: ArrayLike, target: float) -> float:
    """The highest threshold whose sensitivity on these cases is at least ``target``."""
    counts = Ranking(labels, risks).count()
    single(counts.n_rare * np.where(counts.n_rare > 0, 1, np.nan), "no case is rare")
    flagged = np.cumsum(counts.rare[0, ::-1])
    first = int(np.argmax(flagged >= target * counts.n_rare[0] - 1e-9))
    return float(counts.risk[::-1][first])


def roc_points(labels: ArrayLike, risks: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """False and true positive rate at every distinct threshold, from (0, 0) to (1, 1)."""
    counts = Ranking(labels, risks).count()
    single(auroc_of(counts), BOTH_CLASSES)
    fpr = np.cumsum(counts.nonrare[0, ::-1]) / counts.n_nonrare[0]
    tpr = np.cumsum(counts.rare[0, ::-1]) / counts.n_rare[0]
    return np.concatenate([[0.0], fpr]), np.concatenate([[0.0], tpr])
