"""Measure every model on the test part, with intervals and controls: ``rarealert evaluate``.

Reads the predictions of ``score`` and the labels; thresholds come from the validation part. Writes
``reports/evaluate/``: ``metrics.json`` (the contract), ``summary.json``, the points behind the
plots as CSV, the plots, and ``index.html``.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rarealert.cases.case import LabelledCase
from rarealert.cases.splits import lock_digest
from rarealert.cases.store import disease_groups, is_rare, read_cases
from rarealert.params import Params
from rarealert.paths import Paths
from rarealert.stages.harness import run_stage
from rarealert.tracking.items import Artifact, Dataset, Figure, Item, Metric, Summary, Table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as MplFigure

    from rarealert.metrics.plots import Curve
    from rarealert.metrics.report import Reference, Study, Traits

Json = dict[str, Any]

_HEADLINE = ("auroc", "auprc", "sensitivity_at_95_specificity", "achieved_specificity", "brier")


def evaluate(params: Params, paths: Paths) -> Iterator[Item]:
    """Build the report and hand its figures to the run."""
    from rarealert.metrics.intervals import Bootstrap
    from rarealert.metrics.page import render_page
    from rarealert.metrics.predictions import PARTS, check_predictions, read_predictions
    from rarealert.metrics.report import build_report

    source = paths.build("score") / "predictions.parquet"
    frame = read_predictions(source)
    cases = {part: read_cases(paths.build("split") / f"{part}.parquet") for part in PARTS}
    check_predictions(frame, {part: _ids(of_part) for part, of_part in cases.items()})
    yield Dataset("predictions", source, _sha256(source), len(frame), "evaluation")

    plan = Bootstrap(params.evaluate.resamples, params.evaluate.confidence, params.evaluate.seed)
    study, reference = read_study(frame, cases["valid"], cases["test"])
    report = build_report(
        study, _traits(cases["test"]), reference, plan, lock_digest(_ids(cases["test"]))
    )
    drawings = _draw(study, report)

    folder = paths.report("evaluate")
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "metrics.json", _json(report))
    _write(folder / "summary.json", _json(summary(report)))
    _write_points(folder, [curve for name in study.risks if (curve := _curve(study, name))])
    for drawing in drawings:
        _write(folder / drawing.name, drawing.plot.png)
    page = render_page(report, [drawing.plot for drawing in drawings])
    _write(folder / "index.html", page.encode())

    yield from _metrics(report)
    for drawing in drawings:
        yield Figure(drawing.name, drawing.figure)
    yield Table("models.json", _table(report))
    yield Artifact(folder / "index.html")
    yield Artifact(folder / "metrics.json")
    yield Summary(_sentence(report))


def read_study(
    frame: "pd.DataFrame", valid: Sequence[LabelledCase], test: Sequence[LabelledCase]
) -> tuple["Study", "Reference"]:
    """Predictions laid out by case: the test part to measure, the validation part to choose on."""
    import numpy as np

    from rarealert.metrics.report import Reference, Study

    risks = {}
    for part, of_part in (("valid", valid), ("test", test)):
        rows = frame[frame["part"] == part]
        wide = rows.pivot_table(index="case_id", columns="model", values="risk")
        wide = wide.reindex(_ids(of_part))
        risks[part] = {str(name): wide[name].to_numpy(np.float64) for name in sorted(wide.columns)}
    reference = Reference(np.array(is_rare(valid), dtype=np.float64), risks["valid"])
    study = Study(
        labels=np.array(is_rare(test), dtype=np.float64),
        clusters=np.array(disease_groups(test), dtype=np.str_),
        risks=risks["test"],
        thresholds=reference.thresholds(risks["test"]),
    )
    return study, reference


def summary(report: Json) -> Json:
    """The few numbers that ``dvc metrics show`` and ``diff`` should print."""
    models = report["models"]
    best = report["chosen_on_validation"]
    named = {
        "student": "student",
        "ensemble": "ensemble",
        "best_teacher": best["best_teacher"],
        "best_control": best["best_control"],
    }
    return {
        role: {name: models[model][name]["value"] for name in _HEADLINE if name in models[model]}
        for role, model in named.items()
        if model in models
    }


@dataclass(frozen=True)
class _Drawing:
    name: str
    figure: "MplFigure"
    plot: Any


def _draw(study: "Study", report: Json) -> list[_Drawing]:
    """The figures whose models have both classes, as drawn and as PNG bytes."""
    from rarealert.metrics import plots
    from rarealert.metrics.page import Plot, ordered

    best = report["chosen_on_validation"]
    leading = ["student", "ensemble", best["best_teacher"], best["best_control"]]
    curves = [curve for name in leading if name and (curve := _curve(study, name))]
    ranked = [
        (name, *(report["models"][name]["auroc"][key] for key in ("value", "ci_low", "ci_high")))
        for name in ordered(report["models"])
        if "auroc" in report["models"][name]
    ]
    if not curves or not ranked:
        return []
    drawn = [
        (
            "forest.png",
            "AUROC of every model",
            "Models whose intervals overlap widely may still differ: see the paired differences.",
            plots.forest_figure(ranked),
        ),
        (
            "roc.png",
            "ROC curves",
            "Student, ensemble, and the teacher and control that were best on validation.",
            plots.roc_figure(curves),
        ),
        (
            "calibration.png",
            "Calibration",
            "Ten equally full bins a model. Above the line the risks are too low.",
            plots.calibration_figure(curves[:3]),
        ),
        (
            "risk_distribution.png",
            "Risks the student gives",
            "Rare cases above the line, non-rare below; the less they overlap, the better.",
            plots.distribution_figure(curves[0]),
        ),
        (
            "decision_curve.png",
            "Decision curve",
            "At the prevalence of these cases; a model helps where it lies above both "
            "acting on everyone and acting on no one.",
            plots.decision_figure(curves),
        ),
    ]
    return [
        _Drawing(name, figure, Plot(title, caption, _png(figure)))
        for name, title, caption, figure in drawn
    ]


def _curve(study: "Study", model: str) -> "Curve | None":
    import numpy as np

    from rarealert.metrics.plots import Curve

    index = study.answered(model, np.arange(study.labels.size))
    labels = study.labels[index]
    return Curve(model, labels, study.risks[model][index]) if np.unique(labels).size == 2 else None


def _write_points(folder: Path, curves: Sequence["Curve"]) -> None:
    import pandas as pd

    from rarealert.metrics.plots import calibration_rows, roc_rows

    tables = {
        "roc.csv": pd.DataFrame(roc_rows(curves), columns=["model", "fpr", "tpr"]),
        "calibration.csv": pd.DataFrame(
            calibration_rows(curves), columns=["model", "predicted", "observed", "cases"]
        ),
    }
    for name, table in tables.items():
        text = table.to_csv(index=False, float_format="%.6f", lineterminator="\n")
        _write(folder / name, text.encode())


def _metrics(report: Json) -> Iterator[Metric]:
    """Pooled figures as ``<model>.<metric>`` with bounds; a colon becomes a dot.

    Student, ensemble and the best of the rest with all metrics, every other model with its
    AUROC: a reviewer compares hundreds of columns no better than the store writes them.
    """
    best = report["chosen_on_validation"]
    whole = {"student": "student", "ensemble": "ensemble", **best}
    for model, found in report["models"].items():
        if model not in whole:
            yield from _with_bounds(model, {"auroc": found["auroc"]} if "auroc" in found else {})
    for role, model in whole.items():
        yield from _with_bounds(role, report["models"].get(model, {}))


def _with_bounds(model: str, found: Json) -> Iterator[Metric]:
    for name, estimate in found.items():
        key = f"{model.replace(':', '.')}.{name}"
        yield Metric(key, estimate["value"])
        yield Metric(f"{key}.ci_low", estimate["ci_low"])
        yield Metric(f"{key}.ci_high", estimate["ci_high"])


def _table(report: Json) -> "pd.DataFrame":
    import pandas as pd

    from rarealert.metrics.page import COLUMNS, ordered

    rows = []
    for model in ordered(report["models"]):
        found = report["models"][model]
        row: Json = {"model": model}
        for name in COLUMNS:
            for key in ("value", "ci_low", "ci_high"):
                column = name if key == "value" else f"{name}.{key}"
                row[column] = found[name][key] if name in found else None
        rows.append(row)
    return pd.DataFrame(rows)


def _sentence(report: Json) -> str:
    of = f"{report['dataset']['n']:,} {'simulated ' if report['dataset']['simulated'] else ''}cases"
    parts = []
    for role, name in (
        ("student", "student"),
        ("ensemble", "ensemble"),
        ("best control", report["chosen_on_validation"]["best_control"]),
    ):
        auroc = report["models"].get(name, {}).get("auroc")
        if auroc:
            parts.append(f"{role} {auroc['value']:.3f}")
    return f"AUROC on {of}: {', '.join(parts)}" if parts else f"{of}, no AUROC is defined"


def _traits(cases: Sequence[LabelledCase]) -> "Traits":
    import numpy as np

    from rarealert.metrics.report import Traits

    return Traits(
        source=np.array([item.case.source for item in cases], dtype=np.str_),
        head=[item.label.orphanet_head for item in cases],
        age_years=[item.case.age_years for item in cases],
        sex=[item.case.sex for item in cases],
    )


def _ids(cases: Sequence[LabelledCase]) -> list[str]:
    return [item.case.case_id for item in cases]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _png(figure: "MplFigure") -> bytes:
    buffer = io.BytesIO()
    # Without the library's version the same figures give the same bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _json(content: Json) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def main() -> None:
    """Run the stage in the current workspace."""
    run_stage("evaluate", evaluate)
