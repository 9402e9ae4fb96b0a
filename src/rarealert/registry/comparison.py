"""Two registered versions on the same locked cases: who is better, for whom, and at what cost.

Differences are paired and resample whole diseases; p-values of one table are Holm-adjusted, so a
reader may look at every row (Holm, Scand J Stat 6:65, 1979).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rarealert.errors import RareAlertError
from rarealert.metrics.compare import holm
from rarealert.metrics.intervals import Bootstrap
from rarealert.metrics.panel import Comparison, Study, compare, evaluate

Floats = NDArray[np.float64]

METRICS = {
    "auroc": ("AUROC", True),
    "auprc": ("AUPRC", True),
    "brier": ("Brier score", False),
    "log_loss": ("Log loss", False),
    "ece": ("Expected calibration error", False),
    "net_benefit_at_5pct": ("Net benefit at 5 %", True),
}
"""Metric → its name for readers, and whether more is better."""

MIN_CELL = 10
"""Rare cases a subgroup needs to be compared; smaller heads are compared together."""

SMALL_HEADS = "small heads together"


@dataclass(frozen=True)
class Side:
    """One version: its risks on the test part, its alert threshold, and what it costs.

    ``costs`` are figures by name, the unit in the name; ``alert`` is a risk 0-1 or ``None``
    where the version does not say.
    """

    label: str
    version: str
    risks: Mapping[str, float]
    alert: float | None
    costs: Mapping[str, float]
    failed: str


@dataclass(frozen=True)
class TestPart:
    """The locked cases: label, disease and subgroups by case id; kinds as for the gates."""

    __test__ = False  # for pytest, which takes any class of this name for tests

    rare: Mapping[str, bool]
    disease: Mapping[str, str]
    cells: Mapping[str, Mapping[str, str]]


def compare_sides(one: Side, other: Side, part: TestPart, plan: Bootstrap) -> dict[str, Any]:
    """The comparison as JSON: ``metrics``, ``subgroups``, ``alerts``, ``costs``, ``sides``.

    Differences are the second side minus the first.

    Raises:
        RareAlertError: the two share no case, or the shared cases do not define an AUROC.
    """
    ids = sorted(part.rare.keys() & one.risks.keys() & other.risks.keys())
    study = _study(one, other, part, ids)
    metrics = _metrics(study, plan)
    if "auroc" not in metrics:
        raise RareAlertError("The cases that both versions scored do not define an AUROC.")
    return {
        "sides": [
            {"label": side.label, "version": side.version, "failed_gates": side.failed}
            for side in (one, other)
        ],
        "cases": {"n": len(ids), "rare": int(study.labels.sum()), "of": len(part.rare)},
        "interval": {"confidence": plan.confidence, "resamples": plan.resamples},
        "metrics": metrics,
        "subgroups": _subgroups(study, part, ids, plan),
        "alerts": _alerts(one, other, part, ids),
        "costs": {
            name: [one.costs.get(name), other.costs.get(name)]
            for name in sorted(one.costs.keys() | other.costs.keys())
        },
        "verdict": _verdict(metrics["auroc"]),
    }


def _study(one: Side, other: Side, part: TestPart, ids: list[str]) -> Study:
    return Study(
        labels=np.array([float(part.rare[key]) for key in ids]),
        clusters=np.array([part.disease[key] for key in ids], dtype=np.str_),
        risks={
            "a": np.array([one.risks[key] for key in ids], dtype=np.float64),
            "b": np.array([other.risks[key] for key in ids], dtype=np.float64),
        },
        thresholds={},
    )


def _metrics(study: Study, plan: Bootstrap) -> dict[str, dict[str, Any]]:
    everyone = {"all": np.arange(study.labels.size)}
    values = evaluate(study, everyone, METRICS, plan)["all"]
    found: dict[str, Comparison] = {}
    for name in METRICS:
        found |= compare(study, {name: ("b", "a")}, name, plan)
    adjusted = holm({name: each.p_value for name, each in found.items()})
    return {
        name: {
            "a": asdict(values["a"].estimates[name]),
            "b": asdict(values["b"].estimates[name]),
            "difference": asdict(each.difference),
            "p_value": each.p_value,
            "p_holm": adjusted[name],
            "better": _better(each.difference.ci_low, each.difference.ci_high, METRICS[name][1]),
        }
        for name, each in found.items()
        if name in values["a"].estimates and name in values["b"].estimates
    }


def _better(low: float, high: float, more_is_better: bool) -> str:
    """``a`` or ``b`` where the interval excludes zero, else ``neither``."""
    if low <= 0 <= high:
        return "neither"
    return "b" if (low > 0) == more_is_better else "a"


def _subgroups(
    study: Study, part: TestPart, ids: list[str], plan: Bootstrap
) -> dict[str, dict[str, Any]]:
    """Paired AUROC difference by Orphanet head, source, age band and sex, with Holm over all."""
    found: dict[tuple[str, str], Comparison] = {}
    for kind, cells in _cells(study, part, ids).items():
        for cell, index in cells.items():
            cut = replace(
                study,
                labels=study.labels[index],
                clusters=study.clusters[index],
                risks={name: risks[index] for name, risks in study.risks.items()},
            )
            for each in compare(cut, {cell: ("b", "a")}, "auroc", plan).values():
                found[kind, cell] = each
    adjusted = holm({"\n".join(key): each.p_value for key, each in found.items()})
    said: dict[str, dict[str, Any]] = {}
    for (kind, cell), each in found.items():
        difference = each.difference
        said.setdefault(kind, {})[cell] = {
            "difference": asdict(difference),
            "p_holm": adjusted[f"{kind}\n{cell}"],
            "gains": _better(difference.ci_low, difference.ci_high, more_is_better=True),
        }
    return said


def _cells(study: Study, part: TestPart, ids: list[str]) -> dict[str, dict[str, NDArray[np.intp]]]:
    """Cells with ten cases of each label; a head's rare cases stand with all non-rare ones."""
    nonrare = np.flatnonzero(study.labels == 0)
    found: dict[str, dict[str, NDArray[np.intp]]] = {}
    for kind, cell_of in sorted(part.cells.items()):
        names = np.array([cell_of.get(key, "") for key in ids], dtype=np.str_)
        if kind == "head":
            found[kind] = _heads(study, names, nonrare)
            continue
        cells = {
            name: np.flatnonzero(names == name) for name in sorted(set(names.tolist())) if name
        }
        found[kind] = {
            name: index
            for name, index in cells.items()
            if min(study.labels[index].sum(), (1 - study.labels[index]).sum()) >= MIN_CELL
        }
    return found


def _heads(
    study: Study, names: NDArray[np.str_], nonrare: NDArray[np.intp]
) -> dict[str, NDArray[np.intp]]:
    rare = study.labels == 1
    sizes = {name: int((rare & (names == name)).sum()) for name in set(names[rare].tolist())}
    large = sorted(name for name, size in sizes.items() if name and size >= MIN_CELL)
    members = {name: np.flatnonzero(rare & (names == name)) for name in large}
    small = np.flatnonzero(rare & ~np.isin(names, large))
    if small.size:
        members[SMALL_HEADS] = small
    return {name: np.sort(np.concatenate([index, nonrare])) for name, index in members.items()}


def _alerts(one: Side, other: Side, part: TestPart, ids: list[str]) -> dict[str, Any] | None:
    """Who is alerted by one side alone, at each side's own threshold; ``None`` without both."""
    if one.alert is None or other.alert is None:
        return None
    first = np.array([one.risks[key] >= one.alert for key in ids])
    second = np.array([other.risks[key] >= other.alert for key in ids])
    rare = np.array([part.rare[key] for key in ids])
    heads = np.array([part.cells.get("head", {}).get(key, "no head") for key in ids])

    def counts(among: NDArray[np.bool_]) -> dict[str, int]:
        return {
            "n": int(among.sum()),
            "both": int((among & first & second).sum()),
            "gained": int((among & ~first & second).sum()),
            "lost": int((among & first & ~second).sum()),
        }

    return {
        "rare": counts(rare),
        "nonrare": counts(~rare),
        "rare_by_head": {
            name: counts(rare & (heads == name)) for name in sorted(set(heads[rare].tolist()))
        },
    }


def _verdict(auroc: Mapping[str, Any]) -> str:
    difference = auroc["difference"]
    said = (
        f"AUROC of B minus A is {difference['value']:+.3f} "
        f"({difference['ci_low']:+.3f} to {difference['ci_high']:+.3f})"
    )
    if auroc["better"] == "neither":
        return f"{said}: the cases do not tell the two apart."
    return f"{said}: {auroc['better'].upper()} is better on these cases."
