"""The plots that a reviewer of the alignment looks at first."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

_MOST_COLUMNS = 12  # of a plot; the thirteenth moves no risk that one could see


def heat_map(cells: Mapping[tuple[str, str], float]) -> Figure:
    """AUROC of each ``(algorithm, feature set)``, written into the cell."""
    algorithms = list(dict.fromkeys(algorithm for algorithm, _ in cells))
    sets = list(dict.fromkeys(feature_set for _, feature_set in cells))
    grid = np.asarray([[cells.get((row, col), np.nan) for col in sets] for row in algorithms])
    figure = Figure(figsize=(2.2 + 1.9 * len(sets), 1.6 + 0.45 * len(algorithms)))
    axes = figure.subplots()
    image = axes.imshow(grid, cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(sets)), [name.replace("+", "\n+ ") for name in sets])
    axes.set_yticks(range(len(algorithms)), [name.replace("_", " ") for name in algorithms])
    middle = (np.nanmin(grid) + np.nanmax(grid)) / 2
    for (row, col), value in np.ndenumerate(grid):
        if not np.isnan(value):
            shade = "black" if value > middle else "white"
            axes.text(col, row, f"{value:.3f}", ha="center", va="center", color=shade)
    figure.colorbar(image, label="AUROC, unseen diseases")
    axes.set_title("Screening: algorithm and feature set, default settings, repeated folds")
    figure.tight_layout()
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


def weight_plot(names: Sequence[str], weights: Sequence[float]) -> Figure:
    """Each teacher's share of the ensemble's permutation importance, heaviest on top."""
    figure = Figure(figsize=(6, 1 + 0.35 * len(names)))
    axes = figure.subplots()
    axes.barh(list(names), list(weights), color="tab:blue")
    axes.invert_yaxis()
    axes.set(xlabel="share of permutation importance", title="Whom the ensemble listens to")
    figure.tight_layout()
    return figure


def beeswarm(
    names: Sequence[str], values: NDArray[np.float64], heights: NDArray[np.float64]
) -> Figure:
    """Shapley values, shape ``(k, m)``, of the twelve heaviest columns, one dot a case.

    ``heights`` are the columns' own values, same shape, for the colour; grey is unknown.
    """
    heaviest = np.argsort(-np.abs(values).mean(axis=0), kind="stable")[:_MOST_COLUMNS]
    figure = Figure(figsize=(8, 1.2 + 0.4 * len(heaviest)))
    axes = figure.subplots()
    for line, place in enumerate(heaviest):
        known = ~np.isnan(heights[:, place])
        axes.scatter(
            values[~known, place], _beside(values[~known, place], line), color="lightgrey", s=9
        )
        ranks = np.argsort(np.argsort(heights[known, place])) / max(1, known.sum() - 1)
        dots = axes.scatter(
            values[known, place],
            _beside(values[known, place], line),
            c=ranks,
            cmap="coolwarm",
            vmin=0,
            vmax=1,
            s=9,
        )
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.set_yticks(range(len(heaviest)), [names[place] for place in heaviest])
    axes.invert_yaxis()
    axes.set(
        xlabel="contribution to the log odds of rare", title="What moves the risk, unseen cases"
    )
    figure.colorbar(dots, label="rank of the column's value", ticks=[0, 1])
    figure.tight_layout()
    return figure


def _beside(values: NDArray[np.float64], line: int) -> NDArray[np.float64]:
    """Heights around ``line`` that set dots of like value beside each other."""
    heights = np.full(len(values), float(line))
    bins = np.round(values / (np.ptp(values) / 60 + 1e-12)) if len(values) else values
    for one in np.unique(bins):
        there = np.flatnonzero(bins == one)
        offsets = (np.arange(len(there)) + 1) // 2 * np.where(np.arange(len(there)) % 2, 1, -1)
        heights[there] += np.clip(offsets * 0.06, -0.4, 0.4)
    return heights


def waterfall(names: Sequence[str], values: NDArray[np.float64], base: float, case: str) -> Figure:
    """How one case's log odds come about: from ``base`` by the contributions ``(m,)``."""
    order = np.argsort(-np.abs(values), kind="stable")
    heaviest, rest = order[:_MOST_COLUMNS], order[_MOST_COLUMNS:]
    labels = [names[place] for place in heaviest]
    steps = values[heaviest].tolist()
    if len(rest):
        labels.append(f"{len(rest)} others")
        steps.append(float(values[rest].sum()))
    starts = base + np.concatenate([[0.0], np.cumsum(steps)[:-1]])
    figure = Figure(figsize=(8, 1.2 + 0.35 * len(steps)))
    axes = figure.subplots()
    colours = ["tab:red" if step > 0 else "tab:blue" for step in steps]
    axes.barh(range(len(steps)), steps, left=starts, color=colours)
    for line, (start, step) in enumerate(zip(starts, steps, strict=True)):
        axes.text(max(start, start + step) + 0.03, line, f"{step:+.2f}", va="center", fontsize=8)
    axes.set_yticks(range(len(steps)), labels)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    risk = 1 / (1 + np.exp(-(base + sum(steps))))
    axes.set(xlabel=f"log odds of rare, from {base:+.2f}", title=f"{case}: risk {risk:.2f}")
    figure.tight_layout()
    return figure


def abstention_plot(rows: Sequence[Mapping[str, float]]) -> Figure:
    """Accuracy and AUROC over the share of cases that are kept."""
    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    for name in ("accuracy", "auroc"):
        points = [(row["kept"], row[name]) for row in rows if name in row]
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.invert_xaxis()
    axes.set(xlabel="share of cases kept, the least sure sent on", title="What abstaining buys")
    axes.legend()
    figure.tight_layout()
    return figure
