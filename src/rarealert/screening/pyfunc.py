"""The student as MLflow serves it: a model from code, registered by this file's path.

MLflow runs this file each time it loads a version (https://mlflow.org/docs/latest/ml/model/
models-from-code/), so nothing is pickled and a reviewer can read what runs. The base model is
not part of the artifact: the adapter folder names it with its digest, and loading refuses any
other.
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec

from rarealert.errors import BadInputError
from rarealert.screening.answer import SAID, say
from rarealert.screening.frames import COLUMNS, to_cases
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

BATCH_SIZE = 32


def signature() -> ModelSignature:
    """Input columns (``case_id`` alone is required), output columns and inference parameters."""
    optional = [ColSpec(DataType.string, name, required=False) for name in COLUMNS[2:]]
    inputs: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.string, "case_id"),
        ColSpec(DataType.double, "age_years", required=False),
        *optional,
    ]
    outputs: list[ColSpec | TensorSpec] = [
        *(ColSpec(DataType[kind], name) for name, kind in SAID.items()),
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


class RiskModel(PythonModel):
    """Risk of rare disease for each visit of a table.

    The band comes from thresholds chosen on the validation part, at the prevalence the
    calibrator saw. A shift of prevalence is monotone and keeps the order of visits, so it
    restates the risk and its interval and leaves the band, which marks an operating point, as it
    is; nor does it touch ``abstain``, whose coverage holds for each label by itself.
    """

    def load_context(self, context: "PythonModelContext") -> None:
        """Load adapter and base model.

        Raises:
            BadInputError: the base model on this machine is not the one trained on, or the
                student was packaged before answers had an interval.
        """
        from rarealert.student.model import Student
        from rarealert.student.uncertainty import load_uncertainty

        folder = Path(context.artifacts[ADAPTER])
        self._uncertainty = load_uncertainty(folder)
        self._student = Student.load(folder)
        self._calibrated_at = float(context.model_config[CALIBRATION_PREVALENCE])

    # MLflow passes no context to a predict that names none; load_context had it.
    def predict(  # type: ignore[override]
        self, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row a visit, with the columns of ``rarealert.screening.saying.SAID``.

        ``params["rationale"]`` asks for a rationale; ``params["prevalence"]`` (0-1, exclusive)
        restates the risk and its interval for a population with that share of rare disease.

        Raises:
            BadInputError: a row is no case, or the prevalence is out of range.
        """
        chosen = params or {}
        prevalence = _checked_prevalence(chosen.get("prevalence"))
        readings = [read_visit(case) for case in to_cases(model_input)]
        predictions = self._student.predict(readings, BATCH_SIZE)
        columns = say(readings, predictions, self._uncertainty, self._calibrated_at, prevalence)
        if chosen.get("rationale"):
            said = self._student.rationales(readings, [item.band for item in predictions])
            columns["rationale"] = [item.text for item in said]
        return pd.DataFrame(columns)


def _checked_prevalence(value: object) -> float | None:
    if value is None:
        return None
    if not isinstance(value, (int, float)) or not 0 < value < 1:
        raise BadInputError("prevalence must be a share between 0 and 1, such as 0.02.")
    return float(value)


if __name__ != "rarealert.screening.pyfunc":  # MLflow runs the file under a name of its own
    mlflow.models.set_model(RiskModel())
