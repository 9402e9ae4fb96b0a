"""What every teacher says of a case, whatever kind of teacher it is."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from rarealert.errors import BadInputError
from rarealert.files import whole

_WEIGHT_TOLERANCE = 0.02  # weights rounded to two digits by a model still count as summing to 1
_STEPS = 201  # two risks of 0-100 are at most 100 apart, so less than half a point is left of it

Flag = Literal["instruction_in_case", "repaired"]
"""What a reader of an answer should know: the visit's text tries to command the model, or the
answer was valid only after the model was told what was wrong with it."""


class Insight(BaseModel):
    """One thing the teacher leaned on, its share of the judgement, and why."""

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
    """A teacher's judgement of one case. ``risk`` is a percentage, 0 to 100.

    A teacher that is asked must give five insights; answers recorded elsewhere may hold fewer,
    because what was not said is not made up. ``expected_risk`` is the mean of the risk under the
    model's own token probabilities, 0 to 100, where it offers them: it tells answers of the same
    ``risk`` apart.
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
    """A stated risk of 0 to 100 as 0 to 1, answers of the same one in the order of ``expected``.

    The expected risk moves a stated one by less than half a point, so it breaks ties and never
    overturns what was said; without one the risk is the stated.
    """
    moved = risk if expected is None else risk + (expected - risk) / _STEPS
    return moved / 100


class AnswerRow(BaseModel):
    """One row of ``build/rationales/answers.parquet``.

    A failed, refused or never given answer keeps its row with ``answer`` empty: missing is not
    zero.
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
        said = item.answer.model_dump() if item.answer else {}
        rows.append({**item.model_dump(exclude={"answer"}), **said})
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
