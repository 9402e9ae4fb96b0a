"""The shortcut audit of a corpus: what labels can be told by without any medicine.

It needs no model: every control predicts cases of diseases it was not fitted on, pooled and within
each source. A corpus in which one of them succeeds rewards a model for reading style.

The shortcut audit as a plot and a page, readable in print and without colour vision.

How much of a model's AUROC remains among cases that a shortcut can't tell apart.

A model that only follows a shortcut ranks cases no better than chance once the shortcut is held
fixed. Pairs of a rare and a non-rare case are therefore compared within strata of the shortcut's
score alone (van Elteren 1960; the covariate-adjusted AUROC of Janes and Pepe, Biometrika 96:371,
2009, with strata weighted by their pairs).
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rarealert.errors import BadInputError
from rarealert.evaluation.controls import CONTROLS, WORDS, fit_controls
from rarealert.evaluation.discrimination import (
    FloatArray,
    IntArray,
    Ranking,
    RiskCounts,
    UndefinedMetricError,
    auroc,
    auroc_of,
    ratio,
)
from rarealert.evaluation.intervals import (
    Bootstrap,
    CountsMetric,
    Job,
    bootstrap_p_value,
    draw,
    holm,
)
from rarealert.evaluation.measures import Estimate, Study
from rarealert.evaluation.plots import title_of
from rarealert.evaluation.predictions import CONTROL_PREFIX, ENSEMBLE, STUDENT
from rarealert.evaluation.report import Reference
from rarealert.templates import environment

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

POOLED = "all sources"
LIMIT = 0.6  # AUROC; above it a control that sees no medicine tells too much
_FOLDS = 5  # of whole diseases; each control is fitted on four fifths of them
_MIN_DISEASES = 2  # of a label; one can't be both fitted on and tried
_SIGNIFICANT = 0.05  # Holm-adjusted p-value below which an AUROC is no chance
_DIGITS = 6


@dataclass(frozen=True)
class Audit:
    """AUROC of every control by scope (``POOLED`` or a source), and what is wrong with the corpus.

    ``flags`` is empty where nothing is; ``absent`` says by scope why it has no figures.
    """

    aurocs: Mapping[str, Mapping[str, Estimate]]
    absent: Mapping[str, str]
    flags: tuple[str, ...]
    limit: float

    def strongest(self, scope: str = POOLED) -> str | None:
        """The control with the highest AUROC in ``scope`` among those that see no medicine."""
        found = self.aurocs.get(scope, {})
        plain = [name for name in found if name != WORDS]
        return max(plain, key=lambda name: (found[name].value, name), default=None)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``shortcuts.json``, rounded to six decimals."""
        return {
            "limit": self.limit,
            "flags": list(self.flags),
            "absent": dict(self.absent),
            "strongest": self.strongest(),
            "aurocs": {
                scope: {
                    name: {
                        key: round(value, _DIGITS) if isinstance(value, float) else value
                        for key, value in asdict(estimate).items()
                    }
                    for name, estimate in found.items()
                }
                for scope, found in self.aurocs.items()
            },
        }


def audit_shortcuts(
    frame: "pd.DataFrame",
    labels: Sequence[bool],
    diseases: Sequence[str],
    plan: Bootstrap,
    seed: int,
    limit: float = LIMIT,
) -> Audit:
    """Audit a corpus: one row a case in ``frame``, as ``fit_controls`` wants it.

    ``labels`` and ``diseases`` have shape ``(n,)``. A control other than the words is flagged
    where its AUROC exceeds ``limit`` and is above chance after Holm's correction for all controls
    and scopes; so is a source whose cases all have one label beside other sources.

    Raises:
        BadInputError: a column is missing, or the corpus holds one label only.
    """
    truth = np.asarray(labels, dtype=np.float64)
    clusters = np.asarray(diseases, dtype=np.str_)
    if np.unique(truth).size < 2:
        raise BadInputError("The corpus holds one label only; an audit needs rare and non-rare.")
    named = frame["source"].to_numpy(dtype=np.str_)
    sources = sorted(set(named.tolist()))
    scopes = {POOLED: np.arange(truth.size)}
    if len(sources) > 1:
        scopes |= {source: np.flatnonzero(named == source) for source in sources}
    aurocs: dict[str, dict[str, Estimate]] = {}
    absent: dict[str, str] = {}
    chances: dict[tuple[str, str], float] = {}
    for scope, index in scopes.items():
        few = _too_few(truth[index], clusters[index])
        if few:
            absent[scope] = few
    judged = {scope: index for scope, index in scopes.items() if scope not in absent}
    plan = plan.for_tests(len(judged) * len(set(CONTROLS) - {WORDS}))
    for scope, index in judged.items():
        risks = out_of_fold(frame.iloc[index], truth[index], clusters[index], seed)
        aurocs[scope], p_values = _measured(risks, truth[index], clusters[index], plan)
        chances |= {(scope, name): value for name, value in p_values.items() if name != WORDS}
    flags = (*_one_sided(scopes, truth), *_told(aurocs, chances, limit))
    return Audit(aurocs, absent, flags, limit)


def out_of_fold(
    frame: "pd.DataFrame", labels: FloatArray, clusters: NDArray[np.str_], seed: int
) -> dict[str, FloatArray]:
    """Risk of each case by every control fitted on other diseases: ``{control: (n,)}``."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = min(_FOLDS, *_diseases_per_label(labels, clusters))
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
    """Why no control can be fitted on some diseases and tried on others, if it can't."""
    for word, diseases in zip(
        ("non-rare", "rare"), _diseases_per_label(labels, clusters), strict=True
    ):
        if diseases < _MIN_DISEASES:
            return f"fewer than {_MIN_DISEASES} {word} diseases"
    return None


def _measured(
    risks: Mapping[str, FloatArray],
    labels: FloatArray,
    clusters: NDArray[np.str_],
    plan: Bootstrap,
) -> tuple[dict[str, Estimate], dict[str, float]]:
    """AUROC of every control with its interval, and the p-value that it is chance."""
    index = np.arange(labels.size)
    jobs = {name: Job(name, index, labels, risk, {"auroc": auroc_of})
            for name, risk in risks.items()}  # fmt: skip
    estimates: dict[str, Estimate] = {}
    p_values: dict[str, float] = {}
    for name, drawn in draw(jobs, clusters, plan).items():
        value = auroc(labels, risks[name])
        interval = plan.interval(value, drawn["auroc"])
        if interval is not None:
            estimates[name] = Estimate(value, *interval, n=labels.size)
            p_values[name] = bootstrap_p_value(drawn["auroc"] - 0.5)
    return estimates, p_values


def _one_sided(scopes: Mapping[str, IntArray], labels: FloatArray) -> list[str]:
    return [
        f"every case of {scope} is {'rare' if labels[index].all() else 'non-rare'}, "
        "so the source gives the label away"
        for scope, index in scopes.items()
        if np.unique(labels[index]).size == 1
    ]


def _told(
    aurocs: Mapping[str, Mapping[str, Estimate]],
    chances: Mapping[tuple[str, str], float],
    limit: float,
) -> list[str]:
    named = {f"{scope}\n{name}": value for (scope, name), value in chances.items()}
    adjusted = holm(named)
    return [
        f"{name} alone reaches AUROC {aurocs[scope][name].value:.2f} in {scope}"
        for scope, name in chances
        if aurocs[scope][name].value > limit and adjusted[f"{scope}\n{name}"] < _SIGNIFICANT
    ]


_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "osD^vP"


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
    axes.set_yticks(range(len(CONTROLS)), [title_of(f"{CONTROL_PREFIX}{name}")
                                           for name in CONTROLS])  # fmt: skip
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set(xlabel="AUROC on unseen diseases (0.5 is chance; dotted: the limit)", xlim=(0.3, 1.01))
    if scopes:
        axes.legend(frameon=False, fontsize=8.5, loc="lower right")
    return figure


def render_audit_page(audit: Audit, model: Mapping[str, Any] | None) -> str:
    """The page; ``model`` is the result of ``within_strata`` where predictions exist."""
    made = environment(Path(__file__).parent / "templates")
    made.filters["title_of"] = title_of
    page = made.get_template("audit.html.j2").render(
        audit=audit,
        controls=CONTROLS,
        prefix=CONTROL_PREFIX,
        words=WORDS,
        pooled=POOLED,
        model=model,
        plot="data:image/png;base64," + base64.b64encode(png(shortcuts_figure(audit))).decode(),
    )
    return page.rstrip() + "\n"


def png(figure: "Figure") -> bytes:
    """The figure as PNG without the library's version, so that the same figures are one file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


STRATA = 5  # fifths of the shortcut's score: Cochran 1968 found they remove 90 % of confounding
_WORDS = f"{CONTROL_PREFIX}tfidf"  # reads words, some of which are medicine
_DIGITS_STRATA = 6

Json = dict[str, Any]


@dataclass(frozen=True)
class Remaining:
    """A model's AUROC over all pairs and within strata of a shortcut, on the same ``n`` cases.

    ``kept`` is the share of the AUROC above chance that remains, ``(within - 0.5) / (auroc -
    0.5)``; ``None`` where the AUROC itself is not above chance. ``pairs_share``, 0-1, is the
    share of rare-non-rare pairs that lie within a stratum.
    """

    strata: int
    pairs_share: float
    auroc: Estimate
    within: Estimate
    kept: float | None


def strata_of(scores: ArrayLike) -> IntArray:
    """The stratum of each case, shape ``(n,)``: one per distinct score, at most fifths."""
    score = np.asarray(scores, dtype=np.float64)
    distinct, places = np.unique(score, return_inverse=True)
    if distinct.size <= STRATA:
        return np.asarray(places, dtype=np.intp).reshape(-1)
    edges = np.quantile(score, np.arange(1, STRATA) / STRATA)
    return np.unique(np.searchsorted(edges, score, side="left"), return_inverse=True)[1]


def remaining(
    labels: ArrayLike,
    risks: ArrayLike,
    scores: ArrayLike,
    clusters: NDArray[np.str_],
    plan: Bootstrap,
) -> Remaining:
    """What remains of the AUROC of ``risks`` within strata of a shortcut's ``scores``.

    All have shape ``(n,)``; ``clusters`` names the disease of each case.

    Raises:
        BadInputError: labels or risks are malformed.
        UndefinedMetricError: no stratum holds both labels, or too few resamples do.
    """
    truth, risk = np.asarray(labels, dtype=np.float64), np.asarray(risks, dtype=np.float64)
    strata = strata_of(scores)
    cells = [np.flatnonzero(strata == at) for at in np.unique(strata)]
    jobs = {
        f"stratum {number}": Job("model", index, truth[index], risk[index], _PAIRS)
        for number, index in enumerate(cells)
        if np.unique(truth[index]).size == 2
    }
    values = [
        {name: metric(Ranking(job.labels, job.risks).count()) for name, metric in _PAIRS.items()}
        for job in jobs.values()
    ]
    everyone = Job("model", np.arange(truth.size), truth, risk, {"auroc": auroc_of})
    drawn = draw({**jobs, "everyone": everyone}, clusters, plan)
    draws = drawn.pop("everyone")["auroc"]
    value = float(auroc_of(Ranking(truth, risk).count())[0])
    within = float(_pooled(values)[0]) if values else np.nan
    inside = None if np.isnan(within) else plan.interval(within, _pooled(list(drawn.values())))
    outside = None if np.isnan(value) else plan.interval(value, draws)
    if inside is None or outside is None:
        raise UndefinedMetricError("no stratum of the shortcut holds enough cases of both labels")
    pairs = float(sum(of_cell["pairs"][0] for of_cell in values))
    return Remaining(
        strata=len(cells),
        pairs_share=pairs / float(truth.sum() * (1 - truth).sum()),
        auroc=Estimate(value, *outside, n=truth.size),
        within=Estimate(within, *inside, n=truth.size),
        kept=(within - 0.5) / (value - 0.5) if value > 0.5 else None,
    )


def _pairs_of(counts: RiskCounts) -> FloatArray:
    return counts.n_rare * counts.n_nonrare


def _wins_of(counts: RiskCounts) -> FloatArray:
    """Pairs in which the rare case has the higher risk, ties half."""
    return np.nan_to_num(auroc_of(counts)) * _pairs_of(counts)


_PAIRS: Mapping[str, CountsMetric] = {"wins": _wins_of, "pairs": _pairs_of}


def _pooled(cells: Sequence[Mapping[str, FloatArray]]) -> FloatArray:
    """AUROC over the pairs of all strata, one per resample."""
    wins = np.sum([of_cell["wins"] for of_cell in cells], axis=0)
    return ratio(wins, np.sum([of_cell["pairs"] for of_cell in cells], axis=0))


def within_strata(study: Study, reference: Reference, plan: Bootstrap) -> Json:
    """What remains of student and ensemble within strata of every control, as plain data.

    ``strongest`` is the control with the highest AUROC on the validation part among those that
    see no medicine; ``models`` maps model and control to the fields of ``Remaining``, and lacks a
    pair whose cases do not define them.
    """
    controls = sorted(name for name in study.risks if name.startswith(CONTROL_PREFIX))
    plain = [name for name in controls if name != _WORDS]
    models: dict[str, Json] = {}
    for model in (STUDENT, ENSEMBLE):
        if model in study.risks:
            models[model] = _by_control(study, model, controls, plan)
    return {"strongest": reference.best(plain), "models": models}


def _by_control(study: Study, model: str, controls: list[str], plan: Bootstrap) -> Json:
    index = study.answered(model, np.arange(study.labels.size))
    found: Json = {}
    for control in controls:
        try:
            one = remaining(
                study.labels[index],
                study.risks[model][index],
                study.risks[control][index],
                study.clusters[index],
                plan,
            )
        except UndefinedMetricError:
            continue
        found[control] = _rounded(asdict(one))
    return found


def _rounded(values: Mapping[str, Any]) -> Json:
    return {
        key: _rounded(value)
        if isinstance(value, dict)
        else round(value, _DIGITS_STRATA)
        if isinstance(value, float)
        else value
        for key, value in values.items()
    }
