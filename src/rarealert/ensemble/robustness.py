"""The training part as it stands, and as it would be had the panel said something else.

What breaks the ensemble: teachers gone, noisy, dealt to other cases, a source never seen.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from rarealert.ensemble.algorithms import raw_scores
from rarealert.ensemble.ensemble import CrossFitted, fit_member
from rarealert.ensemble.features import build_features
from rarealert.ensemble.folds import TrainingSet, drawn_in_folds
from rarealert.ensemble.search import Search, weighted_auroc
from rarealert.ensemble.signals import Panel


@dataclass(frozen=True)
class Evidence:
    """Cross-fitted models with what they were fitted on; ``panel`` has the rows of ``data``.

    ``panel`` holds the teachers in the order of ``blocks``; ``places``, ``(n_cases,)``, are the
    rows of the training part that are looked at.
    """

    panel: Panel
    blocks: tuple[tuple[str, ...], ...]
    visits: Mapping[str, Sequence[float]] | None
    data: TrainingSet
    models: CrossFitted
    weights: NDArray[np.float64]
    places: NDArray[np.intp]

    def values(self, panel: Panel) -> NDArray[np.float64]:
        """The features of a tampered ``panel``, one row for each case of ``data``.

        A case that nobody answers any more has no known feature of its answers.
        """
        features = build_features(panel, self.blocks, self.visits)
        if len(features.case_ids) == len(self.data.rare):
            return features.values
        row_of = {case_id: row for row, case_id in enumerate(self.panel.case_ids)}
        values = np.full((len(self.data.rare), len(features.names)), np.nan)
        values[[row_of[case_id] for case_id in features.case_ids]] = features.values
        return values

    def risks(self, panel: Panel) -> NDArray[np.float64]:
        """Out-of-fold risks had the teachers said what ``panel`` says, shape ``(n_cases,)``."""
        return self.models.risks(self.values(panel))

    def auroc(self, panel: Panel) -> float:
        """AUROC of these risks, weighted so that who was asked tells nothing."""
        return weighted_auroc(self.data.rare, self.risks(panel), self.weights)

    def shuffle(self, teacher: str, seed: int) -> NDArray[np.intp]:
        """A new order of the cases that ``teacher`` answered, within each fold."""
        rng = np.random.default_rng((seed, crc32(teacher.encode())))
        order = np.arange(len(self.data.rare))
        answered = self.panel.answered()[:, self.panel.teachers.index(teacher)]
        for number in np.unique(self.models.fold):
            rows = np.flatnonzero(answered & (self.models.fold == number))
            order[rows] = rng.permutation(rows)
        return order

    def sample(self, cases: int, seed: int) -> "Evidence":
        """At most ``cases`` of the cases, drawn by fold and label; the models stay as they are."""
        mask = drawn_in_folds(self.data.rare, self.models.fold, cases, seed)
        if mask.all():
            return self
        rows = np.flatnonzero(mask)
        return replace(
            self,
            panel=self.panel.rows(rows),
            data=self.data.part(mask),
            models=CrossFitted(self.models.models, self.models.fold[rows]),
            weights=self.weights[rows],
            places=self.places[rows],
        )


def gather(
    panel: Panel,
    blocks: tuple[tuple[str, ...], ...],
    visits: Mapping[str, Sequence[float]] | None,
    data: TrainingSet,
    models: CrossFitted,
) -> Evidence:
    """The evidence of a fitted training part."""
    chosen = panel.of([name for block in blocks for name in block])
    places = np.arange(len(data.rare))
    return Evidence(chosen, blocks, visits, data, models, data.weights(), places)


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
