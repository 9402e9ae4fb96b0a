"""The report's figures and the points behind them, readable in print and without colour vision.

Colours are Okabe and Ito's, and every kind of line has its own dashes. Figures of groups and of
alerts in use are drawn from ``metrics.json``, so they show nothing that the report does not hold.
Figures are made without pyplot's global state, so nothing stays open.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rarealert.evaluation.metrics import (
    FloatArray,
    RiskCounts,
    calibration_points,
    net_benefit_of,
    roc_points,
)
from rarealert.evaluation.predictions import ENSEMBLE, STUDENT, kind_of, title_of
from rarealert.evaluation.report import ordered
from rarealert.evaluation.study import Study

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CALIBRATION_BINS = 10
_MAX_ROC_POINTS = 200  # points a curve; more are not visible and enlarge every git diff
STYLES: Mapping[str, dict[str, Any]] = {
    "student": {"color": "#D55E00", "linestyle": "-", "linewidth": 2.4, "zorder": 5},
    "ensemble": {"color": "#0072B2", "linestyle": "--", "linewidth": 2.0, "zorder": 4},
    "baseline": {"color": "#CC79A7", "linestyle": (0, (5, 1)), "linewidth": 1.8, "zorder": 3},
    "teacher": {"color": "#009E73", "linestyle": "-.", "linewidth": 1.6, "zorder": 3},
    "control": {"color": "#555555", "linestyle": ":", "linewidth": 1.8, "zorder": 2},
}
"""How each kind of model is drawn."""

PERTURBATION_TITLES = {
    "without_examination": "Without examination and vitals",
    "without_background": "Without past, family and social history",
    "without_age_and_sex": "Without age and sex",
    "paraphrase": "In other words",
    "other_units": "In other units",
    "typing_errors": "With typing errors",
}

_RARE, _NONRARE = "#D55E00", "#56B4E9"

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Curve:
    """One model's labels (1 rare) and risks, each of shape ``(n,)``, both classes present."""

    model: str
    labels: FloatArray
    risks: FloatArray


@dataclass(frozen=True)
class Drawing:
    """A figure with its file name, its title, and a sentence on how to read it."""

    name: str
    title: str
    caption: str
    figure: "Figure"


def curve(study: Study, model: str) -> Curve | None:
    """Labels and risks of the cases ``model`` answered, if they hold both labels."""
    index = study.answered(model)
    labels = study.labels[index]
    return Curve(model, labels, study.risks[model][index]) if np.unique(labels).size == 2 else None


def png_of(figure: "Figure") -> bytes:
    """``figure`` as PNG without the library's version: equal figures are equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def draw_all(study: Study, report: Json) -> list[Drawing]:
    """Every figure of the report; those of models only where their cases hold both labels."""
    best = report["chosen_on_validation"]
    leading = [STUDENT, ENSEMBLE, best["best_teacher"], best["best_control"]]
    leading = [name for name in leading if name in study.risks]
    curves = [found for name in leading if (found := curve(study, name))]
    return [*_of_models(report, curves), *_of_use(report, leading)]


def _of_models(report: Json, curves: Sequence[Curve]) -> Iterator[Drawing]:
    ranked = [name for name in ordered(report["models"]) if "auroc" in report["models"][name]]
    if not curves or not ranked:
        return
    yield Drawing(
        "forest.png",
        "AUROC of every model",
        "Models whose intervals overlap widely may still differ: see the paired differences.",
        forest_figure({name: report["models"][name]["auroc"] for name in ranked}),
    )
    yield Drawing(
        "roc.png",
        "ROC curves",
        "Student, ensemble, and the teacher and control that were best on validation.",
        roc_figure(curves),
    )
    yield Drawing(
        "calibration.png",
        "Calibration",
        "Ten equally full bins a model. Above the line the risks are too low.",
        calibration_figure(curves[:3]),
    )
    yield Drawing(
        "risk_distribution.png",
        "Distribution of the student's risks",
        "Rare cases above the line, non-rare below; the less they overlap, the better.",
        distribution_figure(curves[0]),
    )
    yield Drawing(
        "decision_curve.png",
        "Decision curve",
        "At the prevalence of these cases; a model helps where it is above both acting on "
        "everyone and acting on no one.",
        decision_figure(curves),
    )


def _of_use(report: Json, leading: Sequence[str]) -> Iterator[Drawing]:
    yield Drawing(
        "subgroups.png",
        "The student by group",
        "Intervals of small groups are wide; a group's distance from the dashed line means "
        "little where its interval crosses it.",
        subgroup_figure(report),
    )
    yield Drawing(
        "prevalence.png",
        "Alerts where disease is rarer",
        "At the same threshold. The shaded band is the student's interval.",
        prevalence_figure(report["prevalence"]),
    )
    yield Drawing(
        "abstention.png",
        "Error without the uncertain cases",
        "If a model is uncertain where it errs, its line falls to the right.",
        abstention_figure(report["uncertainty"]["abstention"], leading),
    )
    yield Drawing(
        "robustness.png",
        "The same visits, perturbed",
        "Mean change of the risk of the same visits; 0 is ideal for the last three.",
        robustness_figure(report["robustness"]),
    )


def point_tables(curves: Sequence[Curve]) -> "dict[str, pd.DataFrame]":
    """The points behind the plots, by file name: ROC, thinned, and ten calibration bins a model."""
    import pandas as pd

    roc: list[tuple[str, float, float]] = []
    calibration: list[tuple[str, float, float, int]] = []
    for curve in curves:
        fpr, tpr = roc_points(curve.labels, curve.risks)
        kept = np.unique(np.linspace(0, fpr.size - 1, _MAX_ROC_POINTS).round().astype(np.intp))
        roc += [(curve.model, float(fpr[at]), float(tpr[at])) for at in kept]
        points = calibration_points(curve.labels, curve.risks, CALIBRATION_BINS)
        calibration += [(curve.model, x, y, int(cases)) for x, y, cases in points]
    return {
        "roc.csv": pd.DataFrame(roc, columns=["model", "fpr", "tpr"]),
        "calibration.csv": pd.DataFrame(
            calibration, columns=["model", "predicted", "observed", "cases"]
        ),
    }


def roc_figure(curves: Sequence[Curve]) -> "Figure":
    """ROC curves with the chance line."""
    figure, axes = _square()
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1)
    for curve in curves:
        axes.plot(
            *roc_points(curve.labels, curve.risks),
            label=title_of(curve.model),
            **STYLES[kind_of(curve.model)],
        )
    axes.set(xlabel="False positive rate (1 - specificity)", ylabel="Sensitivity")
    axes.legend(loc="lower right", frameon=False, fontsize=9)
    return figure


def calibration_figure(curves: Sequence[Curve]) -> "Figure":
    """Observed share of rare cases against the mean risk of ten equally full bins."""
    figure, axes = _square()
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1)
    axes.text(0.98, 0.93, "ideal", rotation=45, ha="right", va="top", color="#777777", fontsize=9)
    for marker, curve in zip("osD^v", curves, strict=False):
        points = calibration_points(curve.labels, curve.risks, CALIBRATION_BINS)
        axes.plot(
            points[:, 0],
            points[:, 1],
            marker=marker,
            markersize=5,
            label=title_of(curve.model),
            **STYLES[kind_of(curve.model)],
        )
    axes.set(xlabel="Predicted risk (mean of the bin)", ylabel="Observed share of rare cases")
    axes.legend(loc="upper left", frameon=False, fontsize=9)
    return figure


def distribution_figure(curve: Curve) -> "Figure":
    """Histograms of the risks of rare cases, upwards, and of non-rare cases, downwards."""
    figure, axes = wide_axes()
    edges = np.linspace(0, 1, 21)
    for label, sign, colour, word in ((1, 1, _RARE, "rare"), (0, -1, _NONRARE, "non-rare")):
        cases = np.histogram(curve.risks[curve.labels == label], edges)[0]
        axes.bar(
            edges[:-1],
            sign * cases,
            width=0.05,
            align="edge",
            color=colour,
            edgecolor="white",
            linewidth=0.8,
            label=word,
        )
    axes.axhline(0, color="#333333", linewidth=0.8)
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):.0f}")
    axes.set(xlabel=f"Risk of the {title_of(curve.model).lower()}", ylabel="Cases", xlim=(0, 1))
    axes.legend(frameon=False, fontsize=9, ncols=2, loc="upper center", bbox_to_anchor=(0.5, 1.12))
    return figure


def decision_figure(curves: Sequence[Curve]) -> "Figure":
    """Net benefit of acting on each model over the threshold, against acting on all or none."""
    figure, axes = wide_axes()
    at = np.linspace(0.01, 0.8, 80)
    share = float(curves[0].labels.mean())
    everyone = share - (1 - share) * at / (1 - at)
    axes.plot(at, everyone, color="#999999", linewidth=1.2, label="Act on everyone")
    axes.axhline(0, color="#333333", linewidth=1, label="Act on no one")
    for curve in curves:
        counts = RiskCounts.of(curve.labels, curve.risks)
        axes.plot(
            at,
            [net_benefit_of(counts, float(threshold))[0] for threshold in at],
            label=title_of(curve.model),
            **STYLES[kind_of(curve.model)],
        )
    axes.set(
        xlabel="Threshold probability",
        ylabel="Net benefit per case",
        xlim=(0, 0.8),
        ylim=(-0.15 * share, 1.08 * share),
    )
    figure.legend(frameon=False, fontsize=8.5, loc="outside lower center", ncols=3)
    return figure


def forest_figure(aurocs: Mapping[str, Json]) -> "Figure":
    """AUROC with interval of each model, best first."""
    figure, axes = wide_axes(height=1.1 + 0.27 * len(aurocs))
    for place, (model, found) in enumerate(aurocs.items()):
        kind = kind_of(model)
        marker = {"student": "D", "ensemble": "s", "teacher": "o"}.get(kind, "x")
        colour = STYLES[kind]["color"]
        axes.plot([found["ci_low"], found["ci_high"]], [place, place], color=colour, linewidth=2.2)
        axes.plot(found["value"], place, color=colour, markersize=6, marker=marker)
    axes.axvline(0.5, color="#999999", linewidth=1)
    axes.set_yticks(range(len(aurocs)), [title_of(model) for model in aurocs])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0, labelsize=9)
    lowest = min(0.4, *(found["ci_low"] for found in aurocs.values()))
    axes.set(xlabel="AUROC with interval (0.5 is chance)", xlim=(lowest - 0.02, 1.0))
    return figure


def _square() -> tuple["Figure", "Axes"]:
    figure, axes = _figure(5.4, 5.0)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    return figure, axes


def wide_axes(height: float = 3.8) -> tuple["Figure", "Axes"]:
    """An empty plot as wide as a column of the page, ``height`` in inches."""
    return _figure(6.4, height)


def _figure(width: float, height: float) -> tuple["Figure", "Axes"]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def prevalence_figure(prevalence: Json) -> "Figure":
    """PPV of the alerts over the prevalence, with the student's interval; logarithmic axes."""
    figure, axes = wide_axes()
    for model, rows in prevalence.items():
        known = [row for row in rows if row["ppv"] is not None]
        style = STYLES[kind_of(model)]
        at = [100 * row["prevalence"] for row in known]
        axes.plot(at, [100 * row["ppv"] for row in known], label=title_of(model), **style)
        bounds = [row["ci"]["ppv"] for row in known]
        if model == STUDENT and all(bounds):
            low, high = ([100 * bound[side] for bound in bounds] for side in (0, 1))
            axes.fill_between(at, low, high, color=style["color"], alpha=0.15, linewidth=0)
    ticks = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30]
    axes.plot(ticks, ticks, color="#999999", linewidth=1, label="Alerting everyone")
    axes.set(xscale="log", yscale="log", xlabel="Visits with rare disease (%)")
    axes.set_ylabel("Alerts that are right (PPV, %)")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_yticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    axes.minorticks_off()
    axes.legend(loc="lower right", frameon=False, fontsize=9)
    return figure


def abstention_figure(abstention: Json, shown: Sequence[str]) -> "Figure":
    """Balanced error of the ``shown`` models over the share of cases they decide."""
    figure, axes = wide_axes()
    for model in shown:
        rows = abstention.get(model, [])
        axes.plot(
            [100 * row["coverage"] for row in rows],
            [100 * row["balanced_error"]["value"] for row in rows],
            marker="o",
            markersize=4,
            label=title_of(model),
            **STYLES[kind_of(model)],
        )
    axes.set(xlabel="Cases decided (%)", ylabel="Balanced error on them (%)", xlim=(102, 30))
    axes.set_ylim(bottom=0)
    figure.legend(frameon=False, fontsize=8.5, loc="outside lower center", ncols=3)
    return figure


def robustness_figure(robustness: Json) -> "Figure":
    """Mean absolute change of the risk by perturbation, with its interval."""
    figure, axes = wide_axes(height=1.2 + 0.36 * len(robustness))
    rows = [
        (PERTURBATION_TITLES.get(name, name), found["mean_absolute_change"])
        for name, found in robustness.items()
        if "mean_absolute_change" in found
    ]
    _ranges(axes, [(f"{title} (n = {one['n']})", one) for title, one in rows], STUDENT)
    axes.set_xlim(left=0)
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel("Mean change of the student's risk, either way (0 to 1)")
    return figure


def subgroup_figure(report: Json) -> "Figure":
    """The student's AUROC in every subgroup, with intervals, against that on all cases."""
    rows = []
    for block in ("by_source", "by_sex", "by_age_band", "by_category"):
        for name, models in report[block].items():
            found = models[STUDENT].get("auroc")
            if found:
                rows.append((f"{_short(name)} (n = {found['n']:,})", found))
    figure, axes = wide_axes(height=1.2 + 0.27 * len(rows))
    _ranges(axes, rows, STUDENT)
    overall = report["models"][STUDENT].get("auroc")
    if overall:
        axes.axvline(overall["value"], color=STYLES[ENSEMBLE]["color"], linewidth=1, linestyle="--")
    axes.axvline(0.5, color="#999999", linewidth=1)
    axes.set_xlabel("The student's AUROC (dashed: on all cases; 0.5 is chance)")
    axes.set_xlim(right=1.0)
    return figure


def _ranges(axes: "Axes", rows: list[tuple[str, Any]], model: str) -> None:
    colour = STYLES[kind_of(model)]["color"]
    for place, (_, found) in enumerate(rows):
        axes.plot([found["ci_low"], found["ci_high"]], [place, place], color=colour, linewidth=2)
        axes.plot(found["value"], place, color=colour, marker="D", markersize=5)
    axes.set_yticks(range(len(rows)), [title for title, _ in rows])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0, labelsize=8.5)


def _short(name: str) -> str:
    return name.partition(" (each")[0]
