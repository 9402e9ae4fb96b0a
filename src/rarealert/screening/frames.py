"""Cases as the table that the registered model takes, and back."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from rarealert.errors import BadInputError
from rarealert.visits.case import TEXT_FIELDS, Case

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("case_id", "age_years", "sex", *TEXT_FIELDS)
"""What a request may hold; the coded findings of a case are not read by the student."""


def request_frame(cases: Sequence[Case]) -> "pd.DataFrame":
    """One row a case, without the columns that no case fills."""
    import pandas as pd

    rows = [{name: getattr(case, name) for name in COLUMNS} for case in cases]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    # A column without any value has no type of its own, and MLflow would refuse it.
    return frame.astype({"age_years": "float64"}).dropna(axis="columns", how="all")


def to_cases(frame: "pd.DataFrame") -> list[Case]:
    """One case a row; empty strings and NaN count as absent.

    Raises:
        BadInputError: a column is unknown, or a row is no case; the sentence names row and field.
    """
    unknown = sorted(set(frame.columns) - set(COLUMNS))
    if unknown or "case_id" not in frame.columns:
        wrong = f"unknown column {unknown[0]!r}" if unknown else "no column 'case_id'"
        raise BadInputError(f"The request has {wrong}; the columns are {', '.join(COLUMNS)}.")
    rows: list[dict[Hashable, Any]] = frame.to_dict("records")
    return [_to_case(number, row) for number, row in enumerate(rows, start=1)]


def _to_case(number: int, row: Mapping[Hashable, Any]) -> Case:
    held = {str(name): value for name, value in row.items() if not _absent(value)}
    try:
        return Case.model_validate({**held, "source": "request"})
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the row"
        raise BadInputError(f"Row {number}: {field}: {first['msg']}. Mend the row.") from None


def _absent(value: object) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))
