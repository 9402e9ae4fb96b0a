"""``metrics.json``: every model, pooled and per subgroup, in the contract that machines read.

A metric that is present has a value, both bounds and ``n``; one that the cases do not define is
left out and its reason stands under ``absent``. Nothing is ever NaN.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from typing import Any

import numpy as np

from rarealert.evaluation.abstention import abstention, conformal
from rarealert.evaluation.discrimination import FloatArray, auroc
from rarealert.evaluation.intervals import Bootstrap
from rarealert.evaluation.measures import (
    METRICS,
    THRESHOLDED,
    Comparison,
    Result,
    Study,
    Thresholds,
    compare,
    evaluate,
)
from rarealert.evaluation.predictions import CONTROL_PREFIX, ENSEMBLE, STUDENT, TEACHER_PREFIX
from rarealert.evaluation.prevalence import prevalence_table
from rarealert.evaluation.robustness import Retold, robustness
from rarealert.evaluation.subgroups import Cells, Traits, blocks_of, contrasts, fairness, sizes

COMPARED = "auroc"
SUBGROUP_METRICS = ("auroc", "sensitivity_at_95_specificity", "achieved_specificity")
CLAIMED = (STUDENT, ENSEMBLE)
"""Models that stand for the product: predictive values and prediction sets are theirs."""
_TEST_RESAMPLES = 10  # times those of the intervals, for tests of pairs
_CHEAP_CASES = 5_000  # in the test part; tests of more would take minutes, and need it less
_DIGITS = 6  # decimals in the report; beyond them lies the order of a sum

Json = dict[str, Any]


@dataclass(frozen=True)
class Reference:
    """The validation part: labels ``(n,)`` and risks by model ``(n,)``, NaN where unanswered.

    ``measured_at`` is the share of rare cases that a model is calibrated at, by model, where it
    was not calibrated on this part.
    """

    labels: FloatArray
    risks: Mapping[str, FloatArray]
    measured_at: Mapping[str, float] = field(default_factory=dict)

    def prevalence(self, model: str) -> float:
        """The share of rare cases that ``model``'s risks mean."""
        return self.measured_at.get(model, float(self.labels.mean()))

    def answered(self, model: str) -> tuple[FloatArray, FloatArray]:
        """Labels and risks of the cases that ``model`` answered."""
        risks = self.risks.get(model, np.full(self.labels.size, np.nan))
        present = ~np.isnan(risks)
        return self.labels[present], risks[present]

    def thresholds(self, models: Iterable[str]) -> dict[str, Thresholds]:
        """Thresholds of every model whose answers here hold both classes."""
        chosen: dict[str, Thresholds] = {}
        for model in models:
            labels, risks = self.answered(model)
            if np.unique(labels).size == 2:
                chosen[model] = Thresholds.chosen_on(labels, risks)
        return chosen

    def best(self, models: Iterable[str]) -> str | None:
        """The model with the highest AUROC here, where looking costs the test part nothing."""
        reached: dict[str, float] = {}
        for model in models:
            labels, risks = self.answered(model)
            if np.unique(labels).size == 2:
                reached[model] = auroc(labels, risks)
        return max(sorted(reached), key=lambda model: reached[model], default=None)


@dataclass(frozen=True)
class Cohort:
    """What ``metrics.cohort`` makes of all parts: the participant flow and table one."""

    flow: Mapping[str, Any]
    table_one: Mapping[str, Any]


def of_kind(models: Iterable[str], prefix: str) -> list[str]:
    """The models whose name starts with ``prefix``, sorted."""
    return sorted(model for model in models if model.startswith(prefix))


def build_report(
    study: Study,
    traits: Traits,
    reference: Reference,
    plan: Bootstrap,
    digest: str,
    *,
    cohort: Cohort | None = None,
    retold: Mapping[str, Retold] | None = None,
) -> Json:
    """The whole of ``metrics.json`` as plain data, rounded to six decimals.

    ``study`` is the test part; ``digest`` names it (sha256 of its case ids); ``retold`` are the
    student's risks of perturbed cases.
    """
    whole = {"all": np.arange(study.labels.size)}
    every = (*METRICS, *THRESHOLDED)
    cells = blocks_of(study, traits)
    pooled = evaluate(study, whole, every, plan)["all"]
    blocks = {
        block: evaluate(study, of_block, every if block == "by_source" else SUBGROUP_METRICS, plan)
        for block, of_block in cells.items()
    }
    models = {name: _plain(result.estimates) for name, result in pooled.items()}
    return {
        "dataset": _dataset(study, cells, plan, digest),
        "models": models,
        "controls": {name: models[name] for name in of_kind(models, CONTROL_PREFIX)},
        **{block: _estimates(of_block) for block, of_block in blocks.items()},
        "by_case": _by_case(study, plan),
        "comparisons": _comparisons(study, plan),
        "thresholds": {name: _plain(at) for name, at in study.thresholds.items()},
        "chosen_on_validation": {
            "best_teacher": reference.best(of_kind(models, TEACHER_PREFIX)),
            "best_control": reference.best(of_kind(models, CONTROL_PREFIX)),
        },
        **_practice(study, reference, cells, plan),
        "robustness": _plain(robustness(study, STUDENT, retold or {}, plan)),
        "cohort": {} if cohort is None else {"flow": cohort.flow, "table_one": cohort.table_one},
        "absent": {"models": _absent(pooled)}
        | {block: _absences(of_block) for block, of_block in blocks.items()},
    }


def _estimates(of_block: Mapping[str, Mapping[str, Result]]) -> Json:
    return {
        cell: {name: _plain(result.estimates) for name, result in of_cell.items()}
        for cell, of_cell in of_block.items()
    }


def _absences(of_block: Mapping[str, Mapping[str, Result]]) -> Json:
    found = {cell: _absent(of_cell) for cell, of_cell in of_block.items()}
    return {cell: absent for cell, absent in found.items() if absent}


def _practice(
    study: Study, reference: Reference, cells: Mapping[str, Cells], plan: Bootstrap
) -> Json:
    """What the claimed models would mean in use: predictive values, gaps, when to say nothing."""
    claimed = [model for model in CLAIMED if model in study.risks]
    answered = {model: reference.answered(model) for model in study.risks}
    return {
        "prevalence": _plain(
            {
                model: rows
                for model in claimed
                if 0 < (measured_at := reference.prevalence(model)) < 1
                and (rows := prevalence_table(study, model, measured_at, plan))
            }
        ),
        "uncertainty": _plain(
            {
                "abstention": abstention(study, answered, plan),
                "conformal": {
                    model: conformal(study, model, *answered[model], plan) for model in claimed
                },
            }
        ),
        "fairness": _plain(fairness(study, STUDENT, cells, plan)),
        "subgroup_differences": _plain(contrasts(study, STUDENT, cells, plan)),
    }


def _dataset(study: Study, cells: Mapping[str, Cells], plan: Bootstrap, digest: str) -> Json:
    sources = {source: sizes(study, index) for source, index in cells["by_source"].items()}
    return {
        "name": "+".join(sources),
        "simulated": set(sources) == {"simulated"},
        "part": "test",
        "digest": digest,
        "sources": sources,
        "categories": {
            cell: sizes(study, index[study.labels[index] == 1])
            for cell, index in cells["by_category"].items()
        },
        "age_bands": {cell: sizes(study, at) for cell, at in cells["by_age_band"].items()},
        "sexes": {cell: sizes(study, index) for cell, index in cells["by_sex"].items()},
        "interval": {
            "method": "percentile bootstrap clustered by disease",
            "resamples": plan.resamples,
            "confidence": plan.confidence,
        },
        **sizes(study, np.arange(study.labels.size)),
    }


def _by_case(study: Study, plan: Bootstrap) -> Json:
    """AUROC of the claimed models with intervals that take cases as independent.

    They stand beside the clustered ones for readers who expect them; they are too narrow where a
    disease has several cases.
    """
    alone = Study(
        study.labels,
        np.arange(study.labels.size).astype(np.str_),
        {model: study.risks[model] for model in CLAIMED if model in study.risks},
        {},
    )
    found = evaluate(alone, {"all": np.arange(study.labels.size)}, (COMPARED,), plan)["all"]
    return {name: _plain(result.estimates) for name, result in found.items()}


def _comparisons(study: Study, plan: Bootstrap) -> Json:
    """The student against every other model, with p-values adjusted for all of them.

    A p-value from r resamples is 2 / (r + 1) at least, and Holm multiplies the smallest by the
    number of pairs: 1,000 resamples can't get 14 pairs below 0.028. So up to ``_CHEAP_CASES``
    cases ``_TEST_RESAMPLES`` times as many are drawn, which takes it to 0.003 in seconds.
    """
    if study.labels.size <= _CHEAP_CASES:
        plan = replace(plan, resamples=_TEST_RESAMPLES * plan.resamples)
    others = [name for name in study.risks if name != STUDENT]
    pairs = {f"{STUDENT} - {other}": (STUDENT, other) for other in others}
    best_first = sorted(pairs, key=lambda name: (pairs[name][1] != ENSEMBLE, name))
    found = compare(study, {name: pairs[name] for name in best_first}, COMPARED, plan)
    return {name: _comparison(comparison) for name, comparison in found.items()}


def _comparison(found: Comparison) -> Json:
    return {
        "metric": COMPARED,
        **_plain(found.difference),
        **_plain({"p_value": found.p_value, "p_holm": found.p_holm, "p_delong": found.p_delong}),
    }


def _absent(results: Mapping[str, Result]) -> dict[str, dict[str, str]]:
    return {name: result.absent for name, result in results.items() if result.absent}


def _plain(value: Any) -> Any:
    """Dataclasses as objects, tuples as lists, floats rounded."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return round(value, _DIGITS) if isinstance(value, float) else value


__all__ = ["Cohort", "Reference", "Retold", "Study", "Traits", "build_report", "of_kind"]
