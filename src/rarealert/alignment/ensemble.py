"""The frozen ensemble: the chosen members, their blend, calibrator, panel and thresholds.

Stored with skops, which loads only the types listed here and never runs code from the file.
"""

import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rarealert.alignment.algorithms import fit_pipeline, raw_scores
from rarealert.alignment.blend import Blend, choose_blend
from rarealert.alignment.calibration import Calibrator, choose_calibrator
from rarealert.alignment.features import FEATURE_SETS, FeatureMatrix, build_features
from rarealert.alignment.folds import TrainingSet, disease_folds
from rarealert.alignment.panel import Panel, panel_of
from rarealert.alignment.search import Candidate, Columns
from rarealert.alignment.uncertainty import Cuts, Familiarity
from rarealert.alignment.visits import visit_features
from rarealert.cases.case import Case
from rarealert.errors import BadInputError
from rarealert.files import write_skops
from rarealert.teachers.answer import TeacherAnswer

TRUSTED_TYPES = frozenset(
    {
        "collections.OrderedDict",
        "lightgbm.basic.Booster",
        "lightgbm.sklearn.LGBMClassifier",
        "rarealert.alignment.balance.NeutralImputer",
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
        return np.clip(self.calibrator(self.blend(scores)), 0.0, 1.0)


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
    calibrator = choose_calibrator(joined, data.rare, weights, fold)
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
    sets of a stated coverage, by their confidence; ``familiarity`` knows the training cases.
    """

    blocks: tuple[tuple[str, ...], ...]
    model: FittedModel
    thresholds: Mapping[str, float]
    cuts: Mapping[float, Cuts]
    familiarity: Familiarity

    @property
    def teachers(self) -> tuple[str, ...]:
        """Everyone who may be heard, block by block."""
        return tuple(name for block in self.blocks for name in block)

    @property
    def candidate(self) -> Candidate:
        """The member that weighs most; the first of equals."""
        heaviest = int(np.argmax(self.model.blend.weights))
        return self.model.members[heaviest].candidate

    def predict(
        self, answers: Iterable[TeacherAnswer], cases: Iterable[Case] = ()
    ) -> dict[str, float]:
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
        self, answers: Iterable[TeacherAnswer], cases: Iterable[Case] = ()
    ) -> dict[str, Assessment]:
        """As ``predict``, with how sure each risk is."""
        features = self._features(panel_of(answers), cases)
        if not features.case_ids:
            return {}
        risks = self.model.risks(features.values)
        strange = self.familiarity.strangeness(features.values)
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
            "calibrator": [model.calibrator.method, list(model.calibrator.parameters)],
            "thresholds": dict(self.thresholds),
            "cuts": [[level, *astuple(one)] for level, one in self.cuts.items()],
            "familiarity": {
                field.name: getattr(self.familiarity, field.name)
                for field in fields(self.familiarity)
            },
        }
        write_skops(path, state)


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
    method, parameters = state["calibrator"]
    model = FittedModel(members, blend, Calibrator(method, tuple(parameters)))
    cuts = {level: Cuts(*bounds) for level, *bounds in state["cuts"]}
    familiarity = Familiarity(**state["familiarity"])
    blocks = tuple(map(tuple, state["blocks"]))
    return Ensemble(blocks, model, state["thresholds"], cuts, familiarity)
