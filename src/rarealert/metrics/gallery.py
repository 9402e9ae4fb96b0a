"""Which figures the report holds, what each is called, and what a reader should see in it."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rarealert.metrics import plots, plots_use
from rarealert.metrics.page import Plot, ordered
from rarealert.metrics.panel import Study
from rarealert.metrics.plots import Curve
from rarealert.metrics.predictions import ENSEMBLE, STUDENT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Drawing:
    """A figure as drawn and as the page shows it; ``name`` is its file, ending in ``.png``."""

    name: str
    figure: "Figure"
    plot: Plot


def curve(study: Study, model: str) -> Curve | None:
    """Labels and risks of the cases ``model`` answered, if they hold both labels."""
    index = study.answered(model, np.arange(study.labels.size))
    labels = study.labels[index]
    return Curve(model, labels, study.risks[model][index]) if np.unique(labels).size == 2 else None


def draw_all(study: Study, report: Json) -> list[Drawing]:
    """Every figure whose models have both labels."""
    drawn = [*_of_models(study, report), *_of_use(report)]
    return [
        Drawing(name, figure, Plot(name.removesuffix(".png"), title, caption, _png(figure)))
        for name, title, caption, figure in drawn
    ]


def _of_models(study: Study, report: Json) -> Iterator[tuple[str, str, str, "Figure"]]:
    best = report["chosen_on_validation"]
    leading = [STUDENT, ENSEMBLE, best["best_teacher"], best["best_control"]]
    curves = [
        found for name in leading if name in study.risks and (found := curve(study, str(name)))
    ]
    ranked = [
        (name, *(report["models"][name]["auroc"][key] for key in ("value", "ci_low", "ci_high")))
        for name in ordered(report["models"])
        if "auroc" in report["models"][name]
    ]
    if not curves or not ranked:
        return
    yield (
        "forest.png",
        "AUROC of every model",
        "Models whose intervals overlap widely may still differ: see the paired differences.",
        plots.forest_figure(ranked),
    )
    yield (
        "roc.png",
        "ROC curves",
        "Student, ensemble, and the teacher and control that were best on validation.",
        plots.roc_figure(curves),
    )
    yield (
        "calibration.png",
        "Calibration",
        "Ten equally full bins a model. Above the line the risks are too low.",
        plots.calibration_figure(curves[:3]),
    )
    yield (
        "risk_distribution.png",
        "Risks the student gives",
        "Rare cases above the line, non-rare below; the less they overlap, the better.",
        plots.distribution_figure(curves[0]),
    )
    yield (
        "decision_curve.png",
        "Decision curve",
        "At the prevalence of these cases; a model helps where it lies above both acting on "
        "everyone and acting on no one.",
        plots.decision_figure(curves),
    )


def _of_use(report: Json) -> Iterator[tuple[str, str, str, "Figure"]]:
    yield (
        "subgroups.png",
        "The student by group",
        "Intervals of small groups are wide; a group's distance from the dashed line means "
        "little where its interval crosses it.",
        plots_use.subgroup_figure(report),
    )
    yield (
        "prevalence.png",
        "Alerts where disease is rarer",
        "At the same threshold. The shaded band is the student's interval.",
        plots_use.prevalence_figure(report["prevalence"]),
    )
    best = report["chosen_on_validation"]
    leading = [STUDENT, ENSEMBLE, best["best_teacher"], best["best_control"]]
    yield (
        "abstention.png",
        "Error when unsure cases are left out",
        "A model that knows what it does not know has a line that falls to the right.",
        plots_use.abstention_figure(
            report["uncertainty"]["abstention"], [name for name in leading if name]
        ),
    )
    yield (
        "robustness.png",
        "The same visit told otherwise",
        "Mean change of the risk of the same visits; 0 is ideal for the last three.",
        plots_use.robustness_figure(report["robustness"]),
    )


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    # Without the library's version the same figures give the same bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
