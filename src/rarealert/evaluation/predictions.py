"""``build/score/predictions.parquet``: one row a case and model, checked on both sides."""

from collections.abc import Mapping, Sequence
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


def check_predictions(frame: "pd.DataFrame", cases: Mapping[str, Sequence[str]]) -> None:
    """Refuse predictions that would make a comparison unfair.

    ``frame`` has the columns ``COLUMNS``; ``cases`` are the case ids of each part. The student,
    every baseline and every control must have scored every case of both parts; teachers and the
    ensemble that combines them may lack cases that went unanswered, never invent them.

    Raises:
        BadInputError: a column is missing, a risk is NaN or outside 0-1, a case appears twice
            or belongs to no part, or a model that must be complete is not.
    """
    lacking = [name for name in COLUMNS if name not in frame.columns]
    if lacking:
        raise BadInputError(f"The predictions lack the column {lacking[0]}; run dvc repro score.")
    _check_risks(frame)
    twice = frame.duplicated(["case_id", "model"])
    if twice.any():
        row = frame[twice].iloc[0]
        raise BadInputError(
            f"{row['model']} scored case {row['case_id']} twice; run dvc repro score."
        )
    parts = set(frame["part"]) - set(cases)
    if parts:
        raise BadInputError(f"The predictions name an unknown part {min(parts)}; run dvc repro.")
    for part, ids in cases.items():
        _check_part(frame[frame["part"] == part], part, set(ids))


def _check_risks(frame: "pd.DataFrame") -> None:
    bad = frame["risk"].isna() | (frame["risk"] < 0) | (frame["risk"] > 1)
    if bad.any():
        row = frame[bad].iloc[0]
        raise BadInputError(
            f"{row['model']} gave case {row['case_id']} the risk {row['risk']}; a risk must be a "
            f"number in 0-1 ({int(bad.sum())} rows are not)."
        )


def _check_part(rows: "pd.DataFrame", part: str, ids: set[str]) -> None:
    foreign = set(rows["case_id"]) - ids
    if foreign:
        raise BadInputError(
            f"The predictions of the {part} part hold case {min(foreign)}, which is not in it; "
            "run dvc repro score."
        )
    if not (rows["model"] == STUDENT).any():
        raise BadInputError(f"The student has no predictions on the {part} part; run dvc repro.")
    for model, scored in rows.groupby("model")["case_id"]:
        if str(model).startswith(TEACHER_PREFIX) or model == ENSEMBLE:
            continue
        missing = ids - set(scored)
        if missing:
            raise BadInputError(
                f"{model} has not scored {len(missing)} of {len(ids)} cases of the {part} part, "
                f"among them {min(missing)}; every case counts, run dvc repro score."
            )


def write_predictions(path: Path, frame: "pd.DataFrame") -> None:
    """Write ``frame``, sorted by part, model and case, to a file that appears once it is whole."""
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
