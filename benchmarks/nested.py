"""The alignment as a whole inside each outer fold, so that nothing chosen has seen that fold."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rarealert.ensemble.ensemble import fit_model
from rarealert.ensemble.features import FeatureMatrix, blocks_of, build_features
from rarealert.ensemble.folds import TrainingSet, disease_folds
from rarealert.ensemble.search import Search, search, storage_of
from rarealert.ensemble.signals import Panel
from rarealert.params import AlignParams
from rarealert.visits.case import LabelledCase
from rarealert.visits.store import disease_groups, is_rare

Visits = Mapping[str, Sequence[float]]


def searched(data: TrainingSet, features: FeatureMatrix, chosen: AlignParams) -> Search:
    """Stages one and two on ``data`` as ``align`` runs them, but never cut by time."""
    with tempfile.TemporaryDirectory() as folder:
        return search(
            data,
            features,
            folds=chosen.folds,
            repeats=chosen.repeats,
            trials=chosen.trials,
            timeout_s=math.inf,
            most_cases=chosen.search_cases,
            seed=chosen.seed,
            storage=storage_of(Path(folder) / "study.log"),
        )


def labelled(features: FeatureMatrix, cases: Mapping[str, LabelledCase]) -> TrainingSet:
    """The rows of ``features`` with what is known of their cases."""
    rows = [cases[case_id] for case_id in features.case_ids]
    return TrainingSet(
        features.values,
        np.asarray(is_rare(rows), dtype=bool),
        np.asarray(disease_groups(rows), dtype=np.str_),
        features.values[:, features.columns("risk")],
    )


def nested_risks(
    cases: Sequence[LabelledCase], panel: Panel, visits: Visits, chosen: AlignParams, kept: Path
) -> dict[str, float]:
    """Each answered case's risk from three stages that saw neither it nor its disease.

    Blocks, feature sets, algorithms, settings, blend and calibration are all found inside the
    other folds. A fold that is done lies in ``kept`` and is not done again.
    """
    of_case = {item.case.case_id: item for item in cases}
    answered = panel.among(of_case)
    whole = build_features(answered, blocks_of(answered), visits)
    fold = disease_folds(labelled(whole, of_case), chosen.folds, chosen.seed)
    kept.mkdir(parents=True, exist_ok=True)
    found: dict[str, float] = {}
    for number in np.unique(fold):
        names = [
            case_id for case_id, one in zip(whole.case_ids, fold, strict=True) if one == number
        ]
        file = kept / f"fold-{number}.npy"
        if not file.is_file():
            np.save(file, _risks_of(names, answered, visits, of_case, chosen))
        found |= dict(zip(names, np.load(file).tolist(), strict=True))
    return found


def _risks_of(
    held_out: Sequence[str],
    panel: Panel,
    visits: Visits,
    cases: Mapping[str, LabelledCase],
    chosen: AlignParams,
) -> np.ndarray:
    inside = panel.among(set(panel.case_ids) - set(held_out))
    heard = inside.answered().any(axis=0)
    teachers = [name for name, one in zip(inside.teachers, heard, strict=True) if one]
    blocks = blocks_of(inside.of(teachers))
    features = build_features(inside, blocks, visits)
    data = labelled(features, cases)
    best = searched(data, features, chosen)
    model = fit_model(best.finalists(), data, best.columns, chosen.folds, chosen.seed)
    outside = build_features(panel.among(held_out), blocks, visits)
    told = dict(zip(outside.case_ids, model.risks(outside.values).tolist(), strict=True))
    print([(one.algorithm, one.feature_set) for one in best.finalists()], model.blend, flush=True)
    return np.asarray([told.get(case_id, np.nan) for case_id in held_out])
