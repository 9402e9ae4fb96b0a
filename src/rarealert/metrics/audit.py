"""The shortcut audit of a corpus: what labels can be told by without any medicine.

It needs no model: every control predicts cases of diseases it was not fitted on, pooled and within
each source. A corpus in which one of them succeeds rewards a model for reading style.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rarealert.errors import BadInputError
from rarealert.metrics.compare import bootstrap_p_value, holm
from rarealert.metrics.counts import FloatArray, IntArray
from rarealert.metrics.discrimination import auroc, auroc_of
from rarealert.metrics.intervals import Bootstrap, Job, draw
from rarealert.metrics.panel import Estimate
from rarealert.metrics.shortcuts import CONTROLS, WORDS, fit_controls

if TYPE_CHECKING:
    import pandas as pd

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
