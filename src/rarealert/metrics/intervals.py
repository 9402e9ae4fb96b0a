"""Percentile bootstrap intervals, by case or clustered by disease, for all models at once.

Every model, subgroup and pair sees the same resamples, so differences are paired by construction.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rarealert.errors import BadInputError
from rarealert.metrics.counts import FloatArray, IntArray, Ranking, RiskCounts

CountsMetric = Callable[[RiskCounts], FloatArray]

_CHUNK_WEIGHTS = 400_000  # case weights held at once: 32 MB, whatever the number of cases
_MIN_DEFINED_SHARE = 0.9  # of resamples; below it an interval would describe the lucky ones


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made: ``resamples`` draws, level ``confidence`` (0-1), a ``seed``."""

    resamples: int
    confidence: float
    seed: int

    def weights(self, clusters: ArrayLike) -> Iterator[NDArray[np.int32]]:
        """Case weights of all resamples in chunks of shape ``(rows, n)``.

        ``clusters`` of shape ``(n,)`` names the group of each case; whole groups are drawn with
        replacement (Field and Welsh, J R Stat Soc B 69:369, 2007), so cases of one disease
        never count as independent. Give distinct values to resample by case.
        """
        codes = np.unique(np.asarray(clusters), return_inverse=True)[1].reshape(-1)
        groups = int(codes.max()) + 1
        rng = np.random.default_rng(self.seed)
        rows = max(1, _CHUNK_WEIGHTS // codes.size)
        for start in range(0, self.resamples, rows):
            count = min(rows, self.resamples - start)
            drawn = rng.integers(0, groups, size=(count, groups))
            drawn += np.arange(count)[:, None] * groups
            times = np.bincount(drawn.reshape(-1), minlength=count * groups)
            yield times.reshape(count, groups).astype(np.int32)[:, codes]

    def interval(self, value: float, draws: FloatArray) -> tuple[float, float] | None:
        """Percentile interval of ``draws``, shape ``(resamples,)``, stretched to hold ``value``.

        Resampling adds noise that lifts metrics of absolute error (ECE, ICI) above their value
        on the sample; an interval beside its own value would mislead. ``None`` where too many
        resamples do not define the metric.
        """
        defined = draws[~np.isnan(draws)]
        if defined.size < _MIN_DEFINED_SHARE * draws.size:
            return None
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(defined, (tail, 1 - tail))
        return min(float(low), value), max(float(high), value)


@dataclass(frozen=True)
class Job:
    """One model on some of the cases: ``index`` into them, with labels and risks in its order."""

    index: IntArray
    labels: FloatArray
    risks: FloatArray
    metrics: Mapping[str, CountsMetric]


def draw(
    jobs: Mapping[str, Job], clusters: ArrayLike, plan: Bootstrap
) -> dict[str, dict[str, FloatArray]]:
    """Every metric of every job in every resample: ``{job: {metric: (resamples,)}}``.

    ``clusters`` has shape ``(n,)`` for all cases that the jobs index. NaN marks a resample that
    does not define the metric.
    """
    if not jobs:
        return {}
    rankings = {name: Ranking(job.labels, job.risks) for name, job in jobs.items()}
    drawn = {
        name: {metric: np.empty(plan.resamples) for metric in job.metrics}
        for name, job in jobs.items()
    }
    whole = np.asarray(clusters).size
    start = 0
    for weights in plan.weights(clusters):
        rows = slice(start, start + weights.shape[0])
        start = rows.stop
        for name, job in jobs.items():
            part = weights if job.index.size == whole else weights[:, job.index]
            counts = rankings[name].count(part)
            for metric, function in job.metrics.items():
                drawn[name][metric][rows] = function(counts)
    return drawn


def bootstrap_interval(
    labels: ArrayLike,
    risks: ArrayLike,
    metric: CountsMetric,
    plan: Bootstrap,
    clusters: ArrayLike | None = None,
) -> tuple[float, float] | None:
    """Interval of one metric (an ``*_of`` function) on one sample, by case without ``clusters``.

    Raises:
        BadInputError: the sample itself is malformed, or clusters and labels differ in length.
    """
    ranking = Ranking(labels, risks)
    truth = np.asarray(labels, dtype=np.float64)
    groups = np.arange(truth.size) if clusters is None else np.asarray(clusters)
    if groups.shape != truth.shape:
        raise BadInputError(f"{groups.size} clusters for {truth.size} labels; give one per label.")
    risk = np.asarray(risks, dtype=np.float64)
    job = Job(np.arange(truth.size), truth, risk, {"metric": metric})
    value = float(metric(ranking.count())[0])
    return plan.interval(value, draw({"job": job}, groups, plan)["job"]["metric"])
