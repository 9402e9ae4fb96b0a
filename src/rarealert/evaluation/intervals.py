"""Bootstrap intervals of all models at once, and tests of two models on the same cases.

Every model, subgroup and pair uses the same resamples, so differences are paired by construction.
Resamples draw whole diseases: cases of one disease are not independent.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from rarealert.errors import BadInputError
from rarealert.evaluation.metrics import (
    CountsMetric,
    FloatArray,
    IntArray,
    RiskCounts,
    UndefinedMetricError,
    checked,
)

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_CHUNK_WEIGHTS = 2_000_000  # weights in memory at once: 16 MB, whatever the number of cases
_CHUNK_ROWS = 256  # resamples at once; their counts fit in the processor's cache
_MAX_GROUPS = 2048  # distinct risks in a resample; more would move no bound by 0.001
_MIN_DEFINED_SHARE = 0.9  # of resamples; below it an interval would describe a selection of them
_PER_TEST = 100  # resamples; the smallest p-value after Holm's correction is then 0.02
_MOST_FOR_TESTS = 20_000  # resamples; half a minute on 160,000 cases, enough for 400 tests


@dataclass(frozen=True)
class Estimate:
    """A metric's value with its interval on ``n`` cases."""

    value: float
    ci_low: float
    ci_high: float
    n: int


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made: ``resamples`` draws, level ``confidence`` (0-1), a ``seed``."""

    resamples: int
    confidence: float
    seed: int

    def for_tests(self, tests: int) -> "Bootstrap":
        """The same plan with enough resamples to adjust ``tests`` p-values together.

        A p-value from r resamples is at least 2 / (r + 1), and Holm multiplies the smallest by
        the number of tests: with too few resamples none of them could ever be significant.
        """
        wanted = min(_PER_TEST * tests, _MOST_FOR_TESTS)
        return replace(self, resamples=max(self.resamples, wanted))

    def weights(self, groups: int) -> Iterator[FloatArray]:
        """How often each of ``groups`` is drawn, in chunks of shape ``(resamples, groups)``.

        Whole groups are drawn with replacement (Field and Welsh, J R Stat Soc B 69:369, 2007).
        """
        rng = np.random.default_rng(self.seed)
        rows = min(_CHUNK_ROWS, max(1, _CHUNK_WEIGHTS // groups))
        for start in range(0, self.resamples, rows):
            count = min(rows, self.resamples - start)
            drawn = rng.integers(0, groups, size=(count, groups))
            drawn += np.arange(count)[:, None] * groups
            times = np.bincount(drawn.reshape(-1), minlength=count * groups)
            yield times.reshape(count, groups).astype(np.float64)

    def interval(self, value: float, draws: FloatArray) -> tuple[float, float] | None:
        """Percentile interval of ``draws``, shape ``(resamples,)``, widened to include ``value``.

        Resampling adds noise that raises metrics of absolute error (ECE, ICI) above their value
        on the sample; an interval that excludes its own value would mislead. ``None`` where
        ``value`` or too many resamples are undefined (NaN).
        """
        defined = draws[~np.isnan(draws)]
        if np.isnan(value) or defined.size < _MIN_DEFINED_SHARE * draws.size:
            return None
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(defined, (tail, 1 - tail))
        return min(float(low), value), max(float(high), value)

    def estimate(self, value: float, draws: FloatArray, n: int) -> Estimate | None:
        """``value`` on ``n`` cases with its ``interval``; ``None`` where there is none."""
        interval = self.interval(value, draws)
        return None if interval is None else Estimate(value, *interval, n=n)


@dataclass(frozen=True)
class ResampleTask:
    """``metrics`` of ``model`` on some of the cases.

    ``index`` are positions among all cases; ``labels`` and ``risks`` are in its order. Tasks of
    one model give a case the same risk.
    """

    model: str
    index: IntArray
    labels: FloatArray
    risks: FloatArray
    metrics: Mapping[str, CountsMetric]

    @property
    def has_both_labels(self) -> bool:
        """Whether these cases are both rare and non-rare."""
        return np.unique(self.labels).size == 2

    @cached_property
    def of_label(self) -> tuple[IntArray, IntArray]:
        """Positions of non-rare and of rare cases in this job."""
        return np.flatnonzero(self.labels == 0), np.flatnonzero(self.labels == 1)

    @cached_property
    def observed(self) -> dict[str, float]:
        """Every metric on these cases, NaN where they do not define it."""
        counts = RiskCounts.of(self.labels, self.risks)
        return {name: float(metric(counts)[0]) for name, metric in self.metrics.items()}

    def estimates(
        self, draws: Mapping[str, FloatArray], plan: Bootstrap
    ) -> dict[str, Estimate | None]:
        """Every metric with its interval from ``draws``, a job's entry in what ``draw`` returns."""
        return {
            name: plan.estimate(value, draws[name], self.index.size)
            for name, value in self.observed.items()
        }


def draw(
    jobs: Mapping[str, ResampleTask], clusters: ArrayLike, plan: Bootstrap
) -> dict[str, dict[str, FloatArray]]:
    """Every metric of every job in every resample: ``{job: {metric: (resamples,)}}``.

    ``clusters``, shape ``(n,)``, names the group (disease) of every case that jobs index. Groups
    are drawn whole; distinct values resample by case. NaN marks a resample that does not define
    the metric. Cases are counted by risk and group once; a resample is then a sparse product.
    """
    if not jobs:
        return {}
    codes = np.unique(np.asarray(clusters), return_inverse=True)[1].reshape(-1)
    tallies = _Tallies(jobs, codes)
    ordered = sorted(jobs, key=lambda name: jobs[name].model)
    drawn = {
        name: {metric: np.empty(plan.resamples) for metric in job.metrics}
        for name, job in jobs.items()
    }
    start = 0
    for weights in plan.weights(int(codes.max()) + 1):
        rows = slice(start, start + weights.shape[0])
        start = rows.stop
        tallies.begin(weights)
        for name in ordered:
            counts = tallies.counts(name)
            for metric, function in jobs[name].metrics.items():
                drawn[name][metric][rows] = function(counts)
    return drawn


class _Tallies:
    """Cases of each job by risk and group; jobs of a model share the counts of equal parts."""

    def __init__(self, jobs: Mapping[str, ResampleTask], codes: IntArray) -> None:
        self._grids = {
            model: _Grid(np.concatenate([job.risks for job in jobs.values() if job.model == model]))
            for model in {job.model for job in jobs.values()}
        }
        self._models = {name: job.model for name, job in jobs.items()}
        self._keys: dict[str, tuple[bytes, bytes]] = {}
        self._tables: dict[bytes, csr_array] = {}
        groups = int(codes.max()) + 1
        for name, job in jobs.items():
            self._keys[name] = (
                self._add(job, job.of_label[0], codes, groups),
                self._add(job, job.of_label[1], codes, groups),
            )
        self._uses = Counter(key for keys in self._keys.values() for key in keys)
        self._weights: FloatArray = np.empty((0, 0))
        self._held: dict[bytes, FloatArray] = {}
        self._left: Counter[bytes] = Counter()

    def _add(self, job: ResampleTask, at: IntArray, codes: IntArray, groups: int) -> bytes:
        from scipy.sparse import csr_array

        key = job.model.encode() + b"\n" + np.ascontiguousarray(job.index[at]).tobytes()
        if key not in self._tables:
            grid = self._grids[job.model]
            where = (grid.place(job.risks[at]), codes[job.index[at]])
            shape = (grid.risk.size, groups)
            self._tables[key] = csr_array((np.ones(at.size), where), shape=shape)
        return key

    def begin(self, weights: FloatArray) -> None:
        """Use these group weights, shape ``(rows, groups)``, for the counts that follow."""
        self._weights = np.ascontiguousarray(weights.T)
        self._held, self._left = {}, self._uses.copy()

    def counts(self, name: str) -> RiskCounts:
        """The counts of one job in all resamples of this chunk."""
        nonrare, rare = (self._count(key) for key in self._keys[name])
        return RiskCounts(self._grids[self._models[name]].risk, rare, nonrare)

    def _count(self, key: bytes) -> FloatArray:
        found = self._held.pop(key, None)
        if found is None:
            found = np.ascontiguousarray((self._tables[key] @ self._weights).T)
        self._left[key] -= 1
        if self._left[key]:
            self._held[key] = found
        return found


class _Grid:
    """The distinct risks of a model, ascending; neighbours merged beyond ``_MAX_GROUPS``."""

    def __init__(self, risks: FloatArray) -> None:
        distinct, cases = np.unique(risks, return_counts=True)
        starts = np.arange(distinct.size)
        if distinct.size > _MAX_GROUPS:
            middle = (np.cumsum(cases) - cases / 2) / cases.sum()
            starts = np.unique(np.searchsorted(middle, np.arange(_MAX_GROUPS) / _MAX_GROUPS))
        self._lowest = distinct[starts]
        summed = np.add.reduceat(distinct * cases, starts)
        self.risk: FloatArray = summed / np.add.reduceat(cases, starts)
        if starts.size == distinct.size:
            self.risk = distinct  # to the last bit, so that thresholds fall where they should

    def place(self, risks: FloatArray) -> IntArray:
        """The group of each risk."""
        return np.searchsorted(self._lowest, risks, side="right") - 1


@dataclass(frozen=True)
class DeLong:
    """Difference of two paired AUROCs with its standard error and two-sided p-value."""

    difference: float
    standard_error: float
    p_value: float


def delong(labels: ArrayLike, first: ArrayLike, second: ArrayLike) -> DeLong:
    """DeLong's test of AUROC(first) - AUROC(second) on the same cases, taken as independent.

    DeLong, DeLong and Clarke-Pearson, Biometrics 44:837 (1988), by the mid-ranks of Sun and Xu,
    IEEE Signal Process Lett 21:1389 (2014).

    Raises:
        BadInputError: malformed labels or risks.
        UndefinedMetricError: fewer than two rare or two non-rare cases.
    """
    truth, one = checked(labels, first)
    other = checked(labels, second)[1]
    rare = truth == 1
    m, n = int(rare.sum()), int((~rare).sum())
    if min(m, n) < 2:
        raise UndefinedMetricError("it needs at least two rare and two non-rare cases")
    parts = [_components(risk[rare], risk[~rare]) for risk in (one, other)]
    areas = [float(by_rare.mean()) for by_rare, _ in parts]
    across_rare = np.cov(np.stack([by_rare for by_rare, _ in parts]))
    across_nonrare = np.cov(np.stack([by_nonrare for _, by_nonrare in parts]))
    covariance = across_rare / m + across_nonrare / n
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    error = float(np.sqrt(max(variance, 0.0)))
    difference = areas[0] - areas[1]
    return DeLong(difference, error, _two_sided(difference, error))


def _components(rare: FloatArray, nonrare: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Structural components of the AUROC: per rare case ``(m,)`` and per non-rare case ``(n,)``."""
    from scipy.stats import rankdata

    m, n = rare.size, nonrare.size
    ranks = rankdata(np.concatenate([rare, nonrare]))
    by_rare = (ranks[:m] - rankdata(rare)) / n
    by_nonrare = 1 - (ranks[m:] - rankdata(nonrare)) / m
    return by_rare, by_nonrare


def _two_sided(difference: float, error: float) -> float:
    from scipy.special import erfc

    if error == 0:
        return 1.0 if abs(difference) < 1e-12 else 0.0
    return float(erfc(abs(difference) / error / np.sqrt(2)))


def bootstrap_p_value(differences: FloatArray) -> float:
    """Two-sided p-value that the difference is 0, from its resamples, shape ``(r,)``.

    Twice the smaller tail with one resample added to each, so never 0 (Davison and Hinkley,
    Bootstrap Methods and their Application, 1997, 4.2).

    Raises:
        UndefinedMetricError: no resample defines the difference.
    """
    defined = differences[~np.isnan(differences)]
    if defined.size == 0:
        raise UndefinedMetricError("no resample defines the difference")
    tail = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (defined.size + 1))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p-values, by name (Scand J Stat 6:65, 1979).

    Raises:
        BadInputError: a p-value is outside 0-1.
    """
    adjusted: dict[str, float] = {}
    running = 0.0
    for place, name in enumerate(sorted(p_values, key=lambda name: (p_values[name], name))):
        if not 0 <= p_values[name] <= 1:
            raise BadInputError(
                f"The p-value of {name} is {p_values[name]}; expected a value in 0-1."
            )
        running = max(running, (len(p_values) - place) * p_values[name])
        adjusted[name] = min(1.0, running)
    return adjusted
