"""The alignment as a whole inside each outer fold, so that nothing chosen has seen that fold."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rarealert.ensemble.ensemble import fit_model
from rarealert.ensemble.features import FeatureMatrix, VisitFeatures, blocks_of, build_features
from rarealert.ensemble.search import Search, search, storage_of
from rarealert.ensemble.signals import Signals
from rarealert.ensemble.training_set import TrainingSet
from rarealert.params import AlignParams
from rarealert.stages.align import part_of
from rarealert.visits.case import LabelledCase


def searched(data: TrainingSet, features: FeatureMatrix, params: AlignParams) -> Search:
    """The search of ``align`` on ``data``, but never cut by time."""
    unhurried = params.model_copy(update={"timeout_s": math.inf})
    with tempfile.TemporaryDirectory() as folder:
        return search(data, features, unhurried, storage_of(Path(folder) / "study.log"))


def nested_risks(
    cases: Sequence[LabelledCase],
    signals: Signals,
    visits: VisitFeatures,
    params: AlignParams,
    kept: Path,
) -> dict[str, float]:
    """Each answered case's risk from models that saw neither it nor its disease.

    Blocks, feature sets, algorithms, settings, blend and calibration are all found inside the
    other folds. A finished fold is stored in ``kept`` and not run again.
    """
    whole = part_of(cases, signals, blocks_of(signals), visits)
    case_ids = whole.features.case_ids
    fold = whole.data.folds(params.folds, params.seed)
    kept.mkdir(parents=True, exist_ok=True)
    found: dict[str, float] = {}
    for number in np.unique(fold):
        names = [case_id for case_id, one in zip(case_ids, fold, strict=True) if one == number]
        file = kept / f"fold-{number}.npy"
        if not file.is_file():
            np.save(file, _risks_of(names, cases, signals.among(case_ids), visits, params))
        found |= dict(zip(names, np.load(file).tolist(), strict=True))
    return found


def _risks_of(
    held_out: Sequence[str],
    cases: Sequence[LabelledCase],
    signals: Signals,
    visits: Mapping[str, Sequence[float]],
    params: AlignParams,
) -> np.ndarray:
    inside = signals.among(set(signals.case_ids) - set(held_out))
    answered = inside.answered().any(axis=0)
    teachers = [name for name, one in zip(inside.teachers, answered, strict=True) if one]
    blocks = blocks_of(inside.of(teachers))
    apart = [item for item in cases if item.case.case_id not in set(held_out)]
    part = part_of(apart, inside, blocks, visits)
    best = searched(part.data, part.features, params)
    model = fit_model(best.finalists(), part.data, best.columns, params.folds, params.seed)
    outside = build_features(signals.among(held_out), blocks, visits)
    risks = dict(zip(outside.case_ids, model.risks(outside.values).tolist(), strict=True))
    print([(one.algorithm, one.feature_set) for one in best.finalists()], model.blend, flush=True)
    return np.asarray([risks.get(case_id, np.nan) for case_id in held_out])
