"""``rarealert audit shortcuts``: what the cases' labels can be told by without any medicine.

Writes ``build/audit/{index.html, shortcuts.json, shortcuts.png}``: ids and case text stand in
none of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rarealert.files import write_bytes, write_json, write_text
from rarealert.params import Params, load_params
from rarealert.paths import Paths
from rarealert.stages.evaluate import read_study
from rarealert.stages.score import control_frame
from rarealert.visits.case import LabelledCase
from rarealert.visits.store import disease_groups, is_rare, read_cases

if TYPE_CHECKING:
    from rarealert.evaluation.shortcut_audit import Audit


@dataclass(frozen=True)
class AuditOutcome:
    """The audit, where its page lies, and what of the model remains (where it was scored)."""

    audit: "Audit"
    page: Path
    model: dict[str, Any] | None

    def sentence(self) -> str:
        """A table for the terminal and a verdict."""
        lines = []
        for scope, found in self.audit.aurocs.items():
            lines.append(f"AUROC of each control, {scope}")
            lines += [
                f"  {name:<13}{one.value:.3f} ({one.ci_low:.3f} to {one.ci_high:.3f}), n={one.n:,}"
                for name, one in found.items()
            ]
        lines += [f"{scope}: {why}" for scope, why in self.audit.absent.items()]
        lines += self._remaining()
        lines += [f"FLAGGED: {flag}" for flag in self.audit.flags]
        verdict = "" if self.audit.flags else "no shortcut found; "
        return "\n".join([*lines, f"{verdict}see {self.page}"])

    def _remaining(self) -> list[str]:
        strongest = self.model["strongest"] if self.model else None
        if self.model is None or strongest is None:
            return []
        return [
            f"{name}: AUROC {found[strongest]['auroc']['value']:.3f}, "
            f"{found[strongest]['within']['value']:.3f} within strata of {strongest}"
            for name, found in self.model["models"].items()
            if strongest in found
        ]


def audit_corpus(cases: Sequence[LabelledCase], params: Params, limit: float) -> "Audit":
    """The audit of ``cases``, with the intervals that ``evaluate`` asks for.

    Raises:
        BadInputError: the cases hold one label only.
    """
    from rarealert.evaluation.intervals import Bootstrap
    from rarealert.evaluation.shortcut_audit import audit_shortcuts

    settings = params.evaluate
    return audit_shortcuts(
        control_frame([item.case for item in cases]),
        is_rare(cases),
        disease_groups(cases),
        Bootstrap(settings.resamples, settings.confidence, settings.seed),
        params.score.seed,
        limit,
    )


def audit(paths: Paths, cases_file: Path | None, limit: float) -> AuditOutcome:
    """Audit ``cases_file``, or the ingested cases, and write the page.

    The model is looked at only for the ingested cases, and where ``score`` has run.

    Raises:
        BadInputError: a file is missing or damaged, or the cases hold one label only.
    """
    from rarealert.evaluation.shortcut_audit import png, render_audit_page, shortcuts_figure

    params = load_params(paths.params)
    cases = read_cases(cases_file or paths.build("ingest") / "cases.parquet")
    found = audit_corpus(cases, params, limit)
    model = _model(paths, params) if cases_file is None else None
    folder = paths.build("audit")
    content = found.as_dict() | ({"within_strata": model} if model else {})
    write_json(folder / "shortcuts.json", content)
    write_bytes(folder / "shortcuts.png", png(shortcuts_figure(found)))
    write_text(folder / "index.html", render_audit_page(found, model))
    return AuditOutcome(found, folder / "index.html", model)


def _model(paths: Paths, params: Params) -> dict[str, Any] | None:
    from rarealert.evaluation.intervals import Bootstrap
    from rarealert.evaluation.predictions import PARTS, check_predictions, read_predictions
    from rarealert.evaluation.shortcut_audit import within_strata

    file = paths.build("score") / "predictions.parquet"
    if not file.is_file():
        return None
    frame = read_predictions(file)
    cases = {part: read_cases(paths.build("split") / f"{part}.parquet") for part in PARTS}
    ids = {part: [item.case.case_id for item in of_part] for part, of_part in cases.items()}
    check_predictions(frame, ids)
    study, reference = read_study(frame, cases["valid"], cases["test"])
    settings = params.evaluate
    plan = Bootstrap(settings.resamples, settings.confidence, settings.seed)
    return within_strata(study, reference, plan)
