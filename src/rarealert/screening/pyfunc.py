"""The student as MLflow serves it: a model from code, registered by this file's path.

MLflow runs this file each time it loads a version (https://mlflow.org/docs/latest/ml/model/
models-from-code/), so nothing is pickled and a reviewer can read what runs. The base model is
not part of the artifact: the adapter folder names it with its digest, and loading refuses any
other. Tables are for MLflow alone; screening unwraps ``RiskModel`` and uses its ``scorer``.
"""

import math
import warnings
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from pydantic import ValidationError

from rarealert.errors import BadInputError
from rarealert.screening.answer import COLUMNS, Screener
from rarealert.visits.case import TEXT_FIELDS, Case
from rarealert.visits.reading import read_visit

with warnings.catch_warnings():  # mlflow 3.17 warns of its own type hints when imported
    warnings.simplefilter("ignore", UserWarning)
    from mlflow.pyfunc.model import PythonModel

if TYPE_CHECKING:
    from mlflow.pyfunc.model import PythonModelContext

ADAPTER = "adapter"
"""Name of the artifact that holds the student's folder."""

CALIBRATION_PREVALENCE = "calibration_prevalence"
"""Key of the model's configuration: the share of rare cases its calibrator was fitted on."""

VISIT_COLUMNS = ("case_id", "age_years", "sex", *TEXT_FIELDS)
"""Columns that a request may hold; the student reads no coded findings."""


def signature() -> ModelSignature:
    """Input columns (``case_id`` alone is required), output columns and inference parameters."""
    optional = [ColSpec(DataType.string, name, required=False) for name in VISIT_COLUMNS[2:]]
    inputs: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.string, "case_id"),
        ColSpec(DataType.double, "age_years", required=False),
        *optional,
    ]
    outputs: list[ColSpec | TensorSpec] = [
        *(ColSpec(DataType[kind], name) for name, kind in COLUMNS.items()),
        ColSpec(DataType.string, "rationale", required=False),
    ]
    params = [
        ParamSpec("rationale", DataType.boolean, False),
        ParamSpec("prevalence", DataType.double, None),
    ]
    return ModelSignature(Schema(inputs), Schema(outputs), ParamSchema(params))


def input_example() -> pd.DataFrame:
    """One visit invented for this purpose; it stems from no corpus."""
    return pd.DataFrame(
        {
            "case_id": ["example-1"],
            "age_years": [34.0],
            "sex": ["female"],
            "chief_complaint": ["Tired for half a year."],
            "history_of_present_illness": ["Muscle cramps after climbing stairs; dark urine once."],
            "physical_examination": ["Calves large and firm, reflexes weak."],
        }
    )


def request_frame(cases: Sequence[Case]) -> pd.DataFrame:
    """One row a case, without the columns that no case fills."""
    rows = [{name: getattr(case, name) for name in VISIT_COLUMNS} for case in cases]
    frame = pd.DataFrame(rows, columns=list(VISIT_COLUMNS))
    # a column without any value has no type of its own, and MLflow would refuse it
    return frame.astype({"age_years": "float64"}).dropna(axis="columns", how="all")


def to_cases(frame: pd.DataFrame) -> list[Case]:
    """One case a row; empty strings and NaN count as absent.

    Raises:
        BadInputError: a column is unknown, or a row is no case; the message names row and field.
    """
    unknown = sorted(set(frame.columns) - set(VISIT_COLUMNS))
    if unknown or "case_id" not in frame.columns:
        wrong = f"unknown column {unknown[0]!r}" if unknown else "no column 'case_id'"
        raise BadInputError(f"The request has {wrong}; the columns are {', '.join(VISIT_COLUMNS)}.")
    rows: list[dict[Hashable, Any]] = frame.to_dict("records")
    return [_to_case(number, row) for number, row in enumerate(rows, start=1)]


def _to_case(number: int, row: Mapping[Hashable, Any]) -> Case:
    held = {str(name): value for name, value in row.items() if not _absent(value)}
    try:
        return Case.model_validate({**held, "source": "request"})
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the row"
        raise BadInputError(f"Row {number}: {field}: {first['msg']}. Correct the row.") from None


def _absent(value: object) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


class RiskModel(PythonModel):
    """Risk of rare disease for each visit of a table; ``scorer`` answers readings directly."""

    scorer: Screener

    def load_context(self, context: "PythonModelContext") -> None:
        """Load adapter and base model.

        Raises:
            BadInputError: as ``Screener.load``.
        """
        calibrated_at = float(context.model_config[CALIBRATION_PREVALENCE])
        self.scorer = Screener.load(Path(context.artifacts[ADAPTER]), calibrated_at)

    # MLflow passes no context to a predict that names none; load_context had it.
    def predict(  # type: ignore[override]
        self, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row a visit, with the columns of ``rarealert.screening.answer.COLUMNS``.

        ``params["rationale"]`` adds a column with a rationale for each English visit;
        ``params["prevalence"]`` (0-1, exclusive) restates the risk and its interval for a
        population with that share of rare disease.

        Raises:
            BadInputError: a row is no case, or the prevalence is out of range.
        """
        chosen = params or {}
        readings = [read_visit(case) for case in to_cases(model_input)]
        wanted = bool(chosen.get("rationale"))
        answers = self.scorer.answer(
            readings, chosen.get("prevalence"), "all" if wanted else "none"
        )
        table = pd.DataFrame([each.row() for each in answers], columns=list(COLUMNS))
        if wanted:
            table["rationale"] = [each.rationale for each in answers]
        return table


if __name__ != "rarealert.screening.pyfunc":  # MLflow runs the file under a name of its own
    mlflow.models.set_model(RiskModel())
