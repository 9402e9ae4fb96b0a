"""What changes the ensemble's risks: missing or shuffled teachers, noise, an unseen source."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from rarealert.ensemble.ensemble import CrossFitted, fit_member
from rarealert.ensemble.features import VisitFeatures, build_features
from rarealert.ensemble.search import Search, weighted_auroc
from rarealert.ensemble.signals import Signals
from rarealert.ensemble.training_set import TrainingSet, draw_in_folds

Floats = NDArray[np.float64]

SHUFFLED = "teacher shuffled"
"""The kind of a test whose loss is the permutation importance of the teacher it names."""

_MISSING = (0.1, 0.3, 0.5)  # shares 0-1 of the answers
_NOISE = (0.05, 0.1, 0.2)  # standard deviations of a risk of 0-1
_FEWEST = 10  # cases of a class on either side, for a source to be judged


@dataclass(frozen=True)
class OutOfFold:
    """Cross-fitted models with their training cases, to repeat out-of-fold risks on other answers.

    ``signals`` has the rows of ``data`` and the teachers in the order of ``blocks``. ``places``,
    ``(n_cases,)``, are the rows of the whole training part that are kept.
    """

    signals: Signals
    blocks: Sequence[Sequence[str]]
    visits: VisitFeatures | None
    data: TrainingSet
    models: CrossFitted
    weights: Floats
    places: NDArray[np.intp]

    def values(self, signals: Signals) -> Floats:
        """The features of changed ``signals``, one row for each case of ``data``.

        A case without an answer left has no known feature of its answers.
        """
        features = build_features(signals, self.blocks, self.visits)
        if len(features.case_ids) == len(self.data.rare):
            return features.values
        row_of = {case_id: row for row, case_id in enumerate(self.signals.case_ids)}
        values = np.full((len(self.data.rare), len(features.names)), np.nan)
        values[[row_of[case_id] for case_id in features.case_ids]] = features.values
        return values

    def risks(self, signals: Signals) -> Floats:
        """Out-of-fold risks by changed ``signals``, shape ``(n_cases,)``."""
        return self.models.risks(self.values(signals))

    def shuffled(self, teacher: str, seed: int) -> Signals:
        """The signals with the answers of ``teacher`` permuted within each fold."""
        rng = np.random.default_rng((seed, crc32(teacher.encode())))
        order = np.arange(len(self.data.rare))
        answered = self.signals.answered()[:, self.signals.teachers.index(teacher)]
        for number in np.unique(self.models.fold):
            rows = np.flatnonzero(answered & (self.models.fold == number))
            order[rows] = rng.permutation(rows)
        return self.signals.permuted(teacher, order)

    def sample(self, cases: int, seed: int) -> "OutOfFold":
        """Draw at most ``cases`` of the cases by fold and label; the models stay unchanged."""
        mask = draw_in_folds(self.data.rare, self.models.fold, cases, seed)
        if mask.all():
            return self
        rows = np.flatnonzero(mask)
        return replace(
            self,
            signals=self.signals.rows(rows),
            data=self.data.part(mask),
            models=CrossFitted(self.models.models, self.models.fold[rows]),
            weights=self.weights[rows],
            places=self.places[rows],
        )


def out_of_fold(
    signals: Signals,
    blocks: Sequence[Sequence[str]],
    visits: VisitFeatures | None,
    data: TrainingSet,
    models: CrossFitted,
) -> OutOfFold:
    """Combine cross-fitted ``models`` with the answers behind ``data``."""
    chosen = signals.of([name for block in blocks for name in block])
    places = np.arange(len(data.rare))
    return OutOfFold(chosen, blocks, visits, data, models, data.weights(), places)


@dataclass(frozen=True)
class StressTest:
    """One condition: the AUROC under it, its cost, and the mean shift of a risk.

    ``lost`` is against the same cases unchanged; ``shift`` is the mean absolute change of the
    risks, ``None`` where another model was fitted.
    """

    kind: str
    detail: str
    auroc: float
    lost: float
    shift: float | None


def stress_tests(
    study: OutOfFold, found: Search, source: NDArray[np.str_], seed: int
) -> list[StressTest]:
    """Measure each condition on out-of-fold risks.

    The models stay unchanged unless a source is left out. ``source`` is that of each case, shape
    ``(n_cases,)``.
    """
    before = study.risks(study.signals)
    full = weighted_auroc(study.data.rare, before, study.weights)
    rows = []
    for kind, detail, signals in _changed(study, seed):
        after = study.risks(signals)
        auroc = weighted_auroc(study.data.rare, after, study.weights)
        shift = float(np.abs(after - before).mean())
        rows.append(StressTest(kind, detail, auroc, full - auroc, shift))
    return [*rows, *_sources_left_out(study, found, source, before, seed)]


def _changed(study: OutOfFold, seed: int) -> Iterator[tuple[str, str, Signals]]:
    """Kind, detail and the changed signals."""
    signals, rng = study.signals, np.random.default_rng(seed)
    for name in signals.teachers:
        yield "teacher absent", name, signals.without_teacher(name)
    for name in signals.teachers:
        yield SHUFFLED, name, study.shuffled(name, seed)
    for share in _MISSING:
        gaps = rng.random(signals.risk.shape) < share
        yield "answers missing", f"{share:.0%}", signals.without(gaps)
    for deviation in _NOISE:
        noise = rng.normal(0, deviation, signals.risk.shape)
        risk = np.clip(signals.risk + noise, 0, 1)
        yield "risks noisy", f"sd {deviation:g}", replace(signals, risk=risk)


def _sources_left_out(
    study: OutOfFold, found: Search, source: NDArray[np.str_], before: Floats, seed: int
) -> Iterator[StressTest]:
    """The best candidate fitted on the other sources alone, judged on the one left out."""
    data = study.data
    for name in np.unique(source):
        out = source == name
        inside, outside = data.part(~out), data.part(out)
        counts = [part.sum() for one in (inside, outside) for part in (one.rare, ~one.rare)]
        if min(counts) < _FEWEST:
            continue
        member = fit_member(found.best.candidate, inside, found.columns, seed)
        weights = outside.weights()
        auroc = weighted_auroc(outside.rare, member.scores(outside.values), weights)
        full = weighted_auroc(outside.rare, before[out], weights)
        yield StressTest("source left out", str(name), auroc, full - auroc, None)
