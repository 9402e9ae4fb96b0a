"""The page a reviewer reads: ``metrics.json`` and the figures as one self-contained HTML file."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rarealert.evaluation.plots import PERTURBATION_TITLES, Drawing, png_of
from rarealert.evaluation.predictions import BASELINE_PREFIX, ENSEMBLE, STUDENT, kind_of, title_of
from rarealert.evaluation.report import COLUMNS, ordered
from rarealert.evaluation.subgroups import BLOCKS, MIN_CELL
from rarealert.templates import environment

Json = Mapping[str, Any]

_TEMPLATES = Path(__file__).parent / "templates"

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


def render_page(report: Json, drawings: Sequence[Drawing]) -> str:
    """The whole page; the same report gives the same bytes."""
    templates = environment(_TEMPLATES)
    templates.filters |= {"title_of": title_of, "kind_of": kind_of, "image": _image}
    templates.globals |= {"quartiles": _quartiles, "counted": _counted}
    abstention = report["uncertainty"]["abstention"].values()
    page = templates.get_template("page.html.j2").render(
        report=report,
        data=report["dataset"],
        strata=report["within_strata"],
        plots={drawing.name.removesuffix(".png"): drawing for drawing in drawings},
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


def conclusions(report: Json) -> list[str]:
    """What the figures show about the student, one sentence each, without promises."""
    sentences = []
    best = report["chosen_on_validation"]
    for other, word in (
        (ENSEMBLE, "the ensemble it was distilled from"),
        (best["best_teacher"], "the best teacher ({name}, chosen on validation)"),
        (f"{BASELINE_PREFIX}minilm", "the encoder {name} trained on the same cases"),
    ):
        found = report["comparisons"].get(f"{STUDENT} - {other}")
        if other and found:
            sentences.append(_difference(found, word.format(name=other.partition(":")[2])))
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
            "every difference is above 0."
        )
    return sentences


def _difference(found: Json, name: str) -> str:
    by = f"{abs(found['value']):.3f} ({found['ci_low']:+.3f} to {found['ci_high']:+.3f})"
    side = "above" if found["value"] >= 0 else "below"
    shown = found["ci_low"] > 0 or found["ci_high"] < 0
    return f"Its AUROC is {by} {side} that of {name}{'' if shown else ': no difference is shown'}."


def checklist() -> list[dict[str, Any]]:
    """The items of TRIPOD+AI: the question, whether and how it is answered, and where."""
    items: list[dict[str, Any]] = yaml.safe_load((_TEMPLATES / "tripod_ai.yaml").read_text("utf-8"))
    return items


def _image(drawing: Drawing) -> str:
    """The figure as a data URI, so that the page is one file."""
    return "data:image/png;base64," + base64.b64encode(png_of(drawing.figure)).decode()


def _quartiles(found: Json) -> str:
    if found["median"] is None:
        return "\u2013"
    return f"{found['median']:.3g} ({found['q1']:.3g} to {found['q3']:.3g})"


def _counted(count: int, of: int) -> str:
    return f"{count:,} ({100 * count / of:.0f} %)" if of else "\u2013"
