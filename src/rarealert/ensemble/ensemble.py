"""The ensemble: fitted members, their blend, a calibrator, thresholds and stated uncertainty.

Each member is a pipeline on one feature set. Blend and calibrator are chosen on out-of-fold scores.
The frozen ensemble is stored with skops, which loads only the types listed here and never runs code
from the file.
"""

import json
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed  # type: ignore[import-untyped]
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.metrics import log_loss

from rarealert.calibration.calibrators import (
    Calibrator,
    choose_calibrator,
    fit_sigmoid,
    soft_targets,
)
from rarealert.calibration.conformal import Cuts, fit_cuts
from rarealert.calibration.familiarity import Familiarity, fit_familiarity
from rarealert.ensemble.algorithms import fit_pipeline, raw_scores
from rarealert.ensemble.features import FEATURE_SETS, build_features, visit_features
from rarealert.ensemble.search import Candidate, Columns, Search, weighted_auroc, workers_for
from rarealert.ensemble.signals import signals_of
from rarealert.ensemble.training_set import TrainingSet
from rarealert.errors import BadInputError
from rarealert.files import write_skops
from rarealert.teachers.teacher_answer import AnswerRow
from rarealert.visits.reading import Reading

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

CONFIDENCES = (0.8, 0.9, 0.95)
"""Coverages 0-1 that sets of labels are made for."""

TRUSTED_TYPES = frozenset(
    {
        "collections.OrderedDict",
        "lightgbm.basic.Booster",
        "lightgbm.sklearn.LGBMClassifier",
        "rarealert.ensemble.algorithms.NeutralImputer",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.tree._tree.Tree",
    }
)
"""What a stored ensemble may hold beyond the types that skops trusts by itself."""

_EDGE = 1e-6  # a certain score's log odds must stay finite
_MOST_DISTANCES = 1001  # quantiles kept of the training cases' distances


@dataclass(frozen=True)
class Blend:
    """A frozen map from ``m`` scores to log odds: a weighted sum of their log odds."""

    method: str
    intercept: float
    weights: tuple[float, ...]

    def __call__(self, scores: Floats) -> Floats:
        """Log odds, shape ``(n_cases,)``, of scores 0 to 1 of the members, ``(n_cases, m)``."""
        line = self.intercept + _log_odds(scores) @ np.asarray(self.weights)
        return np.asarray(line, dtype=np.float64)


def _log_odds(scores: Floats) -> Floats:
    return np.asarray(logit(np.clip(scores, _EDGE, 1 - _EDGE)), dtype=np.float64)


def _fit_best(scores: Floats, rare: Bools, weights: Floats) -> Blend:
    """Use only the member of the highest AUROC."""
    aurocs = [weighted_auroc(rare, column, weights) for column in scores.T]
    return _fit_alone(scores, rare, weights, int(np.argmax(aurocs)))


def _fit_alone(scores: Floats, rare: Bools, weights: Floats, place: int) -> Blend:
    line = _log_odds(scores[:, [place]]).T
    intercept, slope = fit_sigmoid(line, soft_targets(rare, weights), weights)
    of_members = np.zeros(scores.shape[1])
    of_members[place] = slope
    return Blend("best", float(intercept), tuple(of_members.tolist()))


def _fit_average(scores: Floats, rare: Bools, weights: Floats) -> Blend:
    """Average the members' calibrated log odds."""
    members = [_fit_alone(scores, rare, weights, place) for place in range(scores.shape[1])]
    return Blend(
        "average",
        float(np.mean([one.intercept for one in members])),
        tuple(np.mean([one.weights for one in members], axis=0).tolist()),
    )


def _fit_stack(scores: Floats, rare: Bools, weights: Floats) -> Blend:
    """Fit a logistic regression on the members (Wolpert, Stacked generalization, 1992).

    No weight is below 0: a lower score of a member never raises the risk.
    """
    theta = fit_sigmoid(_log_odds(scores).T, soft_targets(rare, weights), weights)
    return Blend("stack", float(theta[0]), tuple(theta[1:].tolist()))


BLENDS: Mapping[str, Callable[[Floats, Bools, Floats], Blend]] = {
    "best": _fit_best,
    "average": _fit_average,
    "stack": _fit_stack,
}
"""Ways to combine the members by their name in reports, the simplest first."""


def choose_blend(
    scores: Floats, rare: Bools, weights: Floats, fold: NDArray[np.intp]
) -> tuple[Blend, Floats]:
    """Choose the blend with the lowest held-out log loss; a tie goes to the simpler one.

    Args:
        scores: out-of-fold scores of the members, shape ``(n_cases, m)``.
        rare: labels, shape ``(n_cases,)``.
        weights: weights of the cases, shape ``(n_cases,)``.
        fold: fold of each case, shape ``(n_cases,)``.

    Returns:
        The blend fitted on all cases, and its held-out log odds, shape ``(n_cases,)``.
    """
    held_out = {}
    for method, fit in BLENDS.items():
        blended = np.empty(len(scores))
        for number in np.unique(fold):
            out = fold == number
            blended[out] = fit(scores[~out], rare[~out], weights[~out])(scores[out])
        held_out[method] = blended
    losses = {
        method: log_loss(rare, expit(blended), sample_weight=weights, labels=[False, True])
        for method, blended in held_out.items()
    }
    chosen = min(losses, key=losses.__getitem__)
    return BLENDS[chosen](scores, rare, weights), held_out[chosen]


@dataclass(frozen=True)
class Member:
    """A fitted pipeline and the columns it reads, shape ``(k,)``, of the full matrix."""

    candidate: Candidate
    columns: NDArray[np.intp]
    pipeline: Any

    def scores(self, values: Floats) -> Floats:
        """Uncalibrated scores 0 to 1, shape ``(n_cases,)``."""
        return raw_scores(self.pipeline, values[:, self.columns])


@dataclass(frozen=True)
class FittedModel:
    """Fitted members, their blend, and the calibrator of its log odds."""

    members: tuple[Member, ...]
    blend: Blend
    calibrator: Calibrator

    def weighted_members(self) -> list[tuple[int, Member]]:
        """The members whose weight is not 0, each with its place."""
        return [
            (place, member)
            for place, member in enumerate(self.members)
            if self.blend.weights[place]
        ]

    def risks(self, values: Floats) -> Floats:
        """Risks 0 to 1, shape ``(n_cases,)``, for ``values`` of ``(n_cases, n_features)``."""
        scores = np.full((len(values), len(self.members)), 0.5)
        for place, member in self.weighted_members():
            scores[:, place] = member.scores(values)
        return self.calibrator.risk(self.blend(scores))


def fit_model(
    candidates: Sequence[Candidate], data: TrainingSet, columns: Columns, folds: int, seed: int
) -> FittedModel:
    """Fit ``candidates`` on all of ``data``, blended and calibrated by their out-of-fold scores.

    ``data.values`` has all columns; ``columns`` are those of each feature set.
    """
    fold = data.folds(folds, seed)
    scores = np.empty((len(data.rare), len(candidates)))
    for number in np.unique(fold):
        out = fold == number
        for place, candidate in enumerate(candidates):
            member = fit_member(candidate, data.part(~out), columns, seed)
            scores[out, place] = member.scores(data.values[out])
    weights = data.weights()
    blend, blended = choose_blend(scores, data.rare, weights, fold)
    calibrator = choose_calibrator(blended, data.rare, fold, weights)
    members = tuple(fit_member(candidate, data, columns, seed) for candidate in candidates)
    return FittedModel(members, blend, calibrator)


def fit_member(candidate: Candidate, data: TrainingSet, columns: Columns, seed: int) -> Member:
    """Fit ``candidate`` on all of ``data``."""
    chosen = columns[candidate.feature_set]
    pipeline = fit_pipeline(
        candidate.algorithm,
        candidate.settings,
        data.values[:, chosen],
        data.rare,
        data.weights(),
        seed,
    )
    return Member(candidate, chosen, pipeline)


@dataclass(frozen=True)
class CrossFitted:
    """One model a fold, none of which saw that fold, and the fold of each case, ``(n_cases,)``."""

    models: tuple[FittedModel, ...]
    fold: NDArray[np.intp]

    def risks(self, values: Floats) -> Floats:
        """The risk 0 to 1 of each case from the model that never saw its disease.

        ``values`` has the rows of the training set, shape ``(n_cases, n_features)``.
        """
        risks = np.empty(len(values))
        for number, model in enumerate(self.models):
            out = self.fold == number
            risks[out] = model.risks(values[out])
        return risks


def cross_fit(data: TrainingSet, found: Search, folds: int, seed: int) -> CrossFitted:
    """Fit a model for each fold of ``found`` on the other folds.

    The student's training targets come from these models: a model gives the training cases of its
    own diseases a certainty that no new patient would get. The candidates that are best on the
    other folds are fitted on them, blended and calibrated on out-of-fold scores inside them (nested
    cross-validation; Varma and Simon, BMC Bioinformatics 7:91, 2006). Only the choice of candidates
    is judged by models that had seen the fold, a choice among a few dozen.
    """
    models = Parallel(workers_for(len(data.rare)))(
        delayed(fit_model)(
            found.finalists(without=int(number)),
            data.part(found.fold != number),
            found.columns,
            folds,
            seed,
        )
        for number in np.unique(found.fold)
    )
    return CrossFitted(tuple(models), found.fold)


@dataclass(frozen=True)
class Ensemble:
    """The frozen model of the aligned teachers.

    ``blocks`` are the teachers as ``blocks_of`` groups them. ``thresholds`` are risks by the rule
    that chose them on the validation part; a case at or above one is called rare. ``cuts`` make
    sets of a stated coverage, by their confidence. ``familiarity`` describes the training cases;
    ``distances`` are theirs in ascending order, at most 1,001 quantiles.
    """

    blocks: tuple[tuple[str, ...], ...]
    model: FittedModel
    thresholds: Mapping[str, float]
    cuts: Mapping[float, Cuts]
    familiarity: Familiarity
    distances: Floats

    @property
    def teachers(self) -> tuple[str, ...]:
        """All teachers whose answers are used, block by block."""
        return tuple(name for block in self.blocks for name in block)

    def predict(
        self, answers: Iterable[AnswerRow], readings: Iterable[Reading] = ()
    ) -> dict[str, float]:
        """The risk 0 to 1 of each case that at least one known teacher answered, by case id.

        Where the reading of a case is missing, its features of the visit are unknown.
        """
        used = {
            group
            for _, member in self.model.weighted_members()
            for group in FEATURE_SETS[member.candidate.feature_set]
        }
        visits = visit_features(readings) if "case" in used else None
        features = build_features(signals_of(answers), self.blocks, visits)
        if not features.case_ids:
            return {}
        risks = self.model.risks(features.values)
        return dict(zip(features.case_ids, risks.tolist(), strict=True))

    def unfamiliarity(self, values: Floats) -> Floats:
        """The share 0 to 1 of training cases that are more familiar, shape ``(n_cases,)``."""
        nearer = np.searchsorted(self.distances, self.familiarity.distance(values))
        return np.asarray(nearer / len(self.distances), dtype=np.float64)

    def save(self, path: Path) -> None:
        """Write the ensemble; the same one gives the same bytes, so that DVC sees no change."""
        model = self.model
        state = {
            "blocks": [list(block) for block in self.blocks],
            "members": [
                {
                    "algorithm": member.candidate.algorithm,
                    "feature_set": member.candidate.feature_set,
                    "settings": dict(member.candidate.settings),
                    "columns": member.columns.tolist(),
                    "pipeline": member.pipeline,
                }
                for member in model.members
            ],
            "blend": [model.blend.method, model.blend.intercept, list(model.blend.weights)],
            "calibrator": model.calibrator.model_dump(),
            "thresholds": dict(self.thresholds),
            "cuts": [[level, one.model_dump()] for level, one in self.cuts.items()],
            "familiarity": vars(self.familiarity),
            "distances": self.distances,
        }
        write_skops(path, state)


def freeze(
    blocks: tuple[tuple[str, ...], ...],
    model: FittedModel,
    thresholds: Mapping[str, float],
    valid: tuple[Bools, Floats],
    values: Floats,
) -> Ensemble:
    """Complete a fitted ``model`` with the uncertainty of its risks.

    Args:
        blocks: the teachers as ``blocks_of`` groups them.
        model: fitted on the training part.
        thresholds: risks from which a case is called rare, by the rule that chose them.
        valid: labels and risks of the validation cases, each of shape ``(n_valid,)``.
        values: features of the training cases, shape ``(n_cases, n_features)``.
    """
    familiarity = fit_familiarity(values)
    distances = familiarity.distance(values)
    kept = np.quantile(distances, np.linspace(0, 1, min(_MOST_DISTANCES, len(distances))))
    cuts = {level: fit_cuts(*valid, level) for level in CONFIDENCES}
    return Ensemble(blocks, model, thresholds, cuts, familiarity, kept)


def load_ensemble(path: Path) -> Ensemble:
    """Load the ensemble that ``Ensemble.save`` wrote.

    Raises:
        BadInputError: the file is missing, is no skops file, or holds a type that an ensemble
            does not have.
    """
    from skops.io import get_untrusted_types, load

    if not path.is_file():
        raise BadInputError(f"{path} is missing; run the align stage (dvc repro align).")
    try:
        foreign = sorted(set(get_untrusted_types(file=path)) - TRUSTED_TYPES)
        if foreign:
            raise BadInputError(
                f"{path} holds {foreign[0]}, which no ensemble has; delete it and run dvc repro."
            )
        return _from_state(load(path, trusted=sorted(TRUSTED_TYPES)))
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, json.JSONDecodeError) as error:
        raise BadInputError(
            f"{path} can't be read as an ensemble; delete it and run dvc repro."
        ) from error


def _from_state(state: Mapping[str, Any]) -> Ensemble:
    members = tuple(
        Member(
            Candidate(one["algorithm"], one["feature_set"], one["settings"]),
            np.asarray(one["columns"], dtype=np.intp),
            one["pipeline"],
        )
        for one in state["members"]
    )
    method, intercept, weights = state["blend"]
    model = FittedModel(
        members, Blend(method, intercept, tuple(weights)), Calibrator(**state["calibrator"])
    )
    return Ensemble(
        tuple(map(tuple, state["blocks"])),
        model,
        state["thresholds"],
        {level: Cuts(**bounds) for level, bounds in state["cuts"]},
        Familiarity(**state["familiarity"]),
        state["distances"],
    )
