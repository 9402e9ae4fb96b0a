"""The alignment as a whole: search, fit, calibrate and freeze, then examine what was fitted."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rarealert.ensemble.ensemble import CrossFitted, Ensemble, cross_fit, fit_model, freeze
from rarealert.ensemble.explanation import Shapley, TeacherReport, explain_cases, teacher_reports
from rarealert.ensemble.features import FeatureMatrix, VisitFeatures
from rarealert.ensemble.search import Search, search, storage_of
from rarealert.ensemble.signals import Signals
from rarealert.ensemble.stress_tests import StressTest, out_of_fold, stress_tests
from rarealert.ensemble.training_set import TrainingSet
from rarealert.evaluation.metrics import threshold_at_sensitivity, threshold_at_specificity
from rarealert.params import AlignParams

Floats = NDArray[np.float64]

_OPERATING_POINT = 0.95  # specificity or sensitivity of the ensemble's thresholds


@dataclass(frozen=True)
class Part:
    """The answered cases of a part, in the order of their ids; ``source`` has shape ``(n,)``."""

    features: FeatureMatrix
    data: TrainingSet
    source: NDArray[np.str_]


@dataclass(frozen=True)
class AlignmentData:
    """Both parts, the answers behind them and their visits' features.

    ``blocks`` are the teachers as ``blocks_of`` groups them by the training part; ``unanswered``
    counts the cases of both parts that no teacher answered.
    """

    train: Part
    valid: Part
    signals: Signals
    blocks: tuple[tuple[str, ...], ...]
    visits: VisitFeatures
    unanswered: int


@dataclass(frozen=True)
class Fitted:
    """The frozen ensemble, the models that each missed a fold, and the risks of both parts."""

    ensemble: Ensemble
    models: CrossFitted
    out_of_fold: Floats
    valid_risks: Floats


@dataclass(frozen=True)
class Outcome:
    """Everything a run of the alignment found.

    ``teachers`` and ``stress_tests`` were measured on ``judged`` cases of the training part.
    """

    data: AlignmentData
    found: Search
    fitted: Fitted
    judged: int
    teachers: list[TeacherReport]
    stress_tests: list[StressTest]
    shapley: Shapley


def search_and_fit(
    data: AlignmentData, params: AlignParams, journal: Path
) -> tuple[Search, Fitted]:
    """Screen, tune, fit, calibrate and freeze; the studies are stored in ``journal``."""
    train, valid = data.train.data, data.valid.data
    found = search(train, data.train.features, params, storage_of(journal))
    models = cross_fit(train, found, params.folds, params.seed)
    model = fit_model(found.finalists(), train, found.columns, params.folds, params.seed)
    risks = model.risks(valid.values)
    thresholds = {
        "at_95_specificity": threshold_at_specificity(valid.rare, risks, _OPERATING_POINT),
        "at_95_sensitivity": threshold_at_sensitivity(valid.rare, risks, _OPERATING_POINT),
    }
    ensemble = freeze(data.blocks, model, thresholds, (valid.rare, risks), train.values)
    return found, Fitted(ensemble, models, models.risks(train.values), risks)


def examine(data: AlignmentData, found: Search, fitted: Fitted, params: AlignParams) -> Outcome:
    """Explain the fitted models and measure their robustness.

    Of more than ``params.search_cases`` cases a sample is examined, with the same models.
    """
    train = data.train
    answered = data.signals.among(train.features.case_ids)
    study = out_of_fold(answered, data.blocks, data.visits, train.data, fitted.models)
    sample = study.sample(params.search_cases, params.seed)
    tests = stress_tests(sample, found, train.source[sample.places], params.seed)
    return Outcome(
        data,
        found,
        fitted,
        len(sample.places),
        teacher_reports(sample, found, tests, params.seed),
        tests,
        explain_cases(study, train.features.names, params.explained_cases, params.seed),
    )
