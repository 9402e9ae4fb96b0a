"""How much of a model's AUROC remains among cases that a shortcut can't tell apart.

A model that only follows a shortcut ranks cases no better than chance once the shortcut is held
fixed. Pairs of a rare and a non-rare case are therefore compared within strata of the shortcut's
score alone (van Elteren 1960; the covariate-adjusted AUROC of Janes and Pepe, Biometrika 96:371,
2009, with strata weighted by their pairs).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rarealert.metrics.counts import (
    FloatArray,
    IntArray,
    Ranking,
    RiskCounts,
    UndefinedMetricError,
    ratio,
)
from rarealert.metrics.discrimination import auroc_of
from rarealert.metrics.intervals import Bootstrap, CountsMetric, Job, draw
from rarealert.metrics.panel import Estimate, Study
from rarealert.metrics.predictions import CONTROL_PREFIX, ENSEMBLE, STUDENT
from rarealert.metrics.report import Reference

STRATA = 5  # fifths of the shortcut's score: Cochran 1968 found they remove 90 % of confounding
_WORDS = f"{CONTROL_PREFIX}tfidf"  # reads words, some of which are medicine
_DIGITS = 6

Json = dict[str, Any]


@dataclass(frozen=True)
class Remaining:
    """A model's AUROC over all pairs and within strata of a shortcut, on the same ``n`` cases.

    ``kept`` is the share of the AUROC above chance that remains, ``(within - 0.5) / (auroc -
    0.5)``; ``None`` where the AUROC itself is not above chance. ``pairs_share``, 0-1, is the
    share of rare-non-rare pairs that lie within a stratum.
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
    labels: ArrayLike,
    risks: ArrayLike,
    scores: ArrayLike,
    clusters: NDArray[np.str_],
    plan: Bootstrap,
) -> Remaining:
    """What remains of the AUROC of ``risks`` within strata of a shortcut's ``scores``.

    All have shape ``(n,)``; ``clusters`` names the disease of each case.

    Raises:
        BadInputError: labels or risks are malformed.
        UndefinedMetricError: no stratum holds both labels, or too few resamples do.
    """
    truth, risk = np.asarray(labels, dtype=np.float64), np.asarray(risks, dtype=np.float64)
    strata = strata_of(scores)
    cells = [np.flatnonzero(strata == at) for at in np.unique(strata)]
    jobs = {
        f"stratum {number}": Job("model", index, truth[index], risk[index], _PAIRS)
        for number, index in enumerate(cells)
        if np.unique(truth[index]).size == 2
    }
    values = [
        {name: metric(Ranking(job.labels, job.risks).count()) for name, metric in _PAIRS.items()}
        for job in jobs.values()
    ]
    everyone = Job("model", np.arange(truth.size), truth, risk, {"auroc": auroc_of})
    drawn = draw({**jobs, "everyone": everyone}, clusters, plan)
    draws = drawn.pop("everyone")["auroc"]
    value = float(auroc_of(Ranking(truth, risk).count())[0])
    within = float(_pooled(values)[0]) if values else np.nan
    inside = None if np.isnan(within) else plan.interval(within, _pooled(list(drawn.values())))
    outside = None if np.isnan(value) else plan.interval(value, draws)
    if inside is None or outside is None:
        raise UndefinedMetricError("no stratum of the shortcut holds enough cases of both labels")
    pairs = float(sum(of_cell["pairs"][0] for of_cell in values))
    return Remaining(
        strata=len(cells),
        pairs_share=pairs / float(truth.sum() * (1 - truth).sum()),
        auroc=Estimate(value, *outside, n=truth.size),
        within=Estimate(within, *inside, n=truth.size),
        kept=(within - 0.5) / (value - 0.5) if value > 0.5 else None,
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


def within_strata(study: Study, reference: Reference, plan: Bootstrap) -> Json:
    """What remains of student and ensemble within strata of every control, as plain data.

    ``strongest`` is the control with the highest AUROC on the validation part among those that
    see no medicine; ``models`` maps model and control to the fields of ``Remaining``, and lacks a
    pair whose cases do not define them.
    """
    controls = sorted(name for name in study.risks if name.startswith(CONTROL_PREFIX))
    plain = [name for name in controls if name != _WORDS]
    models: dict[str, Json] = {}
    for model in (STUDENT, ENSEMBLE):
        if model in study.risks:
            models[model] = _by_control(study, model, controls, plan)
    return {"strongest": reference.best(plain), "models": models}


def _by_control(study: Study, model: str, controls: list[str], plan: Bootstrap) -> Json:
    index = study.answered(model, np.arange(study.labels.size))
    found: Json = {}
    for control in controls:
        try:
            one = remaining(
                study.labels[index],
                study.risks[model][index],
                study.risks[control][index],
                study.clusters[index],
                plan,
            )
        except UndefinedMetricError:
            continue
        found[control] = _rounded(asdict(one))
    return found


def _rounded(values: Mapping[str, Any]) -> Json:
    return {
        key: _rounded(value)
        if isinstance(value, dict)
        else round(value, _DIGITS)
        if isinstance(value, float)
        else value
        for key, value in values.items()
    }
