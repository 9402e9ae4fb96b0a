"""Figures of what alerts mean in use: prevalence, abstention, groups, the visit told otherwise.

Drawn from ``metrics.json``, so that a figure can't show what the report does not hold.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rarealert.metrics.plots import STYLES, kind_of, title_of, wide_axes
from rarealert.metrics.predictions import ENSEMBLE, STUDENT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Json = Mapping[str, Any]

PERTURBATION_TITLES = {
    "without_examination": "Without examination and vitals",
    "without_background": "Without past, family and social history",
    "without_age_and_sex": "Without age and sex",
    "paraphrase": "In other words",
    "other_units": "In other units",
    "typing_errors": "With typing errors",
}


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


def abstention_figure(abstention: Json, shown: list[str]) -> "Figure":
    """Balanced error of the ``shown`` models over the share of cases they decide on."""
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
    axes.set(xlabel="Cases decided on (%)", ylabel="Balanced error on them (%)", xlim=(102, 30))
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
