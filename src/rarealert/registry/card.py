"""The model card: what the student is for, what it reached, and what it must not be used for.

Sections follow Mitchell et al., "Model Cards for Model Reporting" (FAT* 2019), with the YAML
head that the Hugging Face hub reads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rarealert.registry.gates.gate import GateResult

if TYPE_CHECKING:
    from jinja2 import Template

METRICS = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "brier": "Brier score",
    "ece": "Expected calibration error",
    "calibration_slope": "Calibration slope",
    "sensitivity_at_95_specificity": "Sensitivity at 95 % specificity",
    "net_benefit_at_5pct": "Net benefit at 5 %",
}
"""Figures of the card, by their key in the evaluation report."""


@dataclass(frozen=True)
class CardFacts:
    """What the card states beside the report and the gates."""

    name: str
    version: str
    base_model: str
    identity: Mapping[str, str]
    renderer_version: str
    commit: str
    sources: Sequence[str]
    cases: Mapping[str, int]
    """Part → number of cases."""
    calibration_prevalence: float


def render_card(facts: CardFacts, report: Mapping[str, Any], gates: Sequence[GateResult]) -> str:
    """The card in Markdown; the same facts give the same bytes."""
    return _template().render(
        facts=facts,
        student=[(METRICS[key], figure) for key, figure in _figures(report, "student")],
        claims=_claims(report),
        by_source=_by_source(report),
        gates=gates,
        simulated=set(facts.sources) == {"simulated"},
    )


def _figures(report: Mapping[str, Any], model: str) -> list[tuple[str, Mapping[str, Any]]]:
    held = report["models"].get(model, {})
    return [(key, held[key]) for key in METRICS if key in held]


def _claims(report: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """AUROC of student, ensemble, every control, then the teachers, the best first."""
    models = {name: held["auroc"] for name, held in _all_models(report).items() if "auroc" in held}
    order = ("student", "ensemble", "control:", "baseline:", "teacher:")

    def place(name: str) -> tuple[int, float, str]:
        kind = next((i for i, prefix in enumerate(order) if name.startswith(prefix)), len(order))
        return kind, -models[name]["value"], name

    return [(name, models[name]) for name in sorted(models, key=place)]


def _all_models(report: Mapping[str, Any]) -> dict[str, Any]:
    return {**report.get("controls", {}), **report["models"]}


def _by_source(report: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    found = report.get("by_source", {})
    held = {name: models.get("student", {}).get("auroc") for name, models in found.items()}
    return [(name, figure) for name, figure in sorted(held.items()) if figure]


@cache
def _template() -> "Template":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # Markdown, not HTML: escaping would garble names, and nothing here stems from a request.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701
    )
    environment.filters["interval"] = _interval
    return environment.get_template("card.md.j2")


def _interval(figure: Mapping[str, Any]) -> str:
    low, high = figure["ci_low"], figure["ci_high"]
    return f"{figure['value']:.3f} | {low:.3f} to {high:.3f} | {figure['n']}"
