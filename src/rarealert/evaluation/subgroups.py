"""Subgroups by source, Orphanet head, age band and sex; small ones pooled and named so.

Whether the student serves some patients worse than others: rates by group and their gaps.

Rates of each group are fairlearn's; intervals come from the report's own resamples of diseases.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rarealert.evaluation.discrimination import (
    FloatArray,
    IntArray,
    Ranking,
    RiskCounts,
    auroc_of,
    ratio,
    sensitivity_of,
    specificity_of,
)
from rarealert.evaluation.intervals import (
    Bootstrap,
    CountsMetric,
    Job,
    bootstrap_p_value,
    draw,
    holm,
)
from rarealert.evaluation.measures import Estimate, Study

MIN_CELL = 10  # cases of a label; a smaller group says more about chance than about the model
AGE_BANDS = ((0, 2), (2, 18), (18, 40), (40, 65), (65, 121))  # years, from and below

Cells = dict[str, IntArray]


@dataclass(frozen=True)
class Traits:
    """What subgroups are made of, each of shape ``(n,)``; ``None`` in a list where unknown."""

    source: NDArray[np.str_]
    head: list[str | None]
    age_years: list[float | None]
    sex: list[str | None]


def blocks_of(study: Study, traits: Traits) -> dict[str, Cells]:
    """The indices of every subgroup's cases: ``{block: {cell: indices}}``.

    Sources are never pooled: a claim about one must stand on its own. A head holds its rare
    cases and all non-rare ones, which have no head. Age bands and sexes are pooled where fewer
    than ``MIN_CELL`` cases of a label are left.
    """
    return {
        "by_source": _by(traits.source.tolist()),
        "by_category": head_cells(study, traits),
        "by_age_band": _pooled(study, _by(_age_bands(traits)), "ages"),
        "by_sex": _pooled(study, _by(traits.sex), "sexes"),
    }


def head_cells(study: Study, traits: Traits) -> Cells:
    """Orphanet heads, each with all non-rare cases; heads of few rare cases pooled as one."""
    rare, nonrare = study.labels == 1, np.flatnonzero(study.labels == 0)
    cells: Cells = {}
    small: list[IntArray] = []
    for name, index in _by([head or "no head known" for head in traits.head]).items():
        of_head = index[rare[index]]
        if of_head.size >= MIN_CELL:
            cells[name] = np.concatenate([of_head, nonrare])
        elif of_head.size:
            small.append(of_head)
    if small:
        name = f"other heads (each fewer than {MIN_CELL} rare cases)"
        cells[name] = np.concatenate([*small, nonrare])
    return {name: np.sort(index) for name, index in cells.items()}


def sizes(study: Study, index: IntArray) -> dict[str, int]:
    """Cases and diseases of a subgroup, rare ones beside all."""
    rare = index[study.labels[index] == 1]
    return {
        "n": int(index.size),
        "n_rare": int(rare.size),
        "n_nonrare": int(index.size - rare.size),
        "diseases": int(np.unique(study.diseases[index]).size),
        "rare_diseases": int(np.unique(study.diseases[rare]).size),
    }


def _by(values: Iterable[str | None]) -> Cells:
    named = np.array([value or "unknown" for value in values], dtype=np.str_)
    return {name: np.flatnonzero(named == name) for name in sorted(set(named.tolist()))}


def _pooled(study: Study, cells: Cells, what: str) -> Cells:
    kept: Cells = {}
    small: list[IntArray] = []
    for name, index in cells.items():
        n_rare = int(study.labels[index].sum())
        if min(n_rare, index.size - n_rare) >= MIN_CELL:
            kept[name] = index
        else:
            small.append(index)
    if small:
        name = f"other {what} (each fewer than {MIN_CELL} rare or non-rare cases)"
        kept[name] = np.sort(np.concatenate(small))
    return kept


def _age_bands(traits: Traits) -> list[str | None]:
    def band(age: float | None) -> str | None:
        if age is None:
            return None
        low, high = next(edges for edges in AGE_BANDS if age < edges[1])
        return f"{low:02d}-{high - 1:02d} years" if high < 121 else f"{low} years and older"

    return [band(age) for age in traits.age_years]


BLOCKS = {"by_age_band": "age band", "by_sex": "sex", "by_source": "source"}
"""Subgroups that divide the cases and so can be compared with each other."""


def alert_rate_of(counts: RiskCounts, threshold: float) -> FloatArray:
    """Share of all cases with a risk at or above ``threshold``."""
    rare_below, nonrare_below = counts.below(threshold)
    return 1 - ratio(rare_below + nonrare_below, counts.total)


def fairness(study: Study, model: str, blocks: Mapping[str, Cells], plan: Bootstrap) -> Any:
    """Rates of ``model``'s alerts by group, and the largest gap between groups: ``{block: ...}``.

    ``groups`` holds, per group of at least ``MIN_CELL`` cases of each label, its sizes,
    ``alert_rate``, ``sensitivity`` and ``false_positive_rate`` (fairlearn's ``MetricFrame``);
    ``gaps`` the differences that fairlearn names: ``demographic_parity_difference`` (alert rate),
    ``equal_opportunity_difference`` (sensitivity) and ``equalized_odds_difference`` (the larger
    of sensitivity's and false positive rate's; Hardt et al., NeurIPS 2016), each an estimate.
    A gap is the largest of several noisy differences: where groups are small it lies above 0
    even for a fair model, so read its interval's lower end. Blocks of one group are left out, as
    is everything where the validation part chose no threshold.
    """
    if model not in study.thresholds:
        return {}
    threshold = study.thresholds[model].at_95_specificity
    found = {}
    for block, cells in blocks.items():
        groups = {
            name: answered
            for name, index in cells.items()
            if min(_of_each(study, answered := study.answered(model, index))) >= MIN_CELL
        }
        if block in BLOCKS and len(groups) > 1:
            found[block] = {
                "groups": _rates(study, model, groups, threshold),
                "gaps": _gaps(study, model, groups, threshold, plan),
            }
    return found


def contrasts(study: Study, model: str, blocks: Mapping[str, Cells], plan: Bootstrap) -> Any:
    """AUROC of ``model`` in each group minus that in all other cases of the block.

    ``{block: {group: {value, ci_low, ci_high, n, p_value, p_holm}}}``; the p-values of all groups
    are adjusted together (Holm, Scand J Stat 6:65, 1979). Groups are left out whose own cases,
    or all others, do not define an AUROC with an interval.
    """
    jobs: dict[str, Job] = {}
    for block in [block for block in BLOCKS if block in blocks]:
        whole = np.sort(np.concatenate(list(blocks[block].values())))
        for name, index in blocks[block].items():
            for side, part in (("in", index), ("out", np.setdiff1d(whole, index))):
                answered = study.answered(model, part)
                if np.unique(study.labels[answered]).size == 2:
                    job = study.job(model, answered, {"auroc": auroc_of})
                    jobs[f"{block}\n{name}\n{side}"] = job
    plan = plan.for_tests(sum(key.endswith("\nin") for key in jobs))
    drawn = draw(jobs, study.diseases, plan)
    estimates: dict[str, Estimate] = {}
    p_values: dict[str, float] = {}
    for key, inside in jobs.items():
        other = f"{key.removesuffix('in')}out"
        if key.endswith("\nin") and other in jobs:
            value = _auroc(inside) - _auroc(jobs[other])
            draws = drawn[key]["auroc"] - drawn[other]["auroc"]
            interval = plan.interval(value, draws)
            if interval is not None:
                estimates[key] = Estimate(value, *interval, n=inside.index.size)
                p_values[key] = bootstrap_p_value(draws)
    adjusted = holm(p_values)
    found: dict[str, dict[str, Any]] = {}
    for key, estimate in estimates.items():
        block, name, _ = key.split("\n")
        row = {**asdict(estimate), "p_value": p_values[key], "p_holm": adjusted[key]}
        found.setdefault(block, {})[name] = row
    return found


def _rates(study: Study, model: str, groups: Cells, threshold: float) -> dict[str, Any]:
    from fairlearn.metrics import MetricFrame, false_positive_rate, selection_rate
    from fairlearn.metrics import true_positive_rate as sensitivity

    rows = []
    for name, part in groups.items():
        flagged = study.risks[model][part] >= threshold
        for label in (0, 1):
            for alert in (False, True):
                times = int(((study.labels[part] == label) & (flagged == alert)).sum())
                rows.append((name, label, int(alert), times))
    names, labels, alerts, weights = zip(*rows, strict=True)
    metrics = {
        "alert_rate": selection_rate,
        "sensitivity": sensitivity,
        "false_positive_rate": false_positive_rate,
    }
    frame = MetricFrame(  # of counted cases: row by row it takes minutes on 160,000
        metrics=metrics,
        y_true=labels,
        y_pred=alerts,
        sensitive_features=list(names),
        sample_params={name: {"sample_weight": np.array(weights)} for name in metrics},
    )
    rates = frame.by_group.to_dict("index")
    return {
        name: {**sizes(study, part), **{key: float(rate) for key, rate in rates[name].items()}}
        for name, part in groups.items()
    }


def _gaps(
    study: Study, model: str, groups: Cells, threshold: float, plan: Bootstrap
) -> dict[str, Estimate]:
    functions: dict[str, CountsMetric] = {
        "alert_rate": partial(alert_rate_of, threshold=threshold),
        "sensitivity": partial(sensitivity_of, threshold=threshold),
        "specificity": partial(specificity_of, threshold=threshold),
    }
    jobs = {name: study.job(model, index, functions) for name, index in groups.items()}
    drawn = draw(jobs, study.diseases, plan)
    counts = {name: Ranking(job.labels, job.risks).count() for name, job in jobs.items()}

    def gap(metric: str) -> tuple[float, FloatArray]:
        values = [float(functions[metric](counts[name])[0]) for name in groups]
        draws = np.stack([drawn[name][metric] for name in groups])
        return max(values) - min(values), draws.max(axis=0) - draws.min(axis=0)

    parity, opportunity, false_alarms = (gap(metric) for metric in functions)
    odds = (max(opportunity[0], false_alarms[0]), np.maximum(opportunity[1], false_alarms[1]))
    n = sum(index.size for index in groups.values())
    found = {
        "demographic_parity_difference": parity,
        "equal_opportunity_difference": opportunity,
        "equalized_odds_difference": odds,
    }
    return {
        name: Estimate(value, *interval, n=n)
        for name, (value, draws) in found.items()
        if (interval := plan.interval(value, draws)) is not None
    }


def _of_each(study: Study, index: IntArray) -> tuple[int, int]:
    rare = int(study.labels[index].sum())
    return rare, int(index.size) - rare


def _auroc(job: Job) -> float:
    return float(auroc_of(Ranking(job.labels, job.risks).count())[0])
