"""A teacher's answer to a case, the same for every kind of teacher, and the file of all answers."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from rarealert.errors import BadInputError
from rarealert.files import whole

_WEIGHT_TOLERANCE = 0.02  # weights that a model rounded to two digits may sum to 0.98
_STEPS = 201  # risks are at most 100 apart, so the expected one moves a risk by less than 0.5

Flag = Literal["instruction_in_case", "repaired"]
"""Notes on an answer: the visit's text looks like instructions to the model, or the model's first
reply was invalid and it sent a corrected one."""


class Insight(BaseModel):
    """One thing that moved the risk, its weight 0 to 1, and the reason."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    weight: Annotated[float, Field(ge=0, le=1)]
    explanation: str


class Differential(BaseModel):
    """A disease the teacher considers, most likely first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    orpha_code: str | None = None


class TeacherAnswer(BaseModel):
    """A teacher's answer to one case. ``risk`` is a percentage, 0 to 100.

    A teacher that is asked must give five insights; answers recorded elsewhere may have fewer.
    ``expected_risk`` is the mean of the risk under the model's token probabilities, 0 to 100, where
    they are available: it orders answers of the same ``risk``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    insights: Annotated[tuple[Insight, ...], Field(max_length=5)]
    differential: Annotated[tuple[Differential, ...], Field(max_length=5)]
    risk: Annotated[int, Field(ge=0, le=100)]
    explanation: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    expected_risk: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    flags: tuple[Flag, ...] = ()

    @model_validator(mode="after")
    def _weights_sum_to_one(self) -> Self:
        total = sum(insight.weight for insight in self.insights)
        if self.insights and abs(total - 1) > _WEIGHT_TOLERANCE:
            raise ValueError(f"the insights' weights sum to {total:.3f}, not to 1")
        return self


def graded_risk(risk: int, expected: float | None) -> float:
    """``risk``, 0 to 100, as 0 to 1, with ties in the order of ``expected``.

    The expected risk moves a risk by less than half a point, so it only breaks ties.
    """
    moved = risk if expected is None else risk + (expected - risk) / _STEPS
    return moved / 100


class AnswerRow(BaseModel):
    """One row of ``build/rationales/answers.parquet``.

    A case without an answer keeps its row with ``answer`` empty: missing is not a risk of zero.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case_id: str
    teacher: str
    status: Literal["ok", "failed", "missing"]
    answer: TeacherAnswer | None


SCHEMA = pa.schema(
    [
        pa.field("case_id", pa.string(), nullable=False),
        pa.field("teacher", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("risk", pa.int16()),
        pa.field(
            "insights",
            pa.list_(
                pa.struct(
                    [("name", pa.string()), ("weight", pa.float64()), ("explanation", pa.string())]
                )
            ),
        ),
        pa.field(
            "differential",
            pa.list_(pa.struct([("name", pa.string()), ("orpha_code", pa.string())])),
        ),
        pa.field("explanation", pa.string()),
        pa.field("expected_risk", pa.float64()),
        pa.field("flags", pa.list_(pa.string())),
    ]
)
"""Columns of the projected answers: one row a case and teacher."""


def write_answers(path: Path, answers: Iterable[AnswerRow]) -> None:
    """Write ``answers`` to a Parquet file that appears only once it is whole."""
    rows = []
    for item in answers:
        answer = item.answer.model_dump() if item.answer else {}
        rows.append({**item.model_dump(exclude={"answer"}), **answer})
    with whole(path) as partial:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), partial)


def read_answers(path: Path) -> list[AnswerRow]:
    """All answers of a file that ``write_answers`` made.

    Raises:
        BadInputError: the file is missing or not an answers file.
    """
    if not path.is_file():
        raise BadInputError(f"{path} is missing; run the rationales stage (dvc repro rationales).")
    try:
        rows = pq.read_table(path, schema=SCHEMA).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInputError(
            f"{path} can't be read as an answers file; delete it and run dvc repro."
        ) from error
    return [_from_row(row) for row in rows]


def _from_row(row: dict[str, object]) -> AnswerRow:
    key = {name: row[name] for name in ("case_id", "teacher", "status")}
    answer = None
    if row["status"] == "ok":
        answer = TeacherAnswer.model_validate(
            {name: row[name] for name in TeacherAnswer.model_fields}
        )
    return AnswerRow.model_validate({**key, "answer": answer})
