"""Who was studied: how rows became cases and parts, and what the cases look like (table one).

The page a reviewer reads: ``metrics.json`` as one self-contained HTML file.

Which figures the report holds, what each is called, and what a reader should see in it.

``metrics.json`` as flat tables: the same columns in every run, so that runs can be compared.
"""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from rarealert.evaluation import plots
from rarealert.evaluation import plots as plots_use
from rarealert.evaluation.measures import Study
from rarealert.evaluation.plots import PERTURBATION_TITLES, Curve, kind_of, title_of
from rarealert.evaluation.predictions import BASELINE_PREFIX, ENSEMBLE, STUDENT
from rarealert.evaluation.subgroups import BLOCKS, MIN_CELL
from rarealert.templates import environment

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

LABELS = {True: "rare", False: "nonrare"}
COLUMNS = ("part", "rare", "disease", "source", "age_years", "sex", "words")
"""What ``table_one`` needs of each case, beside ``missing_<field>`` flags."""

MISSING_PREFIX = "missing_"


def table_one(frame: "pd.DataFrame") -> dict[str, dict[str, Any]]:
    """Characteristics of the cases by part and label: ``{part: {"rare" | "nonrare": {...}}}``.

    Medians with quartiles of age (years) and length (words), counts of sex, and how many cases
    lack each field. ``frame`` has the columns ``COLUMNS`` and ``missing_<field>``.
    """
    return {
        str(part): {
            name: _described(of_part[of_part["rare"] == rare]) for rare, name in LABELS.items()
        }
        for part, of_part in frame.groupby("part", sort=False)
    }


def flow(ingest: Mapping[str, Any], frame: "pd.DataFrame") -> dict[str, Any]:
    """The participant flow: rows read, left out by reason, cases, and their parts by source.

    ``ingest`` is ``reports/ingest/summary.json``; ``frame`` is that of ``table_one``.
    """
    left_out: dict[str, int] = {}
    for of_source in ingest["sources"].values():
        for reasons in of_source["left_out"].values():
            for reason, count in reasons.items():
                named = reason.partition(": ")[2] or reason
                left_out[named] = left_out.get(named, 0) + int(count)
    parts = {
        str(part): {
            str(source): {
                name: int((of_source["rare"] == rare).sum()) for rare, name in LABELS.items()
            }
            for source, of_source in of_part.groupby("source")
        }
        for part, of_part in frame.groupby("part", sort=False)
    }
    return {
        "read": int(ingest["cases"]) + int(ingest["left_out"]),
        "left_out": dict(sorted(left_out.items(), key=lambda item: (-item[1], item[0]))),
        "cases": int(ingest["cases"]),
        "parts": parts,
    }


def _described(cases: "pd.DataFrame") -> dict[str, Any]:
    flags = sorted(name for name in cases.columns if name.startswith(MISSING_PREFIX))
    return {
        "n": len(cases),
        "diseases": int(cases["disease"].nunique()),
        "sources": {str(name): int(n) for name, n in cases["source"].value_counts().items()},
        "age_years": _quartiles(cases["age_years"]),
        "sex": {
            "female": int((cases["sex"] == "female").sum()),
            "male": int((cases["sex"] == "male").sum()),
            "unknown": int(cases["sex"].isna().sum()),
        },
        "words": _quartiles(cases["words"]),
        "missing": {name.removeprefix(MISSING_PREFIX): int(cases[name].sum()) for name in flags},
    }


def _quartiles(values: "pd.Series[float]") -> dict[str, float | int | None]:
    known = values.dropna()
    if known.empty:
        return {"q1": None, "median": None, "q3": None, "unknown": len(values)}
    q1, median, q3 = (round(float(value), 2) for value in known.quantile([0.25, 0.5, 0.75]))
    return {"q1": q1, "median": median, "q3": q3, "unknown": len(values) - len(known)}


Json = Mapping[str, Any]

_KINDS = ("student", "ensemble", "baseline", "teacher", "control")
COLUMNS_PAGE: Mapping[str, str] = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "sensitivity_at_95_specificity": "Sensitivity",
    "achieved_specificity": "Specificity",
    "brier": "Brier",
    "ece": "ECE",
    "ici": "ICI",
    "calibration_slope": "Slope",
    "observed_to_expected": "O:E",
}
"""Metrics of the table of models, with their headings."""


CONTENTS: Mapping[str, str] = {
    "flow": "Cases",
    "models": "Models and controls",
    "differences": "Differences",
    "prevalence": "Prevalence",
    "uncertainty": "Uncertainty",
    "groups": "Groups",
    "fairness": "Fairness",
    "shortcuts": "Shortcuts",
    "robustness": "Robustness",
    "limits": "Limits",
    "tripod": "TRIPOD+AI",
}
"""Anchors of the page's sections, with their names."""


@dataclass(frozen=True)
class Plot:
    """A figure of the page: PNG bytes, a title, and a sentence that says what to see in it."""

    name: str
    title: str
    caption: str
    png: bytes

    @property
    def source(self) -> str:
        """The image as a data URI, so that the page is one file."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


def ordered(models: Json) -> list[str]:
    """Student, ensemble, baselines, teachers, controls; within a kind the highest AUROC first."""

    def key(model: str) -> tuple[int, float, str]:
        reached = models[model].get("auroc", {}).get("value", 0.0)
        return _KINDS.index(kind_of(model)), -reached, model

    return sorted(models, key=key)


def conclusions(report: Json) -> list[str]:
    """What the figures allow to say of the student, one sentence each, in words of no promise."""
    sentences = []
    best = report["chosen_on_validation"]
    for other, word in (
        (ENSEMBLE, "the ensemble it was distilled from"),
        (best["best_teacher"], "the best teacher ({name}, chosen on validation)"),
        (f"{BASELINE_PREFIX}minilm", "the encoder {name} trained on the same cases"),
    ):
        found = report["comparisons"].get(f"{STUDENT} - {other}")
        if other and found:
            sentences.append(_against(found, word.format(name=other.partition(":")[2])))
    controls = {
        name: report["comparisons"].get(f"{STUDENT} - {name}") for name in report["controls"]
    }
    level = [name for name, found in controls.items() if found and found["ci_low"] <= 0]
    if level:
        names = ", ".join(title_of(name).lower() for name in sorted(level))
        sentences.append(
            f"It is not shown to do better than {names}: these figures don't rule out that it "
            "has learnt a shortcut."
        )
    elif any(controls.values()):
        sentences.append(
            f"It does better than each of the {len(controls)} negative controls; the interval of "
            "every difference lies above 0."
        )
    return sentences


def _against(found: Json, name: str) -> str:
    by = f"{abs(found['value']):.3f} ({found['ci_low']:+.3f} to {found['ci_high']:+.3f})"
    if found["ci_low"] > 0:
        return f"Its AUROC is {by} above that of {name}."
    if found["ci_high"] < 0:
        return f"Its AUROC is {by} below that of {name}."
    side = "above" if found["value"] >= 0 else "below"
    return f"Its AUROC lies {by} {side} that of {name}: no difference is shown."


def render_page(report: Json, plots: Sequence[Plot]) -> str:
    """The whole page; the same report gives the same bytes."""
    made = environment(Path(__file__).parent / "templates")
    made.filters |= {"title_of": title_of, "kind_of": kind_of}
    made.globals |= {"quartiles": _quartiles_page, "counted": _counted}
    abstention = report["uncertainty"]["abstention"].values()
    page = made.get_template("page.html.j2").render(
        report=report,
        data=report["dataset"],
        plots={plot.name: plot for plot in plots},
        columns=COLUMNS_PAGE,
        contents=CONTENTS,
        models=ordered(report["models"]),
        conclusions=conclusions(report),
        targets=sorted({row["target"] for rows in abstention for row in rows}, reverse=True),
        min_cell=MIN_CELL,
        fairness_blocks=BLOCKS,
        perturbations=PERTURBATION_TITLES,
        tripod=checklist(),
    )
    return page.rstrip() + "\n"


def checklist() -> list[dict[str, Any]]:
    """The items of TRIPOD+AI: what each asks for, whether and how it is answered, and where."""
    text = files("rarealert.evaluation").joinpath("templates", "tripod_ai.yaml").read_text("utf-8")
    items: list[dict[str, Any]] = yaml.safe_load(text)
    return items


def _quartiles_page(found: Json) -> str:
    if found["median"] is None:
        return "\u2013"
    return f"{found['median']:.3g} ({found['q1']:.3g} to {found['q3']:.3g})"


def _counted(count: int, of: int) -> str:
    return f"{count:,} ({100 * count / of:.0f} %)" if of else "\u2013"


Json_gallery = Mapping[str, Any]


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


def draw_all(study: Study, report: Json_gallery) -> list[Drawing]:
    """Every figure whose models have both labels."""
    drawn = [*_of_models(study, report), *_of_use(report)]
    return [
        Drawing(name, figure, Plot(name.removesuffix(".png"), title, caption, _png(figure)))
        for name, title, caption, figure in drawn
    ]


def _of_models(study: Study, report: Json_gallery) -> Iterator[tuple[str, str, str, "Figure"]]:
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


def _of_use(report: Json_gallery) -> Iterator[tuple[str, str, str, "Figure"]]:
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


Json_tables = Mapping[str, Any]
Row = dict[str, Any]

_KEYS = ("value", "ci_low", "ci_high")
_BLOCKS = ("by_source", "by_category", "by_age_band", "by_sex")


def tables(report: Json_tables) -> "dict[str, pd.DataFrame]":
    """Tables by name: every model, paired differences, the student by group, and in use."""
    import pandas as pd

    rows = {
        "models": _models(report),
        "comparisons": _comparisons(report),
        "subgroups": _subgroups(report),
        "prevalence": _prevalence(report),
        "robustness": _robustness(report),
    }
    return {name: frame for name, of in rows.items() if len(frame := pd.DataFrame(of))}


def _models(report: Json_tables) -> Iterator[Row]:
    for model in ordered(report["models"]):
        found = report["models"][model]
        row: Row = {"model": model, "n": found["auroc"]["n"] if "auroc" in found else None}
        for name in COLUMNS_PAGE:
            row |= _bounds(name, found.get(name))
        yield row


def _comparisons(report: Json_tables) -> Iterator[Row]:
    for pair, found in report["comparisons"].items():
        yield {
            "pair": pair,
            "n": found["n"],
            **_bounds("auroc_difference", found),
            **{name: found[name] for name in ("p_value", "p_holm", "p_delong")},
        }


def _subgroups(report: Json_tables) -> Iterator[Row]:
    for block in _BLOCKS:
        for cell, models in report[block].items():
            found = models[STUDENT]
            difference = report["subgroup_differences"].get(block, {}).get(cell)
            row: Row = {"block": block.removeprefix("by_"), "cell": cell}
            row["n"] = found["auroc"]["n"] if "auroc" in found else None
            for name in ("auroc", "sensitivity_at_95_specificity", "achieved_specificity"):
                row |= _bounds(name, found.get(name))
            row |= _bounds("auroc_difference", difference)
            yield row | {"p_holm": difference["p_holm"] if difference else None}


def _prevalence(report: Json_tables) -> Iterator[Row]:
    for model, rows in report["prevalence"].items():
        for found in rows:
            plain = {name: found[name] for name in found if name not in ("ci", "at_shifted_risk")}
            yield {"model": model, **plain}


def _robustness(report: Json_tables) -> Iterator[Row]:
    for name, found in report["robustness"].items():
        row: Row = {"perturbation": name, "n": found["n"]}
        for figure in ("mean_change", "mean_absolute_change", "changed_alerts", "auroc_change"):
            row |= _bounds(figure, found.get(figure))
        yield row


def _bounds(name: str, found: Json_tables | None) -> Row:
    """``name``, ``name.ci_low`` and ``name.ci_high``, empty where the figure is absent."""
    held = found or {}
    return {name if key == "value" else f"{name}.{key}": held.get(key) for key in _KEYS}
