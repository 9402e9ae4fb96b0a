"""Subgroups by source, Orphanet head, age band and sex, and whether alerts differ between them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rarealert.evaluation.intervals import (
    Bootstrap,
    Estimate,
    ResampleTask,
    bootstrap_p_value,
    draw,
    holm,
)
from rarealert.evaluation.metrics import (
    CountsMetric,
    FloatArray,
    IntArray,
    RiskCounts,
    auroc_of,
    ratio,
    sensitivity_of,
    specificity_of,
)
from rarealert.evaluation.study import Study
from rarealert.visits.case import LabelledCase
from rarealert.visits.demographics import AGE_EDGES, age_band

MIN_CELL = 10  # cases of a label; the figures of a smaller group are mostly chance

Cells = dict[str, IntArray]


@dataclass(frozen=True)
class Traits:
    """What subgroups are formed by, each of shape ``(n,)``; ``None`` in a list where unknown."""

    source: NDArray[np.str_]
    head: list[str | None]
    age_years: list[float | None]
    sex: list[str | None]

    @classmethod
    def of(cls, cases: Sequence[LabelledCase]) -> "Traits":
        """The traits of ``cases``, in their order."""
        return cls(
            source=np.array([item.case.source for item in cases], dtype=np.str_),
            head=[item.label.orphanet_head for item in cases],
            age_years=[item.case.age_years for item in cases],
            sex=[item.case.sex for item in cases],
        )


def blocks_of(study: Study, traits: Traits) -> dict[str, Cells]:
    """The indices of every subgroup's cases: ``{block: {cell: indices}}``.

    Sources are never pooled: each has its own figures. A head holds its rare cases and all
    non-rare ones, which have no head. Age bands and sexes with fewer than ``MIN_CELL`` cases of a
    label are pooled.
    """
    return {
        "by_source": _by(traits.source.tolist()),
        "by_category": head_cells(study, traits),
        "by_age_band": _pooled(study, _by(map(_age_band, traits.age_years)), "ages"),
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


def _age_band(age: float | None) -> str | None:
    if age is None:
        return None
    low, high = age_band(age)
    return f"{low:02d}-{high - 1:02d} years" if low < AGE_EDGES[-1] else f"{low} years and older"


BLOCKS = {"by_age_band": "age band", "by_sex": "sex", "by_source": "source"}
"""Subgroups that partition the cases, so that they can be compared with each other."""


def alert_rate_of(counts: RiskCounts, threshold: float) -> FloatArray:
    """Share of all cases with a risk at or above ``threshold``."""
    rare_below, nonrare_below = counts.below(threshold)
    return 1 - ratio(rare_below + nonrare_below, counts.total)


def fairness(study: Study, model: str, blocks: Mapping[str, Cells], plan: Bootstrap) -> Any:
    """Rates of ``model``'s alerts by group, and the largest gap between groups: ``{block: ...}``.

    ``groups`` holds, for each group of at least ``MIN_CELL`` cases of each label, its sizes,
    ``alert_rate``, ``sensitivity`` and ``false_positive_rate``. ``gaps`` holds the largest
    differences between groups, under fairlearn's names, each an estimate:
    ``demographic_parity_difference`` (alert rate), ``equal_opportunity_difference`` (sensitivity)
    and ``equalized_odds_difference`` (the larger of sensitivity's and false positive rate's; Hardt
    et al., NeurIPS 2016). A gap is the largest of several noisy differences and above 0 even for a
    fair model with small groups, so read its interval's lower end. Blocks of one group are left
    out, as is everything where the validation part chose no threshold.
    """
    if model not in study.thresholds:
        return {}
    threshold = study.thresholds[model].at_95_specificity
    metrics: dict[str, CountsMetric] = {
        "alert_rate": partial(alert_rate_of, threshold=threshold),
        "sensitivity": partial(sensitivity_of, threshold=threshold),
        "specificity": partial(specificity_of, threshold=threshold),
    }
    found = {}
    for block, cells in blocks.items():
        jobs = {
            name: job
            for name, index in cells.items()
            for job in [study.job(model, study.answered(model, index), metrics)]
            if min(at.size for at in job.of_label) >= MIN_CELL
        }
        if block in BLOCKS and len(jobs) > 1:
            groups = {name: _rates(study, job) for name, job in jobs.items()}
            found[block] = {"groups": groups, "gaps": _gaps(study, jobs, plan)}
    return found


def _rates(study: Study, job: ResampleTask) -> dict[str, float]:
    return {
        **sizes(study, job.index),
        "alert_rate": job.observed["alert_rate"],
        "sensitivity": job.observed["sensitivity"],
        "false_positive_rate": 1 - job.observed["specificity"],
    }


def _gaps(
    study: Study, jobs: Mapping[str, ResampleTask], plan: Bootstrap
) -> dict[str, Estimate | None]:
    drawn = draw(jobs, study.diseases, plan)

    def gap(metric: str) -> tuple[float, FloatArray]:
        values = [job.observed[metric] for job in jobs.values()]
        draws = np.stack([drawn[name][metric] for name in jobs])
        return max(values) - min(values), draws.max(axis=0) - draws.min(axis=0)

    opportunity, false_alarms = gap("sensitivity"), gap("specificity")
    odds = (max(opportunity[0], false_alarms[0]), np.maximum(opportunity[1], false_alarms[1]))
    gaps = {
        "demographic_parity_difference": gap("alert_rate"),
        "equal_opportunity_difference": opportunity,
        "equalized_odds_difference": odds,
    }
    n = sum(job.index.size for job in jobs.values())
    found = {name: plan.estimate(value, draws, n) for name, (value, draws) in gaps.items()}
    return {name: estimate for name, estimate in found.items() if estimate is not None}


def contrasts(study: Study, model: str, blocks: Mapping[str, Cells], plan: Bootstrap) -> Any:
    """AUROC of ``model`` in each group minus that in all other cases of the block.

    The p-values of all groups are adjusted together (Holm, Scand J Stat 6:65, 1979). Groups are
    left out whose own cases, or all others, do not define an AUROC with an interval.

    Returns:
        ``{block: {group: {value, ci_low, ci_high, n, p_value, p_holm}}}``
    """
    pairs: dict[tuple[str, str], tuple[ResampleTask, ResampleTask]] = {}
    for block in [block for block in BLOCKS if block in blocks]:
        whole = np.sort(np.concatenate(list(blocks[block].values())))
        for name, index in blocks[block].items():
            inside, outside = (
                study.job(model, study.answered(model, part), {"auroc": auroc_of})
                for part in (index, np.setdiff1d(whole, index))
            )
            if inside.has_both_labels and outside.has_both_labels:
                pairs[block, name] = inside, outside
    plan = plan.for_tests(len(pairs))
    keys = {f"{block} {name} {side}": pair[side] for (block, name), pair in pairs.items()
            for side in (0, 1)}  # fmt: skip
    drawn = draw(keys, study.diseases, plan)
    estimates: dict[tuple[str, str], Estimate] = {}
    p_values: dict[str, float] = {}
    for (block, name), (inside, outside) in pairs.items():
        key = f"{block} {name}"
        draws = drawn[f"{key} 0"]["auroc"] - drawn[f"{key} 1"]["auroc"]
        difference = inside.observed["auroc"] - outside.observed["auroc"]
        estimate = plan.estimate(difference, draws, inside.index.size)
        if estimate is not None:
            estimates[block, name] = estimate
            p_values[key] = bootstrap_p_value(draws)
    adjusted = holm(p_values)
    found: dict[str, dict[str, Any]] = {}
    for (block, name), estimate in estimates.items():
        key = f"{block} {name}"
        row = {**asdict(estimate), "p_value": p_values[key], "p_holm": adjusted[key]}
        found.setdefault(block, {})[name] = row
    return found
