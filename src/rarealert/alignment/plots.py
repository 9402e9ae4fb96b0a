"""The two plots that a reviewer of the alignment looks at first."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray


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
