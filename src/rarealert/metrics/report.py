"""``metrics.json``: every model, pooled and per subgroup, in the contract that machines read.

A metric that is present has a value, both bounds and ``n``; one that the cases do not define is
left out and its reason stands under ``absent``. Nothing is ever NaN.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rarealert.metrics.counts import FloatArray, IntArray
from rarealert.metrics.discrimination import auroc
from rarealert.metrics.intervals import Bootstrap
from rarealert.metrics.panel import (
    METRICS,
    THRESHOLDED,
    Comparison,
    Result,
    Study,
    Thresholds,
    compare,
    evaluate,
)
from rarealert.metrics.predictions import CONTROL_PREFIX, ENSEMBLE, STUDENT, TEACHER_PREFIX
from rarealert.metrics.prevalence import PREVALENCES, at_prevalence

MIN_CELL = 10  # rare cases; a smaller Orphanet head says more about chance than about the model
AGE_BANDS = ((0, 2), (2, 18), (18, 40), (40, 65), (65, 121))
COMPARED = "auroc"
SUBGROUP_METRICS = ("auroc", "sensitivity_at_95_specificity", "achieved_specificity")
_DIGITS = 6  # decimals in the report; beyond them lies the order of a sum

Json = dict[str, Any]


@dataclass(frozen=True)
class Traits:
    """What subgroups are made of, each of shape ``(n,)``; ``None`` in a list where unknown."""

    source: NDArray[np.str_]
    head: list[str | None]
    age_years: list[float | None]
    sex: list[str | None]


@dataclass(frozen=True)
class Reference:
    """The validation part: labels ``(n,)`` and risks by model ``(n,)``, NaN where unanswered."""

    labels: FloatArray
    risks: Mapping[str, FloatArray]

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


def of_kind(models: Iterable[str], prefix: str) -> list[str]:
    """The models whose name starts with ``prefix``, sorted."""
    return sorted(model for model in models if model.startswith(prefix))


def build_report(
    study: Study, traits: Traits, reference: Reference, plan: Bootstrap, digest: str
) -> Json:
    """The whole of ``metrics.json`` as plain data, rounded to six decimals.

    ``study`` is the test part; ``digest`` names it (sha256 of its case ids).
    """
    everyone = {"all": np.arange(study.labels.size)}
    metrics = (*METRICS, *THRESHOLDED)
    pooled = evaluate(study, everyone, metrics, plan)["all"]
    blocks = {
        "by_source": evaluate(study, _by(traits.source.tolist()), metrics, plan),
        "by_category": evaluate(study, head_cells(study, traits), SUBGROUP_METRICS, plan),
        "by_age_band": evaluate(study, _by(_age_bands(traits)), SUBGROUP_METRICS, plan),
        "by_sex": evaluate(study, _by(traits.sex), SUBGROUP_METRICS, plan),
    }
    models = {name: _estimates(result) for name, result in pooled.items()}
    return {
        "dataset": _dataset(study, traits, plan, digest),
        "models": models,
        "controls": {name: models[name] for name in of_kind(models, CONTROL_PREFIX)},
        **{
            block: {
                cell: {name: _estimates(result) for name, result in of_cell.items()}
                for cell, of_cell in cells.items()
            }
            for block, cells in blocks.items()
        },
        "comparisons": _comparisons(study, plan),
        "thresholds": {name: _rounded(asdict(at)) for name, at in study.thresholds.items()},
        "prevalence": _prevalence(models),
        "chosen_on_validation": {
            "best_teacher": reference.best(of_kind(models, TEACHER_PREFIX)),
            "best_control": reference.best(of_kind(models, CONTROL_PREFIX)),
        },
        "absent": {"models": _absent(pooled)}
        | {
            block: {cell: _absent(found) for cell, found in cells.items() if _absent(found)}
            for block, cells in blocks.items()
        },
    }


def head_cells(study: Study, traits: Traits) -> dict[str, IntArray]:
    """The rare cases of each Orphanet head together with all non-rare cases.

    Heads with fewer than ten rare cases, and rare cases without a head, are pooled under a name
    that says so.
    """
    rare = np.flatnonzero(study.labels == 1)
    nonrare = np.flatnonzero(study.labels == 0)
    heads = np.array([traits.head[at] or "" for at in rare], dtype=np.str_)
    cells: dict[str, IntArray] = {}
    small: list[IntArray] = []
    for head in sorted(set(heads.tolist())):
        members = rare[heads == head]
        if head and members.size >= MIN_CELL:
            cells[head] = np.concatenate([members, nonrare])
        else:
            small.append(members)
    if small:
        name = f"other heads (each fewer than {MIN_CELL} rare cases)"
        cells[name] = np.concatenate([*small, nonrare])
    return {name: np.sort(index) for name, index in cells.items()}


def _by(values: Iterable[str | None]) -> dict[str, IntArray]:
    named = np.array([value or "unknown" for value in values], dtype=np.str_)
    return {name: np.flatnonzero(named == name) for name in sorted(set(named.tolist()))}


def _age_bands(traits: Traits) -> list[str | None]:
    def band(age: float | None) -> str | None:
        if age is None:
            return None
        low, high = next(edges for edges in AGE_BANDS if age < edges[1])
        return f"{low:02d}-{high - 1:02d} years" if high < 121 else f"{low} years and older"

    return [band(age) for age in traits.age_years]


def _dataset(study: Study, traits: Traits, plan: Bootstrap, digest: str) -> Json:
    sources = {
        source: _sizes(study, index) for source, index in _by(traits.source.tolist()).items()
    }
    return {
        "name": "+".join(sources),
        "simulated": set(sources) == {"simulated"},
        "part": "test",
        "digest": digest,
        "sources": sources,
        "categories": {
            cell: _sizes(study, index[study.labels[index] == 1])
            for cell, index in head_cells(study, traits).items()
        },
        "interval": {
            "method": "percentile bootstrap clustered by disease",
            "resamples": plan.resamples,
            "confidence": plan.confidence,
        },
        **_sizes(study, np.arange(study.labels.size)),
    }


def _sizes(study: Study, index: IntArray) -> dict[str, int]:
    rare = index[study.labels[index] == 1]
    return {
        "n": int(index.size),
        "n_rare": int(rare.size),
        "n_nonrare": int(index.size - rare.size),
        "diseases": int(np.unique(study.clusters[index]).size),
        "rare_diseases": int(np.unique(study.clusters[rare]).size),
    }


def _comparisons(study: Study, plan: Bootstrap) -> Json:
    others = [name for name in study.risks if name != STUDENT]
    pairs = {f"{STUDENT} - {other}": (STUDENT, other) for other in others}
    best_first = sorted(pairs, key=lambda name: (pairs[name][1] != ENSEMBLE, name))
    found = compare(study, {name: pairs[name] for name in best_first}, COMPARED, plan)
    return {name: _comparison(comparison) for name, comparison in found.items()}


def _comparison(found: Comparison) -> Json:
    return {
        "metric": COMPARED,
        **_rounded(asdict(found.difference)),
        **_rounded({"p_value": found.p_value, "p_holm": found.p_holm, "p_delong": found.p_delong}),
    }


def _prevalence(models: Mapping[str, Json]) -> Json:
    """Predictive values of student and ensemble at the threshold of 95 % specificity."""
    table: Json = {}
    for name in (STUDENT, ENSEMBLE):
        of_model = models.get(name, {})
        if {"sensitivity_at_95_specificity", "achieved_specificity"} <= set(of_model):
            sensitivity = of_model["sensitivity_at_95_specificity"]["value"]
            specificity = of_model["achieved_specificity"]["value"]
            table[name] = [
                _rounded(asdict(at_prevalence(sensitivity, specificity, prevalence)))
                for prevalence in PREVALENCES
            ]
    return table


def _estimates(result: Result) -> Json:
    return {name: _rounded(asdict(estimate)) for name, estimate in result.estimates.items()}


def _absent(results: Mapping[str, Result]) -> dict[str, dict[str, str]]:
    return {name: result.absent for name, result in results.items() if result.absent}


def _rounded(values: Mapping[str, Any]) -> Json:
    return {
        key: round(value, _DIGITS) if isinstance(value, float) else value
        for key, value in values.items()
    }


__all__ = ["MIN_CELL", "Reference", "Study", "Traits", "build_report", "head_cells", "of_kind"]
