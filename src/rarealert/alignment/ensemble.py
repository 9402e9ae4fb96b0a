"""The frozen ensemble: the chosen pipeline, its calibrator, its panel and its thresholds.

Stored with skops, which loads only the types listed here and never runs code from the file.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rarealert.alignment.algorithms import fit_pipeline, raw_scores
from rarealert.alignment.balance import independence_weights
from rarealert.alignment.calibration import Calibrator, choose_calibrator
from rarealert.alignment.features import build_features, panel_of
from rarealert.alignment.folds import TrainingSet, disease_folds
from rarealert.alignment.search import Candidate
from rarealert.errors import BadInputError
from rarealert.teachers.answer import TeacherAnswer

TRUSTED_TYPES = frozenset(
    {
        "rarealert.alignment.balance.NeutralImputer",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.tree._tree.Tree",
    }
)
"""What a stored ensemble may hold beyond the types that skops trusts by itself."""

_EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first date a zip entry can bear


@dataclass(frozen=True)
class FittedModel:
    """A fitted pipeline and the calibrator that turns its scores into risks."""

    pipeline: Any
    calibrator: Calibrator

    def risks(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Risks 0 to 1, shape ``(n_cases,)``, for ``values`` of ``(n_cases, n_features)``."""
        return np.clip(self.calibrator(raw_scores(self.pipeline, values)), 0.0, 1.0)


def fit_model(candidate: Candidate, data: TrainingSet, folds: int, seed: int) -> FittedModel:
    """Fit ``candidate`` on all of ``data``, with a calibrator chosen on its out-of-fold scores.

    The columns of ``data`` are those of the candidate's feature set.
    """
    fold = disease_folds(data, folds, seed)
    scores = np.empty(len(data.rare))
    for number in np.unique(fold):
        out = fold == number
        inside = data.part(~out)
        model = _fit(candidate, inside, seed)
        scores[out] = raw_scores(model, data.values[out])
    weights = independence_weights(data.values, data.rare)
    calibrator = choose_calibrator(scores, data.rare, weights, fold)
    return FittedModel(_fit(candidate, data, seed), calibrator)


def _fit(candidate: Candidate, data: TrainingSet, seed: int) -> Any:
    return fit_pipeline(candidate.algorithm, candidate.settings, data.values, data.rare, seed)


@dataclass(frozen=True)
class Ensemble:
    """Ten unequal voices as one calibrated risk.

    ``thresholds`` are risks by the rule that chose them on the validation part; a case at or
    above one is called rare.
    """

    teachers: tuple[str, ...]
    candidate: Candidate
    model: FittedModel
    thresholds: Mapping[str, float]

    def predict(self, answers: Iterable[TeacherAnswer]) -> dict[str, float]:
        """The risk 0 to 1 of each case that at least one known teacher answered, by case id."""
        features = build_features(panel_of(answers), self.teachers)
        if not features.case_ids:
            return {}
        columns = features.columns(self.candidate.feature_set)
        risks = self.model.risks(features.values[:, columns])
        return dict(zip(features.case_ids, risks.tolist(), strict=True))

    def save(self, path: Path) -> None:
        """Write the ensemble to a file that appears only once it is whole.

        The same ensemble gives the same bytes, so that DVC sees no change where there is none.
        """
        from skops.io import dumps

        state = {
            "teachers": list(self.teachers),
            "candidate": {**asdict(self.candidate), "settings": dict(self.candidate.settings)},
            "pipeline": self.model.pipeline,
            "calibrator": {
                "method": self.model.calibrator.method,
                "parameters": list(self.model.calibrator.parameters),
            },
            "thresholds": dict(self.thresholds),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        _write_reproducibly(dumps(state), partial)
        partial.replace(path)


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
        return Ensemble(
            teachers=tuple(state["teachers"]),
            candidate=Candidate(**state["candidate"]),
            model=FittedModel(
                state["pipeline"],
                Calibrator(state["calibrator"]["method"], tuple(state["calibrator"]["parameters"])),
            ),
            thresholds=state["thresholds"],
        )
    except (zipfile.BadZipFile, KeyError, TypeError, json.JSONDecodeError) as error:
        raise BadInputError(
            f"{path} can't be read as an ensemble; delete it and run dvc repro."
        ) from error


def _write_reproducibly(stored: bytes, path: Path) -> None:
    """Write a skops archive without what differs from run to run.

    skops names objects by their address in memory and stamps entries with the time; both change
    nothing on loading.
    """
    with zipfile.ZipFile(io.BytesIO(stored)) as source:
        schema = source.read("schema.json").decode()
        addresses = re.findall(r'"__id__": (\d+)', schema)
        order = {address: str(n) for n, address in enumerate(dict.fromkeys(addresses), start=1)}

        def renamed(match: re.Match[str]) -> str:
            return f"{match[1]}{order[match[2]]}{match[3]}"

        schema = re.sub(r'("__id__": )(\d+)()', renamed, schema)
        schema = re.sub(r'("file": ")(\d+)(\.)', renamed, schema)
        entries = {"schema.json": schema.encode()}
        for name in source.namelist():
            if name != "schema.json":
                entries[re.sub(r"^()(\d+)(\.)", renamed, name)] = source.read(name)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in sorted(entries):
            target.writestr(zipfile.ZipInfo(name, _EARLIEST), entries[name], zipfile.ZIP_DEFLATED)
