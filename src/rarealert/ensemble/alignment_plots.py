"""The plots of the alignment's report."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

_MOST_COLUMNS = 12  # of a plot; the thirteenth moves no risk visibly


def heat_map(cells: Mapping[tuple[str, str], float]) -> Figure:
    """AUROC of each ``(algorithm, feature set)``, written into the cell."""
    algorithms = list(dict.fromkeys(algorithm for algorithm, _ in cells))
    sets = list(dict.fromkeys(feature_set for _, feature_set in cells))
    grid = np.asarray([[cells.get((row, col), np.nan) for col in sets] for row in algorithms])
    size = (3.2 + 1.3 * len(sets), 1.6 + 0.4 * len(algorithms))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(grid, cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(sets)), [name.replace("+", "\n+ ") for name in sets])
    axes.set_yticks(range(len(algorithms)), [name.replace("_", " ") for name in algorithms])
    middle = (np.nanmin(grid) + np.nanmax(grid)) / 2
    for (row, col), value in np.ndenumerate(grid):
        if not np.isnan(value):
            shade = "black" if value > middle else "white"
            axes.text(col, row, f"{value:.3f}", ha="center", va="center", color=shade)
    figure.colorbar(image, label="AUROC, unseen diseases", pad=0.02, fraction=0.04)
    axes.set_title("Screening: algorithm and feature set, default settings")
    return figure


def calibration_plot(curves: Mapping[str, NDArray[np.float64]]) -> Figure:
    """Observed share of rare cases over mean risk.

    Each curve has shape ``(n_bins, 3)``: mean risk, observed share, cases.
    """
    figure = Figure(figsize=(5, 5))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", label="ideal")
    for name, points in curves.items():
        cases = int(points[:, 2].sum())
        axes.plot(points[:, 0], points[:, 1], marker="o", label=f"{name} (n={cases})")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="mean risk", ylabel="share of rare cases")
    axes.set_title("Calibration of the ensemble, equally full bins")
    axes.legend(loc="upper left")
    figure.tight_layout()
    return figure


def weight_plot(weights: Mapping[str, float], cases: int) -> Figure:
    """Each teacher's share of the permutation importance over ``cases``, heaviest on top."""
    figure = Figure(figsize=(6, 1 + 0.35 * len(weights)))
    axes = figure.subplots()
    axes.barh(list(weights), list(weights.values()), color="tab:blue")
    axes.invert_yaxis()
    axes.set(
        xlabel="share of permutation importance",
        title=f"Weight of each teacher in the ensemble (n={cases:,})",
    )
    figure.tight_layout()
    return figure


def beeswarm(
    names: Sequence[str], values: NDArray[np.float64], heights: NDArray[np.float64]
) -> Figure:
    """Shapley values, shape ``(k, m)``, of the twelve heaviest columns, one dot a case.

    ``heights`` are the columns' own values, same shape, for the colour; grey is unknown.
    """
    heaviest = np.argsort(-np.abs(values).mean(axis=0), kind="stable")[:_MOST_COLUMNS]
    figure = Figure(figsize=(8, 1.2 + 0.4 * len(heaviest)), layout="constrained")
    axes = figure.subplots()
    for line, place in enumerate(heaviest):
        known = ~np.isnan(heights[:, place])
        axes.scatter(
            values[~known, place], _spread_out(values[~known, place], line), color="lightgrey", s=9
        )
        ranks = np.argsort(np.argsort(heights[known, place])) / max(1, known.sum() - 1)
        dots = axes.scatter(
            values[known, place],
            _spread_out(values[known, place], line),
            c=ranks,
            cmap="coolwarm",
            vmin=0,
            vmax=1,
            s=9,
        )
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.set_yticks(range(len(heaviest)), [_label(names[place]) for place in heaviest])
    axes.invert_yaxis()
    axes.set(
        xlabel="contribution to the log odds of rare (grey: the value is unknown)",
        title="What moves the risk, unseen cases",
    )
    bar = figure.colorbar(dots, ticks=[0, 1], pad=0.02, fraction=0.04)
    bar.ax.set_yticklabels(["lowest\nvalue", "highest\nvalue"])
    return figure


def _label(name: str) -> str:
    """A column's name as a label: ``spread:vote_share@2`` is "spread: vote share, block 2"."""
    group, _, feature = name.partition(":")
    feature, _, block = feature.partition("@")
    if group != "risk":  # a risk column is named after a teacher's id
        feature = feature.replace("_", " ")
    return f"{group}: {feature}" + (f", block {block}" if block else "")


def _spread_out(values: NDArray[np.float64], line: int) -> NDArray[np.float64]:
    """Heights around ``line`` that set dots of like value beside each other."""
    heights = np.full(len(values), float(line))
    bins = np.round(values / (np.ptp(values) / 60 + 1e-12)) if len(values) else values
    for one in np.unique(bins):
        there = np.flatnonzero(bins == one)
        offsets = (np.arange(len(there)) + 1) // 2 * np.where(np.arange(len(there)) % 2, 1, -1)
        heights[there] += np.clip(offsets * 0.06, -0.4, 0.4)
    return heights


def waterfall(
    names: Sequence[str], values: NDArray[np.float64], base: float, case: str, *, rare: bool
) -> Figure:
    """How one case's log odds come about: from ``base`` by the contributions ``(m,)``.

    ``rare`` is its label, for the title alone.
    """
    order = np.argsort(-np.abs(values), kind="stable")
    heaviest, rest = order[:_MOST_COLUMNS], order[_MOST_COLUMNS:]
    labels = [_label(names[place]) for place in heaviest]
    steps = values[heaviest].tolist()
    if len(rest):
        labels.append(f"{len(rest)} others")
        steps.append(float(values[rest].sum()))
    starts = base + np.concatenate([[0.0], np.cumsum(steps)[:-1]])
    figure = Figure(figsize=(8, 1.2 + 0.35 * len(steps)), layout="constrained")
    axes = figure.subplots()
    colours = ["tab:red" if step > 0 else "tab:blue" for step in steps]
    axes.barh(range(len(steps)), steps, left=starts, color=colours)
    for line, (start, step) in enumerate(zip(starts, steps, strict=True)):
        axes.annotate(
            f"{step:+.2f}",
            (max(start, start + step), line),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.axvline(base, color="grey", linewidth=0.8, linestyle="--")
    axes.set_yticks(range(len(steps)), labels)
    axes.invert_yaxis()
    axes.use_sticky_edges = False  # a bar at the edge would leave no room for its number
    axes.margins(x=0.12)
    risk = 1 / (1 + np.exp(-(base + sum(steps))))
    label = "rare" if rare else "not rare"
    axes.set(
        xlabel=f"log odds of rare, from {base:+.2f} with nothing known",
        title=f"{case}: risk {risk:.2f}, labelled {label}",
    )
    return figure


def abstention_plot(rows: Sequence[Mapping[str, float]]) -> Figure:
    """Accuracy and AUROC over the share of cases that are kept."""
    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    for name in ("accuracy", "auroc"):
        points = [(row["kept"], row[name]) for row in rows if name in row]
        label = name.upper() if name == "auroc" else name
        axes.plot(*zip(*points, strict=True), marker="o", label=label)
    axes.invert_xaxis()
    axes.set(xlabel="share of cases kept, the least certain left out", title="Abstention")
    axes.legend()
    figure.tight_layout()
    return figure
