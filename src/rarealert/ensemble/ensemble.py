"""Several members, one score: the best alone, their average, or a stack, whichever holds out best.

A stack with weights below 0 would let a member speak against itself, so weights stay at 0 or above.

The frozen ensemble: the chosen members, their blend, calibrator, panel and thresholds.

Stored with skops, which loads only the types listed here and never runs code from the file.

Training targets that do not know their answer.

A risk from a model that has seen the case, or another of its disease, leaks the label: an
overfitting model gives 1 to every rare case it was fitted on, and a student taught with such risks
learns a certainty that no new patient will bear out. Here each case's risk comes from members, a
blend and a calibrator fitted on folds other than its own. The choice of algorithm and features is
judged on the other folds too, by models that had seen this one: a choice among a few dozen.
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
from rarealert.ensemble.features import FEATURE_SETS, FeatureMatrix, build_features, visit_features
from rarealert.ensemble.folds import TrainingSet, disease_folds
from rarealert.ensemble.search import Candidate, Columns, Search, weighted_auroc, workers_for
from rarealert.ensemble.signals import Panel, panel_of
from rarealert.errors import BadInputError
from rarealert.files import write_skops
from rarealert.teachers.answer import AnswerRow
from rarealert.visits.case import Case

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_EDGE = 1e-6  # a certain score's log odds must stay finite


@dataclass(frozen=True)
class Blend:
    """A frozen map from ``m`` scores to log odds: a weighted sum of their log odds."""

    method: str
    intercept: float
    weights: tuple[float, ...]

    def __call__(self, scores: Floats) -> Floats:
        """Log odds, shape ``(n_cases,)``, of scores 0 to 1 of the members, ``(n_cases, m)``."""
        line = self.intercept + _logits(scores) @ np.asarray(self.weights)
        return np.asarray(line, dtype=np.float64)


def _logits(scores: Floats) -> Floats:
    return np.asarray(logit(np.clip(scores, _EDGE, 1 - _EDGE)), dtype=np.float64)


def fit_best(scores: Floats, rare: Bools, weights: Floats) -> Blend:
    """Only the member of the highest AUROC."""
    aurocs = [weighted_auroc(rare, column, weights) for column in scores.T]
    return _alone(scores, rare, weights, int(np.argmax(aurocs)))


def _alone(scores: Floats, rare: Bools, weights: Floats, place: int) -> Blend:
    line = _logits(scores[:, [place]]).T
    intercept, slope = fit_sigmoid(line, soft_targets(rare, weights), weights)
    of_members = np.zeros(scores.shape[1])
    of_members[place] = slope
    return Blend("best", float(intercept), tuple(of_members.tolist()))


def fit_average(scores: Floats, rare: Bools, weights: Floats) -> Blend:
    """The mean of the members' calibrated log odds."""
    members = [_alone(scores, rare, weights, place) for place in range(scores.shape[1])]
    return Blend(
        "average",
        float(np.mean([one.intercept for one in members])),
        tuple(np.mean([one.weights for one in members], axis=0).tolist()),
    )


def fit_stack(scores: Floats, rare: Bools, weights: Floats) -> Blend:
    """A logistic regression on the members (Wolpert, Stacked generalization, 1992)."""
    theta = fit_sigmoid(_logits(scores).T, soft_targets(rare, weights), weights)
    return Blend("stack", float(theta[0]), tuple(theta[1:].tolist()))


METHODS: Mapping[str, Callable[[Floats, Bools, Floats], Blend]] = {
    "best": fit_best,
    "average": fit_average,
    "stack": fit_stack,
}
"""Every way to join members, by its name in reports."""


def choose_blend(
    scores: Floats, rare: Bools, weights: Floats, fold: NDArray[np.intp]
) -> tuple[Blend, Floats]:
    """The method with the lowest held-out log loss, fitted on all, and its held-out log odds.

    ``scores`` of the members, shape ``(n_cases, m)``, must themselves be out-of-fold. A tie goes
    to the method named first, which is the simpler one.
    """
    held_out = {}
    for method, fit in METHODS.items():
        joined = np.empty(len(scores))
        for number in np.unique(fold):
            out = fold == number
            joined[out] = fit(scores[~out], rare[~out], weights[~out])(scores[out])
        held_out[method] = joined
    losses = {
        method: log_loss(rare, expit(joined), sample_weight=weights, labels=[False, True])
        for method, joined in held_out.items()
    }
    chosen = min(losses, key=losses.__getitem__)
    return METHODS[chosen](scores, rare, weights), held_out[chosen]


CONFIDENCES = (0.8, 0.9, 0.95)
"""Coverages 0-1 that sets of labels are made for."""

_MOST_DISTANCES = 1001

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


@dataclass(frozen=True)
class Member:
    """A fitted pipeline and the columns it reads, shape ``(k,)``, of the full matrix."""

    candidate: Candidate
    columns: NDArray[np.intp]
    pipeline: Any


@dataclass(frozen=True)
class FittedModel:
    """Fitted members, how they are joined, and the calibrator that makes a risk of the score."""

    members: tuple[Member, ...]
    blend: Blend
    calibrator: Calibrator

    def risks(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Risks 0 to 1, shape ``(n_cases,)``, for ``values`` of ``(n_cases, n_features)``."""
        weights = self.blend.weights
        scores = np.full((len(values), len(self.members)), 0.5)
        for place, member in enumerate(self.members):
            if weights[place]:  # what is not listened to is not asked
                scores[:, place] = raw_scores(member.pipeline, values[:, member.columns])
        return self.calibrator.risk(self.blend(scores))


def fit_model(
    candidates: Sequence[Candidate], data: TrainingSet, columns: Columns, folds: int, seed: int
) -> FittedModel:
    """Fit ``candidates`` on all of ``data``, joined and calibrated by their out-of-fold scores.

    ``data.values`` has all columns; ``columns`` says which of them each feature set holds.
    """
    fold = disease_folds(data, folds, seed)
    scores = np.empty((len(data.rare), len(candidates)))
    for number in np.unique(fold):
        out = fold == number
        for place, candidate in enumerate(candidates):
            member = fit_member(candidate, data.part(~out), columns, seed)
            scores[out, place] = raw_scores(member.pipeline, data.values[out][:, member.columns])
    weights = data.weights()
    blend, joined = choose_blend(scores, data.rare, weights, fold)
    calibrator = choose_calibrator(joined, data.rare, fold, weights)
    members = tuple(fit_member(candidate, data, columns, seed) for candidate in candidates)
    return FittedModel(members, blend, calibrator)


def fit_member(candidate: Candidate, data: TrainingSet, columns: Columns, seed: int) -> Member:
    """``candidate`` fitted on all of ``data``."""
    chosen = columns[candidate.feature_set]
    pipeline = fit_pipeline(
        candidate.algorithm,
        candidate.settings,
        data.values[:, chosen],
        data.rare,
        seed,
        data.weights(),
    )
    return Member(candidate, chosen, pipeline)


@dataclass(frozen=True)
class Assessment:
    """A risk 0 to 1, the labels that can't be ruled out at each confidence, and its strangeness.

    ``strangeness`` is the share 0 to 1 of training cases that are more familiar.
    """

    risk: float
    labels: Mapping[float, tuple[str, ...]]
    strangeness: float


@dataclass(frozen=True)
class Ensemble:
    """Ten unequal voices as one calibrated risk.

    ``blocks`` are the teachers as ``blocks_of`` groups them. ``thresholds`` are risks by the rule
    that chose them on the validation part; a case at or above one is called rare. ``cuts`` make
    sets of a stated coverage, by their confidence; ``familiarity`` describes the training cases and
    ``distances`` are theirs in ascending order, at most 1,001 quantiles.
    """

    blocks: tuple[tuple[str, ...], ...]
    model: FittedModel
    thresholds: Mapping[str, float]
    cuts: Mapping[float, Cuts]
    familiarity: Familiarity
    distances: NDArray[np.float64]

    def strangeness(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The share 0 to 1 of training cases that are more familiar, shape ``(n_cases,)``."""
        nearer = np.searchsorted(self.distances, self.familiarity.distance(values))
        return np.asarray(nearer / len(self.distances), dtype=np.float64)

    @property
    def teachers(self) -> tuple[str, ...]:
        """Everyone who may be heard, block by block."""
        return tuple(name for block in self.blocks for name in block)

    @property
    def candidate(self) -> Candidate:
        """The member that weighs most; the first of equals."""
        heaviest = int(np.argmax(self.model.blend.weights))
        return self.model.members[heaviest].candidate

    def predict(self, answers: Iterable[AnswerRow], cases: Iterable[Case] = ()) -> dict[str, float]:
        """The risk 0 to 1 of each case that at least one known teacher answered, by case id.

        ``cases`` are the visits; where one is missing, what it would say is unknown.
        """
        return self.predict_panel(panel_of(answers), cases)

    def predict_panel(self, panel: Panel, cases: Iterable[Case] = ()) -> dict[str, float]:
        """As ``predict``, for answers that are a panel already."""
        features = self._features(panel, cases)
        if not features.case_ids:
            return {}
        risks = self.model.risks(features.values)
        return dict(zip(features.case_ids, risks.tolist(), strict=True))

    def assess(
        self, answers: Iterable[AnswerRow], cases: Iterable[Case] = ()
    ) -> dict[str, Assessment]:
        """As ``predict``, with how sure each risk is."""
        features = self._features(panel_of(answers), cases)
        if not features.case_ids:
            return {}
        risks = self.model.risks(features.values)
        strange = self.strangeness(features.values)
        return {
            case_id: Assessment(
                float(risk),
                {level: cuts.labels(float(risk)) for level, cuts in self.cuts.items()},
                float(share),
            )
            for case_id, risk, share in zip(features.case_ids, risks, strange, strict=True)
        }

    def _features(self, panel: Panel, cases: Iterable[Case]) -> FeatureMatrix:
        used = {
            group
            for member, weight in zip(self.model.members, self.model.blend.weights, strict=True)
            if weight
            for group in FEATURE_SETS[member.candidate.feature_set]
        }
        visits = visit_features(cases) if "case" in used else None
        return build_features(panel, self.blocks, visits)

    def save(self, path: Path) -> None:
        """Write the ensemble to a file that appears only once it is whole.

        The same ensemble gives the same bytes, so that DVC sees no change where there is none.
        """
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
    """Complete a fitted ``model`` with what it does not know of a case.

    Args:
        blocks: the teachers as ``blocks_of`` groups them.
        model: fitted on the training part.
        thresholds: risks from which a case is called rare, by the rule that chose them.
        valid: labels and risks of the validation cases, each of shape ``(n_valid,)``.
        values: features of the training cases, shape ``(n_cases, n_features)``.
    """
    familiarity = fit_familiarity(values)
    distances = familiarity.distance(values)
    reference = np.quantile(distances, np.linspace(0, 1, min(_MOST_DISTANCES, len(distances))))
    cuts = {level: fit_cuts(*valid, level) for level in CONFIDENCES}
    return Ensemble(blocks, model, thresholds, cuts, familiarity, reference)


def load_ensemble(path: Path) -> Ensemble:
    """The ensemble that ``Ensemble.save`` wrote.

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
        state = load(path, trusted=sorted(TRUSTED_TYPES))
        return _of_state(state)
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, json.JSONDecodeError) as error:
        raise BadInputError(
            f"{path} can't be read as an ensemble; delete it and run dvc repro."
        ) from error


def _of_state(state: Mapping[str, Any]) -> Ensemble:
    members = tuple(
        Member(
            Candidate(one["algorithm"], one["feature_set"], one["settings"]),
            np.asarray(one["columns"], dtype=np.intp),
            one["pipeline"],
        )
        for one in state["members"]
    )
    method, intercept, weights = state["blend"]
    blend = Blend(method, intercept, tuple(weights))
    model = FittedModel(members, blend, Calibrator(**state["calibrator"]))
    cuts = {level: Cuts(**bounds) for level, bounds in state["cuts"]}
    familiarity = Familiarity(**state["familiarity"])
    blocks = tuple(map(tuple, state["blocks"]))
    return Ensemble(blocks, model, state["thresholds"], cuts, familiarity, state["distances"])


@dataclass(frozen=True)
class CrossFitted:
    """One model a fold, none of which saw that fold, and the fold of each case, ``(n_cases,)``."""

    models: tuple[FittedModel, ...]
    fold: NDArray[np.intp]

    def risks(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The risk 0 to 1 of each case from the model that never saw its disease.

        ``values`` has the rows of the training set, shape ``(n_cases, n_features)``.
        """
        risks = np.empty(len(values))
        for number, model in enumerate(self.models):
            out = self.fold == number
            risks[out] = model.risks(values[out])
        return risks


def cross_fit(data: TrainingSet, found: Search, folds: int, seed: int) -> CrossFitted:
    """For each fold of ``found``, the model that its other folds make.

    The candidates that are best on the other folds are fitted on them, and joined and calibrated
    on out-of-fold scores inside them (nested cross-validation; Varma and Simon, BMC
    Bioinformatics 7:91, 2006).
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
