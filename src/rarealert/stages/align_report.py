"""What the align stage reports: files under ``reports/align`` and items for its run."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rarealert.files import write_json
from rarealert.tracking.items import Figure, Item, Metric, Parameters, Table

if TYPE_CHECKING:
    from rarealert.alignment.report import Outcome

_BINS = 10  # of the calibration curves


def report_items(outcome: "Outcome", folder: Path) -> Iterator[Item]:
    """Write the reports into ``folder`` and yield metrics, tables and figures."""
    import pandas as pd

    from rarealert.alignment.report import metrics_of, screening_of, tables_of, uncertainty_of
    from rarealert.metrics.calibration import calibration_points

    metrics = metrics_of(outcome)
    cells, trials = screening_of(outcome.found)
    curves = {
        "train, out-of-fold": calibration_points(
            outcome.train.data.rare, outcome.out_of_fold, _BINS
        ),
        "valid": calibration_points(outcome.valid.data.rare, outcome.valid_risks, _BINS),
    }
    tables = tables_of(outcome)
    uncertainty = uncertainty_of(outcome)
    _write_json(folder / "metrics.json", metrics)
    _write_json(folder / "screening.json", {"trials": trials})
    _write_json(folder / "calibration.json", {key: rows.tolist() for key, rows in curves.items()})
    _write_json(folder / "uncertainty.json", uncertainty)
    for name, table in tables.items():
        _write_json(folder / f"{name}.json", table)

    for part in ("out_of_fold", "valid"):
        yield from (Metric(f"{part}_{name}", value) for name, value in metrics[part].items())
    for row in uncertainty["conformal"]:
        yield Metric(f"coverage_at_{row['confidence']:.0%}".replace("%", ""), row["covered"])
    if metrics["best_teacher"]:
        yield Metric("best_teacher_auroc", metrics["best_teacher"]["auroc"])
    chosen = metrics["chosen"]
    yield Parameters({f"chosen_{key}": chosen[key] for key in ("blend", "calibration")})
    yield Table("members.json", pd.DataFrame(chosen["members"]))
    yield Table("trials.json", pd.DataFrame(trials))
    for name, table in tables.items():
        yield Table(f"{name}.json", pd.DataFrame(table[name]))
    yield from _figures(outcome, cells, curves, uncertainty)


def _figures(
    outcome: "Outcome",
    cells: Mapping[tuple[str, str], float],
    curves: Mapping[str, Any],
    uncertainty: Mapping[str, Any],
) -> Iterator[Figure]:
    from rarealert.alignment import plots

    yield Figure("screening.png", plots.heat_map(cells))
    yield Figure("calibration.png", plots.calibration_plot(curves))
    names = [report.teacher for report in outcome.reports]
    weights = [report.weight for report in outcome.reports]
    yield Figure("teachers.png", plots.weight_plot(names, weights, outcome.judged))
    yield Figure("abstention.png", plots.abstention_plot(uncertainty["abstention"]))
    yield from _explained(outcome)


def _explained(outcome: "Outcome") -> Iterator[Figure]:
    """A beeswarm over the explained cases; waterfalls of the most wrong, right and torn."""
    import numpy as np

    from rarealert.alignment.plots import beeswarm, waterfall

    found, train = outcome.shapley, outcome.train
    if not found.names:
        return
    columns = [train.features.names.index(name) for name in found.names]
    yield Figure(
        "shapley.png",
        beeswarm(found.names, found.contributions, train.data.cells(found.rows, columns)),
    )
    risks, rare = outcome.out_of_fold[found.rows], train.data.rare[found.rows]
    wrong = np.abs(risks - rare)
    shown = {
        "most_wrong": np.argmax(wrong),
        "most_right": np.argmin(wrong),
        "most_torn": np.argmin(np.abs(risks - 0.5)),
    }
    for name, place in shown.items():
        figure = waterfall(
            found.names,
            found.contributions[place],
            float(found.base[place]),
            train.features.case_ids[found.rows[place]],
            rare=bool(rare[place]),
        )
        yield Figure(f"waterfall_{name}.png", figure)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    from rarealert.alignment.report import rounded

    write_json(path, rounded(content))
