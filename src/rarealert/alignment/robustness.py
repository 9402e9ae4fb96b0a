"""What breaks the ensemble: teachers gone, noisy, dealt to other cases, a source never seen."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rarealert.alignment.algorithms import raw_scores
from rarealert.alignment.ensemble import fit_member
from rarealert.alignment.evidence import Evidence
from rarealert.alignment.folds import TrainingSet
from rarealert.alignment.panel import Panel
from rarealert.alignment.search import Search, weighted_auroc

_MISSING = (0.1, 0.3, 0.5)  # shares 0-1 of the answers
_NOISE = (0.05, 0.1, 0.2)  # standard deviations of a risk of 0-1
_FEWEST = 10  # cases of a class on either side, for a source to be judged


@dataclass(frozen=True)
class Trouble:
    """One condition: the AUROC under it, what it costs, and the mean shift of a risk.

    ``lost`` is against the same cases untroubled; ``shift`` is the mean absolute change of the
    risks, ``None`` where another model was fitted.
    """

    kind: str
    detail: str
    auroc: float
    lost: float
    shift: float | None


def troubles(
    evidence: Evidence, found: Search, source: NDArray[np.str_], seed: int
) -> list[Trouble]:
    """What each trouble does to out-of-fold risks, models unchanged unless a source is left out.

    ``source`` is that of each case, shape ``(n_cases,)``.
    """
    before = evidence.risks(evidence.panel)
    full = weighted_auroc(evidence.data.rare, before, evidence.weights)
    rows = []
    for kind, detail, panel in _tampered(evidence, seed):
        after = evidence.risks(panel)
        auroc = weighted_auroc(evidence.data.rare, after, evidence.weights)
        shift = float(np.abs(after - before).mean())
        rows.append(Trouble(kind, detail, auroc, full - auroc, shift))
    return [*rows, *_sources(evidence, found, source, before, seed)]


def _tampered(evidence: Evidence, seed: int) -> Iterator[tuple[str, str, Panel]]:
    panel, rng = evidence.panel, np.random.default_rng(seed)
    for name in panel.teachers:
        gaps = np.zeros_like(panel.answered())
        gaps[:, panel.teachers.index(name)] = True
        yield "teacher absent", name, panel.silenced(gaps)
    for name in panel.teachers:
        yield "teacher shuffled", name, panel.dealt(name, evidence.shuffle(name, seed))
    for share in _MISSING:
        gaps = rng.random(panel.risk.shape) < share
        yield "answers missing", f"{share:.0%}", panel.silenced(gaps)
    for deviation in _NOISE:
        noise = rng.normal(0, deviation, panel.risk.shape)
        risk = np.clip(panel.risk + noise, 0, 1)
        yield "risks noisy", f"sd {deviation:g}", replace(panel, risk=risk)


def _sources(
    evidence: Evidence,
    found: Search,
    source: NDArray[np.str_],
    before: NDArray[np.float64],
    seed: int,
) -> Iterator[Trouble]:
    """The best candidate fitted on the other sources alone, judged on the one left out."""
    data = evidence.data
    for name in np.unique(source):
        out = source == name
        sides = [data.rare[out].sum(), (~data.rare[out]).sum()]
        sides += [data.rare[~out].sum(), (~data.rare[~out]).sum()]
        if min(sides) < _FEWEST:
            continue
        inside: TrainingSet = data.part(~out)
        member = fit_member(found.best.candidate, inside, found.columns, seed)
        scores = raw_scores(member.pipeline, data.values[out][:, member.columns])
        weights = data.part(out).weights()
        auroc = weighted_auroc(data.rare[out], scores, weights)
        full = weighted_auroc(data.rare[out], before[out], weights)
        yield Trouble("source left out", str(name), auroc, full - auroc, None)
