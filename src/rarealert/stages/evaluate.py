"""Measure every model on the test part, with intervals and controls: ``rarealert evaluate``.

Reads the predictions of ``score`` and the labels. Thresholds are chosen on the validation part.
The aligned risks show which training cases the ensemble was calibrated on. Writes
``reports/evaluate/``: ``metrics.json`` (the contract), ``summary.json``, the points behind the
plots as CSV, the plots, and ``index.html``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rarealert.errors import BadInputError
from rarealert.files import sha256_of_file, write_bytes, write_json, write_text
from rarealert.params import Params
from rarealert.paths import Paths
from rarealert.splits.parts import lock_digest
from rarealert.stages.harness import run_stage
from rarealert.tracking.items import Artifact, Dataset, Figure, Item, Metric, Summary, Table
from rarealert.visits.case import LabelledCase
from rarealert.visits.store import is_rare, read_cases

if TYPE_CHECKING:
    from rarealert.evaluation.plots import Drawing
    from rarealert.evaluation.study import Study

Json = dict[str, Any]

_HEADLINE = ("auroc", "auprc", "sensitivity_at_95_specificity", "achieved_specificity", "brier")


def evaluate(params: Params, paths: Paths) -> Iterator[Item]:
    """Build the report and yield its figures for the run."""
    from rarealert.evaluation.cohort import cohort
    from rarealert.evaluation.intervals import Bootstrap
    from rarealert.evaluation.plots import draw_all
    from rarealert.evaluation.predictions import ENSEMBLE, read_predictions
    from rarealert.evaluation.report import build_report, tables
    from rarealert.evaluation.robustness import read_robustness
    from rarealert.evaluation.study import study_of
    from rarealert.evaluation.subgroups import Traits

    source = paths.build("score") / "predictions.parquet"
    frame = read_predictions(source)
    split = paths.build("split")
    cases = {part: read_cases(split / f"{part}.parquet") for part in ("train", "valid", "test")}
    study, reference = study_of(frame, cases)
    yield Dataset("predictions", source, sha256_of_file(source), len(frame), "evaluation")
    test = split / "test.parquet"
    yield Dataset("split.test", test, sha256_of_file(test), len(cases["test"]), "test")

    learnt = _share_learnt(paths.build("align") / "risk.parquet", cases["train"])
    ids = [item.case.case_id for item in cases["test"]]
    report = build_report(
        study,
        Traits.of(cases["test"]),
        replace(reference, measured_at={ENSEMBLE: learnt}),
        Bootstrap(params.evaluate.resamples, params.evaluate.confidence, params.evaluate.seed),
        lock_digest(ids),
        cohort=cohort(cases, paths.report("ingest") / "summary.json"),
        perturbed=read_robustness(paths.build("score") / "robustness.parquet", ids),
    )
    drawings = draw_all(study, report)
    folder = paths.report("evaluate")
    _write(folder, study, report, drawings)
    yield from _metrics(report)
    for drawing in drawings:
        yield Figure(drawing.name, drawing.figure)
    for name, table in tables(report).items():
        yield Table(f"{name}.json", table)
    yield Artifact(folder / "index.html")
    yield Artifact(folder / "metrics.json")
    yield Summary(_sentence(report))


def _write(folder: Path, study: "Study", report: Json, drawings: "Sequence[Drawing]") -> None:
    from rarealert.evaluation.page import render_page
    from rarealert.evaluation.plots import curve, png_of, point_tables

    write_json(folder / "metrics.json", report)
    write_json(folder / "summary.json", summary(report))
    curves = [found for name in study.risks if (found := curve(study, name))]
    for name, table in point_tables(curves).items():
        text = table.to_csv(index=False, float_format="%.6f", lineterminator="\n")
        write_text(folder / name, text)
    for drawing in drawings:
        write_bytes(folder / drawing.name, png_of(drawing.figure))
    write_text(folder / "index.html", render_page(report, drawings))


def _share_learnt(file: Path, train: Sequence[LabelledCase]) -> float:
    """Share of rare cases among the training cases that the ensemble is calibrated on.

    Raises:
        BadInputError: ``file`` is missing or damaged, or holds none of ``train``.
    """
    import pyarrow.parquet as pq

    if not file.is_file():
        raise BadInputError(f"{file} is missing; run dvc repro align.")
    try:
        columns = pq.read_table(file, columns=["case_id", "part"]).to_pydict()
        rows = zip(columns["case_id"], columns["part"], strict=True)
    except (ValueError, KeyError, OSError) as error:
        raise BadInputError(
            f"{file} is not a file of aligned risks; run dvc repro align."
        ) from error
    answered = {case_id for case_id, part in rows if part == "train"}
    rare = is_rare([item for item in train if item.case.case_id in answered])
    if not rare:
        raise BadInputError(f"{file} holds no case of the training part; run dvc repro align.")
    return sum(rare) / len(rare)


def summary(report: Json) -> Json:
    """The headline figures that ``dvc metrics show`` and ``diff`` print."""
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


def _metrics(report: Json) -> Iterator[Metric]:
    """Pooled figures as ``<model>.<metric>`` with bounds; a colon becomes a dot.

    All metrics of student, ensemble and the best of the rest; of every other model only the
    AUROC, because nobody compares hundreds of columns.
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
        yield Metric(key, estimate["value"], dataset="split.test")
        yield Metric(f"{key}.ci_low", estimate["ci_low"], dataset="split.test")
        yield Metric(f"{key}.ci_high", estimate["ci_high"], dataset="split.test")


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


def main() -> None:
    """Run the stage in the current workspace."""
    run_stage("evaluate", evaluate)
