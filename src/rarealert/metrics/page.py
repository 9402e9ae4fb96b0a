"""The page a reviewer reads: ``metrics.json`` as one self-contained HTML file."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from rarealert.metrics.fairness import BLOCKS
from rarealert.metrics.plots import kind_of, title_of
from rarealert.metrics.plots_use import PERTURBATION_TITLES
from rarealert.metrics.predictions import BASELINE_PREFIX, ENSEMBLE, STUDENT
from rarealert.metrics.subgroups import MIN_CELL
from rarealert.templates import environment

Json = Mapping[str, Any]

_KINDS = ("student", "ensemble", "baseline", "teacher", "control")
COLUMNS: Mapping[str, str] = {
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
    made.globals |= {"quartiles": _quartiles, "counted": _counted}
    abstention = report["uncertainty"]["abstention"].values()
    page = made.get_template("page.html.j2").render(
        report=report,
        data=report["dataset"],
        plots={plot.name: plot for plot in plots},
        columns=COLUMNS,
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
    text = files("rarealert.metrics").joinpath("templates", "tripod_ai.yaml").read_text("utf-8")
    items: list[dict[str, Any]] = yaml.safe_load(text)
    return items


def _quartiles(found: Json) -> str:
    if found["median"] is None:
        return "\u2013"
    return f"{found['median']:.3g} ({found['q1']:.3g} to {found['q3']:.3g})"


def _counted(count: int, of: int) -> str:
    return f"{count:,} ({100 * count / of:.0f} %)" if of else "\u2013"
