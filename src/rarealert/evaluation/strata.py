"""How much of a model's AUROC remains among cases that a shortcut scores alike.

A model that only follows a shortcut ranks cases no better than chance once the shortcut is held
fixed. Pairs of a rare and a non-rare case are therefore compared within strata of the shortcut's
score alone (van Elteren 1960; the covariate-adjusted AUROC of Janes and Pepe, Biometrika 96:371,
2009, with strata weighted by their pairs).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rarealert.evaluation.controls import WORDS
from rarealert.evaluation.intervals import Bootstrap, Estimate, ResampleTask, draw
from rarealert.evaluation.metrics import (
    CountsMetric,
    FloatArray,
    IntArray,
    RiskCounts,
    UndefinedMetricError,
    auroc_of,
    ratio,
)
from rarealert.evaluation.predictions import CONTROL_PREFIX, ENSEMBLE, STUDENT, of_kind
from rarealert.evaluation.study import Reference, Study

STRATA = 5  # fifths of the shortcut's score: Cochran 1968 found they remove 90 % of confounding


@dataclass(frozen=True)
class Remaining:
    """A model's AUROC over all pairs and within strata of a shortcut, on the same ``n`` cases.

    ``kept`` is the share of the AUROC above chance that remains, ``(within - 0.5) / (auroc -
    0.5)``; ``None`` where the AUROC itself is not above chance. ``pairs_share``, 0-1, is the
    share of rare-non-rare pairs that are within a stratum.
    """

    strata: int
    pairs_share: float
    auroc: Estimate
    within: Estimate
    kept: float | None


def strata_of(scores: ArrayLike) -> IntArray:
    """The stratum of each case, shape ``(n,)``: one per distinct score, at most fifths."""
    score = np.asarray(scores, dtype=np.float64)
    distinct, places = np.unique(score, return_inverse=True)
    if distinct.size <= STRATA:
        return np.asarray(places, dtype=np.intp).reshape(-1)
    edges = np.quantile(score, np.arange(1, STRATA) / STRATA)
    return np.unique(np.searchsorted(edges, score, side="left"), return_inverse=True)[1]


def remaining(
    labels: FloatArray,
    risks: FloatArray,
    scores: ArrayLike,
    clusters: NDArray[np.str_],
    plan: Bootstrap,
) -> Remaining:
    """The AUROC of ``risks`` within strata of a shortcut's ``scores``.

    All have shape ``(n,)``; ``clusters`` names the disease of each case.

    Raises:
        BadInputError: labels or risks are malformed.
        UndefinedMetricError: no stratum holds both labels, or too few resamples do.
    """
    strata = strata_of(scores)
    cells = [np.flatnonzero(strata == at) for at in np.unique(strata)]
    jobs = {
        f"stratum {number}": job
        for number, index in enumerate(cells)
        for job in [ResampleTask("model", index, labels[index], risks[index], _PAIRS)]
        if job.has_both_labels
    }
    everyone = ResampleTask("model", np.arange(labels.size), labels, risks, {"auroc": auroc_of})
    drawn = draw({**jobs, "everyone": everyone}, clusters, plan)
    auroc = everyone.estimates(drawn.pop("everyone"), plan)["auroc"]
    values = [{name: np.array([value]) for name, value in job.observed.items()}
              for job in jobs.values()]  # fmt: skip
    pooled = float(_pooled(values)[0]) if values else np.nan
    within = plan.estimate(pooled, _pooled(list(drawn.values())), labels.size) if values else None
    if within is None or auroc is None:
        raise UndefinedMetricError("no stratum of the shortcut holds enough cases of both labels")
    pairs = sum(job.observed["pairs"] for job in jobs.values())
    return Remaining(
        strata=len(cells),
        pairs_share=pairs / float(labels.sum() * (1 - labels).sum()),
        auroc=auroc,
        within=within,
        kept=(within.value - 0.5) / (auroc.value - 0.5) if auroc.value > 0.5 else None,
    )


def _pairs_of(counts: RiskCounts) -> FloatArray:
    return counts.n_rare * counts.n_nonrare


def _wins_of(counts: RiskCounts) -> FloatArray:
    """Pairs in which the rare case has the higher risk, ties half."""
    return np.nan_to_num(auroc_of(counts)) * _pairs_of(counts)


_PAIRS: Mapping[str, CountsMetric] = {"wins": _wins_of, "pairs": _pairs_of}


def _pooled(cells: Sequence[Mapping[str, FloatArray]]) -> FloatArray:
    """AUROC over the pairs of all strata, one per resample."""
    wins = np.sum([of_cell["wins"] for of_cell in cells], axis=0)
    return ratio(wins, np.sum([of_cell["pairs"] for of_cell in cells], axis=0))


def within_strata(study: Study, reference: Reference, plan: Bootstrap) -> dict[str, Any]:
    """The AUROC of student and ensemble within strata of every control.

    Returns:
        ``strongest``, the control with the highest AUROC on the validation part among those that
        use no words, and ``models``, which maps model and control to ``Remaining``, without the
        pairs whose cases do not define it.
    """
    controls = of_kind(study.risks, CONTROL_PREFIX)
    plain = [name for name in controls if name != f"{CONTROL_PREFIX}{WORDS}"]
    models = {
        model: _by_control(study, model, controls, plan)
        for model in (STUDENT, ENSEMBLE)
        if model in study.risks
    }
    return {"strongest": reference.best(plain), "models": models}


def _by_control(
    study: Study, model: str, controls: list[str], plan: Bootstrap
) -> dict[str, Remaining]:
    index = study.answered(model)
    labels, risks = study.labels[index], study.risks[model][index]
    found = {}
    for control in controls:
        scores = study.risks[control][index]
        try:
            found[control] = remaining(labels, risks, scores, study.clusters[index], plan)
        except UndefinedMetricError:
            continue
    return found
