"""Measure every model on the test part, with intervals and controls: ``rarealert evaluate``.

Reads the predictions of ``score`` and the labels; thresholds come from the validation part, the
training part is only counted, and its aligned risks tell which cases the ensemble learnt from.
Writes ``reports/evaluate/``: ``metrics.json`` (the contract), ``summary.json``, the points behind
the plots as CSV, the plots, and ``index.html``.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
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
from rarealert.visits.case import TEXT_FIELDS, LabelledCase
from rarealert.visits.reading import render
from rarealert.visits.store import disease_groups, is_rare, read_cases

if TYPE_CHECKING:
    import pandas as pd

    from rarealert.evaluation.page import Drawing
    from rarealert.evaluation.plots import Curve
    from rarealert.evaluation.report import Cohort, Reference, Study, Traits

Json = dict[str, Any]

_HEADLINE = ("auroc", "auprc", "sensitivity_at_95_specificity", "achieved_specificity", "brier")


def evaluate(params: Params, paths: Paths) -> Iterator[Item]:
    """Build the report and hand its figures to the run."""
    from rarealert.evaluation.intervals import Bootstrap
    from rarealert.evaluation.page import draw_all, tables
    from rarealert.evaluation.predictions import (
        ENSEMBLE,
        PARTS,
        check_predictions,
        read_predictions,
    )
    from rarealert.evaluation.report import build_report
    from rarealert.evaluation.robustness import read_robustness
    from rarealert.evaluation.shortcut_audit import within_strata

    source = paths.build("score") / "predictions.parquet"
    frame = read_predictions(source)
    split = paths.build("split")
    cases = {part: read_cases(split / f"{part}.parquet") for part in ("train", *PARTS)}
    check_predictions(frame, {part: _ids(cases[part]) for part in PARTS})
    yield Dataset("predictions", source, sha256_of_file(source), len(frame), "evaluation")
    test = split / "test.parquet"
    yield Dataset("split.test", test, sha256_of_file(test), len(cases["test"]), "test")

    plan = Bootstrap(params.evaluate.resamples, params.evaluate.confidence, params.evaluate.seed)
    study, reference = read_study(frame, cases["valid"], cases["test"])
    learnt = _share_learnt(paths.build("align") / "risk.parquet", cases["train"])
    reference = replace(reference, measured_at={ENSEMBLE: learnt})
    ids = _ids(cases["test"])
    report = build_report(
        study,
        _traits(cases["test"]),
        reference,
        plan,
        lock_digest(ids),
        cohort=_cohort(cases, paths.report("ingest") / "summary.json"),
        retold=read_robustness(paths.build("score") / "robustness.parquet", ids),
    )
    report["within_strata"] = within_strata(study, reference, plan)
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
    from rarealert.evaluation.page import curve, render_page

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "metrics.json", report)
    write_json(folder / "summary.json", summary(report))
    _write_points(folder, [found for name in study.risks if (found := curve(study, name))])
    for drawing in drawings:
        write_bytes(folder / drawing.name, drawing.plot.png)
    write_text(folder / "index.html", render_page(report, [each.plot for each in drawings]))


def read_study(
    frame: "pd.DataFrame", valid: Sequence[LabelledCase], test: Sequence[LabelledCase]
) -> tuple["Study", "Reference"]:
    """Predictions laid out by case: the test part to measure, the validation part to choose on."""
    import numpy as np

    from rarealert.evaluation.report import Reference, Study

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
    rare = [kept for kept, item in zip(is_rare(train), train, strict=True)
            if item.case.case_id in answered]  # fmt: skip
    if not rare:
        raise BadInputError(f"{file} holds no case of the training part; run dvc repro align.")
    return sum(rare) / len(rare)


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


def _write_points(folder: Path, curves: Sequence["Curve"]) -> None:
    import pandas as pd

    from rarealert.evaluation.plots import calibration_rows, roc_rows

    tables = {
        "roc.csv": pd.DataFrame(roc_rows(curves), columns=["model", "fpr", "tpr"]),
        "calibration.csv": pd.DataFrame(
            calibration_rows(curves), columns=["model", "predicted", "observed", "cases"]
        ),
    }
    for name, table in tables.items():
        text = table.to_csv(index=False, float_format="%.6f", lineterminator="\n")
        write_text(folder / name, text)


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


def _traits(cases: Sequence[LabelledCase]) -> "Traits":
    import numpy as np

    from rarealert.evaluation.report import Traits

    return Traits(
        source=np.array([item.case.source for item in cases], dtype=np.str_),
        head=[item.label.orphanet_head for item in cases],
        age_years=[item.case.age_years for item in cases],
        sex=[item.case.sex for item in cases],
    )


def _cohort(cases: Mapping[str, Sequence[LabelledCase]], ingest: Path) -> "Cohort":
    import pandas as pd

    from rarealert.evaluation.page import MISSING_PREFIX, flow, table_one
    from rarealert.evaluation.report import Cohort

    rows = [
        {
            "part": part,
            "rare": item.label.label == "rare",
            "disease": item.label.disease_id,
            "source": item.case.source,
            "age_years": item.case.age_years,
            "sex": item.case.sex,
            "words": len(render(item.case).split()),
            **{f"{MISSING_PREFIX}{name}": getattr(item.case, name) is None for name in TEXT_FIELDS},
        }
        for part, of_part in cases.items()
        for item in of_part
    ]
    frame = pd.DataFrame(rows).astype({"age_years": float, "words": float})
    try:
        read = json.loads(ingest.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInputError(f"{ingest} can't be read; run dvc repro ingest.") from error
    return Cohort(flow(read, frame), table_one(frame))


def _ids(cases: Sequence[LabelledCase]) -> list[str]:
    return [item.case.case_id for item in cases]


def main() -> None:
    """Run the stage in the current workspace."""
    run_stage("evaluate", evaluate)
