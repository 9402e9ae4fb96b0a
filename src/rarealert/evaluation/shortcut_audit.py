"""The shortcut audit of a corpus: whether style alone predicts the labels.

It needs no model: every control predicts cases of diseases it was not fitted on, pooled and within
each source. A corpus in which a control succeeds rewards a model for recognising style. Where
``score`` has run, the page also shows what remains of the models' AUROC within strata of each
control.

Command: ``rarealert audit shortcuts``. Writes ``build/audit/``: ``index.html``, ``shortcuts.json``
and ``shortcuts.png``, without case ids and case text.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rarealert.errors import BadInputError
from rarealert.evaluation.controls import CONTROLS, WORDS, control_frame, fit_controls
from rarealert.evaluation.intervals import (
    Bootstrap,
    Estimate,
    ResampleTask,
    bootstrap_p_value,
    draw,
    holm,
)
from rarealert.evaluation.metrics import FloatArray, IntArray, auroc_of
from rarealert.evaluation.plots import png_of
from rarealert.evaluation.predictions import CONTROL_PREFIX, read_predictions, title_of
from rarealert.evaluation.report import plain
from rarealert.evaluation.strata import within_strata
from rarealert.evaluation.study import study_of
from rarealert.files import write_bytes, write_json, write_text
from rarealert.params import Params, load_params
from rarealert.paths import Paths
from rarealert.templates import environment
from rarealert.visits.case import LabelledCase
from rarealert.visits.store import disease_groups, is_rare, read_cases

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

POOLED = "all sources"
LIMIT = 0.6  # AUROC; a control without medicine above it makes a corpus unsafe to learn from
FOLDS = 5  # of whole diseases; each control is fitted on four fifths of them
_MIN_DISEASES = 2  # of a label; one can't be in both the fitted and the predicted part
_SIGNIFICANT = 0.05  # Holm-adjusted p-value below which an AUROC is above chance
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "osD^vP"


@dataclass(frozen=True)
class Audit:
    """AUROC of every control by scope (``POOLED`` or a source), and the faults of the corpus.

    ``flags`` is empty where there are none; ``absent`` maps a scope to the reason why it has no
    figures.
    """

    aurocs: Mapping[str, Mapping[str, Estimate]]
    absent: Mapping[str, str]
    flags: tuple[str, ...]
    limit: float

    def strongest(self, scope: str = POOLED) -> str | None:
        """The control with the highest AUROC in ``scope`` among those that use no words."""
        found = self.aurocs.get(scope, {})
        wordless = [name for name in found if name != WORDS]
        return max(wordless, key=lambda name: (found[name].value, name), default=None)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``shortcuts.json``, rounded to six decimals."""
        content = {name: getattr(self, name) for name in ("limit", "flags", "absent", "aurocs")}
        return {**plain(content), "strongest": self.strongest()}


@dataclass(frozen=True)
class AuditOutcome:
    """The audit, its page, and what remains of the models (``None`` where none was scored)."""

    audit: Audit
    page: Path
    remaining: dict[str, Any] | None

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
        strongest = self.remaining["strongest"] if self.remaining else None
        if self.remaining and strongest:
            lines += [
                f"{name}: AUROC {found[strongest]['auroc']['value']:.3f}, "
                f"{found[strongest]['within']['value']:.3f} within strata of {strongest}"
                for name, found in self.remaining["models"].items()
                if strongest in found
            ]
        lines += [f"FLAGGED: {flag}" for flag in self.audit.flags]
        verdict = "" if self.audit.flags else "no shortcut found; "
        return "\n".join([*lines, f"{verdict}see {self.page}"])


def audit(paths: Paths, cases_file: Path | None, limit: float) -> AuditOutcome:
    """Audit ``cases_file``, or the ingested cases, and write the page.

    The models are included only for the ingested cases, and where ``score`` has run.

    Raises:
        BadInputError: a file is missing or damaged, or the cases hold one label only.
    """
    params = load_params(paths.params)
    found = audit_corpus(
        read_cases(cases_file or paths.build("ingest") / "cases.parquet"), params, limit
    )
    remaining = _remaining(paths, _plan(params)) if cases_file is None else None
    folder = paths.build("audit")
    content = found.as_dict() | ({"within_strata": remaining} if remaining else {})
    write_json(folder / "shortcuts.json", content)
    write_bytes(folder / "shortcuts.png", png_of(shortcuts_figure(found)))
    write_text(folder / "index.html", render_audit_page(found, remaining))
    return AuditOutcome(found, folder / "index.html", remaining)


def audit_corpus(cases: Sequence[LabelledCase], params: Params, limit: float) -> Audit:
    """Audit ``cases`` with the resamples and the confidence of ``evaluate``.

    Raises:
        BadInputError: the cases hold one label only.
    """
    frame = control_frame([item.case for item in cases])
    labels, diseases = is_rare(cases), disease_groups(cases)
    return audit_shortcuts(frame, labels, diseases, _plan(params), params.score.seed, limit)


def _plan(params: Params) -> Bootstrap:
    settings = params.evaluate
    return Bootstrap(settings.resamples, settings.confidence, settings.seed)


def _remaining(paths: Paths, plan: Bootstrap) -> dict[str, Any] | None:
    file = paths.build("score") / "predictions.parquet"
    if not file.is_file():
        return None
    split = paths.build("split")
    cases = {part: read_cases(split / f"{part}.parquet") for part in ("valid", "test")}
    found: dict[str, Any] = plain(within_strata(*study_of(read_predictions(file), cases), plan))
    return found


def audit_shortcuts(
    frame: "pd.DataFrame",
    labels: Sequence[bool],
    diseases: Sequence[str],
    plan: Bootstrap,
    seed: int,
    limit: float = LIMIT,
) -> Audit:
    """Audit a corpus: one row a case in ``frame``, as ``control_frame`` makes it.

    ``labels`` and ``diseases`` have shape ``(n,)``. A control other than the words is flagged
    where its AUROC exceeds ``limit`` and is above chance after Holm's correction for all controls
    and scopes; so is a source whose cases all have one label beside other sources.

    Raises:
        BadInputError: the corpus holds one label only.
    """
    truth = np.asarray(labels, dtype=np.float64)
    clusters = np.asarray(diseases, dtype=np.str_)
    if np.unique(truth).size < 2:
        raise BadInputError("The corpus holds one label only; an audit needs rare and non-rare.")
    scopes = _scopes(frame)
    absent = {
        scope: few
        for scope, index in scopes.items()
        if (few := _too_few(truth[index], clusters[index]))
    }
    judged = {scope: index for scope, index in scopes.items() if scope not in absent}
    plan = plan.for_tests(len(judged) * len(set(CONTROLS) - {WORDS}))
    aurocs: dict[str, dict[str, Estimate]] = {}
    p_values: dict[str, float] = {}
    for scope, index in judged.items():
        risks = out_of_fold(frame.iloc[index], truth[index], clusters[index], seed)
        aurocs[scope], found = _measured(risks, truth[index], clusters[index], plan)
        p_values |= {f"{name} {scope}": value for name, value in found.items() if name != WORDS}
    adjusted = holm(p_values)
    predicted = [
        f"{name} alone reaches AUROC {found.value:.2f} in {scope}"
        for scope, by_name in aurocs.items()
        for name, found in by_name.items()
        if found.value > limit and adjusted.get(f"{name} {scope}", 1.0) < _SIGNIFICANT
    ]
    return Audit(aurocs, absent, (*_one_sided(scopes, truth), *predicted), limit)


def _scopes(frame: "pd.DataFrame") -> dict[str, IntArray]:
    """The rows of all cases together and, where there are several, of each source."""
    named = frame["source"].to_numpy(dtype=np.str_)
    sources = sorted(set(named.tolist()))
    by_source = {source: np.flatnonzero(named == source) for source in sources}
    return {POOLED: np.arange(named.size), **(by_source if len(sources) > 1 else {})}


def out_of_fold(
    frame: "pd.DataFrame", labels: FloatArray, clusters: NDArray[np.str_], seed: int
) -> dict[str, FloatArray]:
    """Risk of each case by every control fitted on other diseases: ``{control: (n,)}``."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = min(FOLDS, *_diseases_per_label(labels, clusters))
    risks = {name: np.full(labels.size, np.nan) for name in CONTROLS}
    plan = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    for fit, held in plan.split(frame, labels, clusters):
        fitted = fit_controls(frame.iloc[fit], labels[fit], seed)
        for name, control in fitted.items():
            risks[name][held] = control.predict(frame.iloc[held])
    return risks


def _diseases_per_label(labels: FloatArray, clusters: NDArray[np.str_]) -> tuple[int, int]:
    nonrare, rare = (np.unique(clusters[labels == label]).size for label in (0, 1))
    return nonrare, rare


def _too_few(labels: FloatArray, clusters: NDArray[np.str_]) -> str | None:
    """Why controls can't be fitted on some diseases and predict others; ``None`` if they can."""
    for word, diseases in zip(
        ("non-rare", "rare"), _diseases_per_label(labels, clusters), strict=True
    ):
        if diseases < _MIN_DISEASES:
            return f"fewer than {_MIN_DISEASES} {word} diseases"
    return None


def _measured(
    risks: Mapping[str, FloatArray], labels: FloatArray, clusters: NDArray[np.str_], plan: Bootstrap
) -> tuple[dict[str, Estimate], dict[str, float]]:
    """AUROC of every control with its interval, and the p-value that it is chance."""
    index = np.arange(labels.size)
    jobs = {
        name: ResampleTask(name, index, labels, risk, {"auroc": auroc_of})
        for name, risk in risks.items()
    }
    estimates: dict[str, Estimate] = {}
    p_values: dict[str, float] = {}
    for name, drawn in draw(jobs, clusters, plan).items():
        estimate = jobs[name].estimates(drawn, plan)["auroc"]
        if estimate is not None:
            estimates[name] = estimate
            p_values[name] = bootstrap_p_value(drawn["auroc"] - 0.5)
    return estimates, p_values


def _one_sided(scopes: Mapping[str, IntArray], labels: FloatArray) -> list[str]:
    return [
        f"every case of {scope} is {'rare' if labels[index].all() else 'non-rare'}, "
        "so the source gives the label away"
        for scope, index in scopes.items()
        if np.unique(labels[index]).size == 1
    ]


def shortcuts_figure(audit: Audit) -> "Figure":
    """AUROC with interval of every control, one mark a scope, with chance and the limit."""
    from matplotlib.figure import Figure

    scopes = list(audit.aurocs)
    step = 0.7 / max(len(scopes), 1)
    figure = Figure(figsize=(6.4, 1.2 + 0.42 * len(CONTROLS)), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    for number, scope in enumerate(scopes):
        colour = _COLOURS[number % len(_COLOURS)]
        marker = _MARKERS[number % len(_MARKERS)]
        for place, name in enumerate(CONTROLS):
            found = audit.aurocs[scope].get(name)
            if found is None:
                continue
            at = place + (number - (len(scopes) - 1) / 2) * step
            axes.plot([found.ci_low, found.ci_high], [at, at], color=colour, linewidth=1.8)
            axes.plot(found.value, at, marker=marker, color=colour, markersize=5)
        axes.plot([], [], marker=marker, color=colour, label=scope)
    axes.axvline(0.5, color="#999999", linewidth=1)
    axes.axvline(audit.limit, color="#333333", linewidth=1, linestyle=":")
    titles = [title_of(f"{CONTROL_PREFIX}{name}") for name in CONTROLS]
    axes.set_yticks(range(len(CONTROLS)), titles)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set(xlabel="AUROC on unseen diseases (0.5 is chance; dotted: the limit)", xlim=(0.3, 1.01))
    if scopes:
        axes.legend(frameon=False, fontsize=8.5, loc="lower right")
    return figure


def render_audit_page(audit: Audit, remaining: Mapping[str, Any] | None) -> str:
    """The page; ``remaining`` is the plain result of ``within_strata`` where models were scored."""
    templates = environment(Path(__file__).parent / "templates")
    templates.filters["title_of"] = title_of
    picture = base64.b64encode(png_of(shortcuts_figure(audit))).decode()
    page = templates.get_template("audit.html.j2").render(
        audit=audit,
        controls=CONTROLS,
        prefix=CONTROL_PREFIX,
        strata=remaining,
        plot=f"data:image/png;base64,{picture}",
    )
    return page.rstrip() + "\n"
