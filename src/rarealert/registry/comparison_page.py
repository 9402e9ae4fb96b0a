"""The comparison for readers: one HTML page and one Markdown text from the same facts."""

import base64
import io
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rarealert.metrics.calibration import calibration_points
from rarealert.registry.comparison import METRICS, Side, TestPart
from rarealert.templates import environment

if TYPE_CHECKING:
    from jinja2 import Environment

_BINS = 10
_STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#0072B2", "linestyle": "--", "marker": "s"},
    {"color": "#D55E00", "linestyle": "-", "marker": "o"},
)
_KINDS = {"head": "Orphanet head", "source": "Source", "age": "Age", "sex": "Sex"}


def page(found: Mapping[str, Any], plot: bytes) -> str:
    """A page that needs nothing beside itself; ``plot`` is a PNG."""
    picture = base64.b64encode(plot).decode()
    return (
        _environment()
        .get_template("compare.html.j2")
        .render(found=found, plot=picture, names=METRICS, kinds=_KINDS)
    )


def markdown(found: Mapping[str, Any]) -> str:
    """The same in Markdown, short enough for a comment on a pull request."""
    return (
        _environment()
        .get_template("compare.md.j2")
        .render(found=found, names=METRICS, kinds=_KINDS)
    )


def calibration_overlay(one: Side, other: Side, part: TestPart) -> bytes:
    """PNG: observed share of rare cases against the mean risk of ten equally full bins."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1, label="ideal")
    ids = sorted(part.rare.keys() & one.risks.keys() & other.risks.keys())
    labels = np.array([float(part.rare[key]) for key in ids])
    for letter, side, style in zip("AB", (one, other), _STYLES, strict=True):
        risks = np.array([side.risks[key] for key in ids], dtype=np.float64)
        points = calibration_points(labels, risks, _BINS)
        name = f"{letter}: {side.label}"
        axes.plot(points[:, 0], points[:, 1], label=name, markersize=5, **style)
    axes.set(xlabel="Mean predicted risk", ylabel="Observed share of rare disease")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.legend(loc="upper left", frameon=False, fontsize=9)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
    return stream.getvalue()


@cache
def _environment() -> "Environment":
    made = environment(Path(__file__).parent / "templates")
    made.filters["interval"] = _interval
    made.filters["signed"] = _signed
    made.filters["p"] = _p
    made.filters["cost"] = _cost
    return made


def _interval(figure: Mapping[str, Any]) -> str:
    return f"{figure['value']:.3f} ({figure['ci_low']:.3f} to {figure['ci_high']:.3f})"


def _signed(figure: Mapping[str, Any]) -> str:
    return f"{figure['value']:+.3f} ({figure['ci_low']:+.3f} to {figure['ci_high']:+.3f})"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _cost(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
