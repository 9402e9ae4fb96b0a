"""Names of models, and ``build/score/predictions.parquet``: one row a case and model."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rarealert.errors import BadInputError
from rarealert.files import whole

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("case_id", "part", "model", "risk")
PARTS = ("valid", "test")
TEACHER_PREFIX = "teacher:"
CONTROL_PREFIX = "control:"
BASELINE_PREFIX = "baseline:"
ENSEMBLE = "ensemble"
STUDENT = "student"

_TITLES = {
    STUDENT: "Student",
    ENSEMBLE: "Ensemble of teachers",
    f"{CONTROL_PREFIX}tfidf": "Control words (TF-IDF)",
    f"{BASELINE_PREFIX}minilm": "Baseline MiniLM",
}


def of_kind(models: Iterable[str], prefix: str) -> list[str]:
    """The models whose name starts with ``prefix``, sorted."""
    return sorted(model for model in models if model.startswith(prefix))


def kind_of(model: str) -> str:
    """``student``, ``ensemble``, ``baseline``, ``teacher`` or ``control``."""
    return model.partition(":")[0]


def title_of(model: str) -> str:
    """The model's name in pages and figures."""
    kind, _, name = model.partition(":")
    return _TITLES.get(model, f"{kind.capitalize()} {name.replace('_', ' ')}")


def check_predictions(frame: "pd.DataFrame", cases: Mapping[str, Sequence[str]]) -> None:
    """Refuse predictions that would make a comparison unfair.

    ``frame`` has the columns ``COLUMNS``; ``cases`` are the case ids of each part. The student,
    every baseline and every control must have scored every case of both parts. Teachers and the
    ensemble may lack cases that went unanswered, but hold no others.

    Raises:
        BadInputError: a column is missing, a risk is NaN or outside 0-1, a case appears twice
            or belongs to no part, or a model that must be complete is not.
    """
    lacking = [name for name in COLUMNS if name not in frame.columns]
    if lacking:
        raise BadInputError(f"The predictions lack the column {lacking[0]}; run dvc repro score.")
    bad = frame["risk"].isna() | (frame["risk"] < 0) | (frame["risk"] > 1)
    if bad.any():
        row = frame[bad].iloc[0]
        raise BadInputError(
            f"The predictions of {row['model']}: the risk of case {row['case_id']} is "
            f"{row['risk']}; expected a number in 0-1 ({int(bad.sum())} rows are not). "
            "Run dvc repro score."
        )
    twice = frame.duplicated(["case_id", "model"])
    if twice.any():
        row = frame[twice].iloc[0]
        raise BadInputError(
            f"The predictions hold case {row['case_id']} of {row['model']} twice; run dvc repro "
            "score."
        )
    parts = set(frame["part"]) - set(cases)
    if parts:
        raise BadInputError(
            f"The predictions name an unknown part {min(parts)}; run dvc repro score."
        )
    for part, ids in cases.items():
        _check_part(frame[frame["part"] == part], part, set(ids))


def _check_part(rows: "pd.DataFrame", part: str, ids: set[str]) -> None:
    foreign = set(rows["case_id"]) - ids
    if foreign:
        raise BadInputError(
            f"The predictions of the {part} part hold case {min(foreign)}, which is not in it; "
            "run dvc repro score."
        )
    if not (rows["model"] == STUDENT).any():
        raise BadInputError(
            f"The student has no predictions on the {part} part; run dvc repro score."
        )
    for model, scored in rows.groupby("model")["case_id"]:
        if kind_of(str(model)) in ("teacher", "ensemble"):
            continue
        missing = ids - set(scored)
        if missing:
            raise BadInputError(
                f"{model} has not scored {len(missing)} of {len(ids)} cases of the {part} part, "
                f"among them {min(missing)}; run dvc repro score."
            )


def write_predictions(path: Path, frame: "pd.DataFrame") -> None:
    """Write ``frame``, sorted by part, model and case, atomically."""
    ordered = frame.sort_values(["part", "model", "case_id"], kind="stable")
    with whole(path) as partial:
        ordered[list(COLUMNS)].astype({"risk": np.float64}).to_parquet(partial, index=False)


def read_predictions(path: Path) -> "pd.DataFrame":
    """The predictions at ``path``, unchecked.

    Raises:
        BadInputError: the file is missing or is not Parquet.
    """
    import pandas as pd
    import pyarrow as pa

    if not path.is_file():
        raise BadInputError(f"{path} is missing; run the score stage (dvc repro score).")
    try:
        return pd.read_parquet(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInputError(
            f"{path} can't be read as predictions; delete it and run dvc repro score."
        ) from error
