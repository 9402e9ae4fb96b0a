"""``metrics.json``: every model, pooled and per subgroup, in the contract that machines read.

A metric that is present has a value, both bounds and ``n``. One that the cases do not define is
left out, and ``absent`` holds the reason. Nothing is ever NaN.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rarealert.evaluation.abstention import abstention, conformal
from rarealert.evaluation.intervals import Bootstrap
from rarealert.evaluation.metrics import METRICS
from rarealert.evaluation.predictions import (
    CONTROL_PREFIX,
    ENSEMBLE,
    STUDENT,
    TEACHER_PREFIX,
    kind_of,
    of_kind,
)
from rarealert.evaluation.predictive_values import prevalence_table
from rarealert.evaluation.robustness import Perturbed, robustness
from rarealert.evaluation.strata import within_strata
from rarealert.evaluation.study import (
    THRESHOLDED,
    Reference,
    Result,
    Study,
    compare,
    evaluate,
)
from rarealert.evaluation.subgroups import Cells, Traits, blocks_of, contrasts, fairness, sizes

if TYPE_CHECKING:
    import pandas as pd

COMPARED = "auroc"
SUBGROUP_METRICS = ("auroc", "sensitivity_at_95_specificity", "achieved_specificity")
CLAIMED = (STUDENT, ENSEMBLE)
"""Models that the product consists of: predictive values and prediction sets are theirs."""

COLUMNS: Mapping[str, str] = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "sensitivity_at_95_specificity": "Sensitivity",
    "achieved_specificity": "Specificity",
    "brier": "Brier",
    "ece": "ECE",
    "ici": "ICI",
    "calibration_slope": "Slope",
    "observed_to_expected": "O:E",
}
"""Metrics of the table of models, with their headings."""

_KINDS = ("student", "ensemble", "baseline", "teacher", "control")
_TEST_RESAMPLES = 10  # times those of the intervals, for tests of pairs
_CHEAP_CASES = 5_000  # in the test part; tests of more would take minutes, and need it less
_DIGITS = 6  # decimals in the report; later ones depend on the order of a sum

Json = dict[str, Any]


def build_report(
    study: Study,
    traits: Traits,
    reference: Reference,
    plan: Bootstrap,
    digest: str,
    *,
    cohort: Mapping[str, Any] | None = None,
    perturbed: Mapping[str, Perturbed] | None = None,
) -> Json:
    """The whole of ``metrics.json`` as plain data, rounded to six decimals.

    ``study`` is the test part; ``digest`` identifies it (sha256 of its case ids); ``perturbed``
    are the student's risks of perturbed cases.
    """
    every = (*METRICS, *THRESHOLDED)
    cells = blocks_of(study, traits)
    pooled = evaluate(study, {"all": study.everyone}, every, plan)["all"]
    blocks = {
        block: evaluate(study, of_block, every if block == "by_source" else SUBGROUP_METRICS, plan)
        for block, of_block in cells.items()
    }
    report = {
        "dataset": _dataset(study, cells, plan, digest),
        **_blocks(pooled, blocks),
        "by_case": _by_case(study, plan),
        "comparisons": _comparisons(study, plan),
        "thresholds": study.thresholds,
        "chosen_on_validation": {
            "best_teacher": reference.best(of_kind(study.risks, TEACHER_PREFIX)),
            "best_control": reference.best(of_kind(study.risks, CONTROL_PREFIX)),
        },
        **_practice(study, reference, plan),
        "fairness": fairness(study, STUDENT, cells, plan),
        "subgroup_differences": contrasts(study, STUDENT, cells, plan),
        "robustness": robustness(study, STUDENT, perturbed or {}, plan),
        "within_strata": within_strata(study, reference, plan),
        "cohort": cohort or {},
    }
    found: Json = plain(report)
    return found


def plain(value: Any) -> Any:
    """Dataclasses as objects, tuples as lists, floats rounded to six decimals."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return round(value, _DIGITS) if isinstance(value, float) else value


def _dataset(study: Study, cells: Mapping[str, Cells], plan: Bootstrap, digest: str) -> Json:
    def sizes_of(block: str) -> dict[str, dict[str, int]]:
        return {cell: sizes(study, index) for cell, index in cells[block].items()}

    sources = sizes_of("by_source")
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
        "age_bands": sizes_of("by_age_band"),
        "sexes": sizes_of("by_sex"),
        "interval": {
            "method": "percentile bootstrap clustered by disease",
            "resamples": plan.resamples,
            "confidence": plan.confidence,
        },
        **sizes(study, study.everyone),
    }


def _blocks(
    pooled: Mapping[str, Result], blocks: Mapping[str, Mapping[str, Mapping[str, Result]]]
) -> Json:
    """Estimates of all models and subgroups, and under ``absent`` the reasons for those missing."""
    models = {name: result.estimates for name, result in pooled.items()}
    absent: Json = {"models": _absent(pooled)}
    for block, cells in blocks.items():
        reasons = {cell: _absent(results) for cell, results in cells.items()}
        absent[block] = {cell: found for cell, found in reasons.items() if found}
    return {
        "models": models,
        "controls": {name: models[name] for name in of_kind(models, CONTROL_PREFIX)},
        **{
            block: {
                cell: {name: result.estimates for name, result in results.items()}
                for cell, results in cells.items()
            }
            for block, cells in blocks.items()
        },
        "absent": absent,
    }


def _absent(results: Mapping[str, Result]) -> dict[str, dict[str, str]]:
    return {name: result.absent for name, result in results.items() if result.absent}


def why_absent(report: Mapping[str, Any], model: str, metric: str) -> str:
    """Why ``metrics.json`` has no ``metric`` of ``model`` on the test part."""
    reasons: Mapping[str, str] = report.get("absent", {}).get("models", {}).get(model, {})
    return reasons.get(metric, "it was not scored")


def _by_case(study: Study, plan: Bootstrap) -> Json:
    """AUROC of the claimed models with intervals that take cases as independent.

    Given for readers who expect them; too narrow where a disease has several cases.
    """
    alone = replace(
        study,
        clusters=study.everyone.astype(np.str_),
        risks={model: study.risks[model] for model in CLAIMED if model in study.risks},
        thresholds={},
    )
    found = evaluate(alone, {"all": study.everyone}, (COMPARED,), plan)["all"]
    return {name: result.estimates for name, result in found.items()}


def _comparisons(study: Study, plan: Bootstrap) -> Json:
    """The student against every other model, with p-values adjusted for all of them.

    A p-value from r resamples is 2 / (r + 1) at least, and Holm multiplies the smallest by the
    number of pairs: 1,000 resamples can't get 14 pairs below 0.028. So up to ``_CHEAP_CASES``
    cases ``_TEST_RESAMPLES`` times as many are drawn, which takes it to 0.003 in seconds.
    """
    if study.labels.size <= _CHEAP_CASES:
        plan = replace(plan, resamples=_TEST_RESAMPLES * plan.resamples)
    others = sorted(
        (name for name in study.risks if name != STUDENT), key=lambda name: (name != ENSEMBLE, name)
    )
    pairs = {f"{STUDENT} - {other}": (STUDENT, other) for other in others}
    return {
        name: {
            "metric": COMPARED,
            **asdict(found.difference),
            "p_value": found.p_value,
            "p_holm": found.p_holm,
            "p_delong": found.p_delong,
        }
        for name, found in compare(study, pairs, COMPARED, plan).items()
    }


def _practice(study: Study, reference: Reference, plan: Bootstrap) -> Json:
    """Predictive values by prevalence, abstention curves and prediction sets."""
    claimed = [model for model in CLAIMED if model in study.risks]
    answered = {model: reference.answered(model) for model in study.risks}
    tables = {
        model: prevalence_table(study, model, measured_at, plan)
        for model in claimed
        if 0 < (measured_at := reference.prevalence(model)) < 1
    }
    return {
        "prevalence": {model: rows for model, rows in tables.items() if rows},
        "uncertainty": {
            "abstention": abstention(study, answered, plan),
            "conformal": {
                model: conformal(study, model, *answered[model], plan) for model in claimed
            },
        },
    }


# The report as rows


def ordered(models: Mapping[str, Any]) -> list[str]:
    """Student, ensemble, baselines, teachers, controls; within a kind the highest AUROC first."""

    def key(model: str) -> tuple[int, float, str]:
        reached = models[model].get("auroc", {}).get("value", 0.0)
        return _KINDS.index(kind_of(model)), -reached, model

    return sorted(models, key=key)


def tables(report: Mapping[str, Any]) -> "dict[str, pd.DataFrame]":
    """The report as flat tables with the same columns in every run, so that runs can be compared.

    All models, paired differences, the student by group, predictive values, and robustness.
    """
    import pandas as pd

    rows = {
        "models": _model_rows(report),
        "comparisons": _comparison_rows(report),
        "subgroups": _subgroup_rows(report),
        "prevalence": _prevalence_rows(report),
        "robustness": _robustness_rows(report),
    }
    return {name: frame for name, of in rows.items() if len(frame := pd.DataFrame(of))}


def _model_rows(report: Mapping[str, Any]) -> Iterator[Json]:
    for model in ordered(report["models"]):
        found = report["models"][model]
        yield {"model": model, "n": _n(found), **_bounds(found, *COLUMNS)}


def _comparison_rows(report: Mapping[str, Any]) -> Iterator[Json]:
    for pair, found in report["comparisons"].items():
        yield {
            "pair": pair,
            "n": found["n"],
            **_bounds({"auroc_difference": found}, "auroc_difference"),
            **{name: found[name] for name in ("p_value", "p_holm", "p_delong")},
        }


def _subgroup_rows(report: Mapping[str, Any]) -> Iterator[Json]:
    for block in ("by_source", "by_category", "by_age_band", "by_sex"):
        for cell, models in report[block].items():
            difference = report["subgroup_differences"].get(block, {}).get(cell)
            yield {
                "block": block.removeprefix("by_"),
                "cell": cell,
                "n": _n(models[STUDENT]),
                **_bounds(models[STUDENT], *SUBGROUP_METRICS),
                **_bounds({"auroc_difference": difference}, "auroc_difference"),
                "p_holm": difference["p_holm"] if difference else None,
            }


def _prevalence_rows(report: Mapping[str, Any]) -> Iterator[Json]:
    for model, rows in report["prevalence"].items():
        for found in rows:
            simple = {name: found[name] for name in found if name not in ("ci", "at_shifted_risk")}
            yield {"model": model, **simple}


def _robustness_rows(report: Mapping[str, Any]) -> Iterator[Json]:
    figures = ("mean_change", "mean_absolute_change", "changed_alerts", "auroc_change")
    for name, found in report["robustness"].items():
        yield {"perturbation": name, "n": found["n"], **_bounds(found, *figures)}


def _n(found: Mapping[str, Any]) -> int | None:
    return found["auroc"]["n"] if "auroc" in found else None


def _bounds(found: Mapping[str, Any], *names: str) -> Json:
    """``name``, ``name.ci_low`` and ``name.ci_high`` of each metric, empty where it is absent."""
    row: Json = {}
    for name in names:
        estimate = found.get(name) or {}
        row[name] = estimate.get("value")
        row |= {f"{name}.{bound}": estimate.get(bound) for bound in ("ci_low", "ci_high")}
    return row
