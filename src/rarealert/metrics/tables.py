"""``metrics.json`` as flat tables: the same columns in every run, so that runs can be compared."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rarealert.metrics.page import COLUMNS, ordered
from rarealert.metrics.predictions import STUDENT

if TYPE_CHECKING:
    import pandas as pd

Json = Mapping[str, Any]
Row = dict[str, Any]

_KEYS = ("value", "ci_low", "ci_high")
_BLOCKS = ("by_source", "by_category", "by_age_band", "by_sex")


def tables(report: Json) -> "dict[str, pd.DataFrame]":
    """Tables by name: every model, paired differences, the student by group, and in use."""
    import pandas as pd

    rows = {
        "models": _models(report),
        "comparisons": _comparisons(report),
        "subgroups": _subgroups(report),
        "prevalence": _prevalence(report),
        "robustness": _robustness(report),
    }
    return {name: frame for name, of in rows.items() if len(frame := pd.DataFrame(of))}


def _models(report: Json) -> Iterator[Row]:
    for model in ordered(report["models"]):
        found = report["models"][model]
        row: Row = {"model": model, "n": found["auroc"]["n"] if "auroc" in found else None}
        for name in COLUMNS:
            row |= _bounds(name, found.get(name))
        yield row


def _comparisons(report: Json) -> Iterator[Row]:
    for pair, found in report["comparisons"].items():
        yield {
            "pair": pair,
            "n": found["n"],
            **_bounds("auroc_difference", found),
            **{name: found[name] for name in ("p_value", "p_holm", "p_delong")},
        }


def _subgroups(report: Json) -> Iterator[Row]:
    for block in _BLOCKS:
        for cell, models in report[block].items():
            found = models[STUDENT]
            difference = report["subgroup_differences"].get(block, {}).get(cell)
            row: Row = {"block": block.removeprefix("by_"), "cell": cell}
            row["n"] = found["auroc"]["n"] if "auroc" in found else None
            for name in ("auroc", "sensitivity_at_95_specificity", "achieved_specificity"):
                row |= _bounds(name, found.get(name))
            row |= _bounds("auroc_difference", difference)
            yield row | {"p_holm": difference["p_holm"] if difference else None}


def _prevalence(report: Json) -> Iterator[Row]:
    for model, rows in report["prevalence"].items():
        for found in rows:
            plain = {name: found[name] for name in found if name not in ("ci", "at_shifted_risk")}
            yield {"model": model, **plain}


def _robustness(report: Json) -> Iterator[Row]:
    for name, found in report["robustness"].items():
        row: Row = {"perturbation": name, "n": found["n"]}
        for figure in ("mean_change", "mean_absolute_change", "changed_alerts", "auroc_change"):
            row |= _bounds(figure, found.get(figure))
        yield row


def _bounds(name: str, found: Json | None) -> Row:
    """``name``, ``name.ci_low`` and ``name.ci_high``, empty where the figure is absent."""
    held = found or {}
    return {name if key == "value" else f"{name}.{key}": held.get(key) for key in _KEYS}
