"""The model card: intended use, data, figures, gates and limits of a version.

Sections follow Mitchell et al., "Model Cards for Model Reporting" (FAT* 2019); the change plan
follows the FDA's guidance on predetermined change control plans (2024). ``huggingface_hub`` writes
the YAML head, so that the hub reads the figures as a model index.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rarealert.evaluation.predictions import STUDENT
from rarealert.registry.gates.gate import GateResult
from rarealert.templates import environment

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData
    from jinja2 import Template

_BLOCKS = {
    "by_source": "source",
    "by_category": "kind of rare disease",
    "by_age_band": "age",
    "by_sex": "sex",
}
"""Subgroups of the report, by their key in it."""

METRICS = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "brier": "Brier score",
    "log_loss": "Log loss",
    "ece": "Expected calibration error",
    "ici": "Integrated calibration index",
    "calibration_slope": "Calibration slope",
    "observed_to_expected": "Observed to expected",
    "sensitivity_at_95_specificity": "Sensitivity at the alert threshold",
    "achieved_specificity": "Specificity at the alert threshold",
    "net_benefit_at_5pct": "Net benefit at 5 %",
}
"""Figures of the card, by their key in the evaluation report."""


@dataclass(frozen=True)
class CardFacts:
    """Facts of the card besides the report and the gates."""

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
    """Render the card in Markdown with the hub's YAML head; equal facts give equal bytes."""
    from huggingface_hub import ModelCard

    body = _template().render(
        facts=facts,
        student=[(METRICS[key], figure) for key, figure in _figures(report, STUDENT)],
        claims=_claims(report),
        nearest=_nearest_control(report),
        subgroups=list(_subgroups(report)),
        prevalence=report.get("prevalence", {}).get(STUDENT, []),
        robustness=report.get("robustness", {}),
        interval=report.get("dataset", {}).get("interval", {}),
        gates=gates,
        simulated=set(facts.sources) == {"simulated"},
    )
    head = _head(facts, report).to_yaml()
    return str(ModelCard(f"---\n{head}\n---\n{body}"))


def _head(facts: CardFacts, report: Mapping[str, Any]) -> "ModelCardData":
    """Return the hub's metadata, with the student's figures as a model index."""
    from huggingface_hub import EvalResult, ModelCardData

    return ModelCardData(
        language="en",
        license="apache-2.0",
        library_name="mlflow",
        pipeline_tag="text-classification",
        tags=["rare-diseases", "decision-support", "primary-care"],
        base_model=facts.base_model,
        model_name=facts.name,
        eval_results=[
            EvalResult(
                task_type="text-classification",
                dataset_type="+".join(facts.sources),
                dataset_name=f"locked test part of {', '.join(facts.sources)}",
                dataset_split="test",
                dataset_revision=str(report.get("dataset", {}).get("digest", "unknown")),
                metric_type=key,
                metric_name=METRICS[key],
                metric_value=figure["value"],
                metric_args={name: figure[name] for name in ("ci_low", "ci_high", "n")},
            )
            for key, figure in _figures(report, STUDENT)
        ],
    )


def _figures(report: Mapping[str, Any], model: str) -> list[tuple[str, Mapping[str, Any]]]:
    held = report["models"].get(model, {})
    return [(key, held[key]) for key in METRICS if key in held]


def _claims(report: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return AUROC of student, ensemble, controls, baselines and teachers, each kind best first."""
    models = {name: held["auroc"] for name, held in _all_models(report).items() if "auroc" in held}
    order = ("student", "ensemble", "control:", "baseline:", "teacher:")

    def place(name: str) -> tuple[int, float, str]:
        kind = next((i for i, prefix in enumerate(order) if name.startswith(prefix)), len(order))
        return kind, -models[name]["value"], name

    return [(name, models[name]) for name in sorted(models, key=place)]


def _all_models(report: Mapping[str, Any]) -> dict[str, Any]:
    return {**report.get("controls", {}), **report["models"]}


def _nearest_control(report: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    """Return the control nearest to the student by AUROC, with the paired difference."""
    held = report.get("comparisons", {})
    found = [
        (name, held[f"{STUDENT} - {name}"])
        for name in report.get("controls", {})
        if f"{STUDENT} - {name}" in held
    ]
    return min(found, key=lambda pair: (pair[1]["ci_low"], pair[0]), default=None)


def _subgroups(report: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield block, group and the student's figures in it, where it has an AUROC."""
    for block, shown in _BLOCKS.items():
        for group, models in sorted(report.get(block, {}).items()):
            found = models.get(STUDENT, {})
            if "auroc" in found:
                yield shown, group, found


@cache
def _template() -> "Template":
    made = environment(Path(__file__).parent / "templates")
    made.filters |= {"interval": _interval, "short": _short}
    return made.get_template("card.md.j2")


def _interval(figure: Mapping[str, Any]) -> str:
    low, high = figure["ci_low"], figure["ci_high"]
    return f"{figure['value']:.3f} | {low:.3f} to {high:.3f} | {figure['n']}"


def _short(figure: Mapping[str, Any] | None) -> str:
    """Return value and interval for one cell of a table."""
    if not figure:
        return "\u2013"
    return f"{figure['value']:.3f} ({figure['ci_low']:.3f} to {figure['ci_high']:.3f})"
