"""Cases on disk: one flat Parquet row a case, with an explicit schema."""

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from rarealert.errors import BadInputError
from rarealert.files import whole
from rarealert.visits.case import TEXT_FIELDS, Case, Label, LabelledCase

SCHEMA = pa.schema(
    [
        pa.field("case_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("patient_id", pa.string()),
        pa.field("visit_date", pa.date32()),
        pa.field("age_years", pa.float64()),
        pa.field("sex", pa.string()),
        *(pa.field(name, pa.string()) for name in TEXT_FIELDS),
        pa.field("findings_present", pa.list_(pa.string())),
        pa.field("findings_excluded", pa.list_(pa.string())),
        pa.field("label", pa.string(), nullable=False),
        pa.field("disease_id", pa.string(), nullable=False),
        pa.field("disease_name", pa.string(), nullable=False),
        pa.field("orpha_code", pa.string()),
        pa.field("orphanet_head", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
    ]
)
"""Columns of every case file: the fields of ``Case``, then those of ``Label``."""

_AGAIN = "fix it, or, if a stage wrote it, delete it and run dvc repro."
_CHUNK_ROWS = 8192  # rows in Arrow at a time: a second copy of 160,000 cases would cost a gigabyte


def write_cases(path: Path, cases: Iterable[LabelledCase]) -> None:
    """Write ``cases`` to a Parquet file that appears only once it is whole."""
    left = iter(cases)
    with whole(path) as partial, pq.ParquetWriter(partial, SCHEMA) as writer:
        while chunk := list(islice(left, _CHUNK_ROWS)):
            rows = [{**item.case.model_dump(), **item.label.model_dump()} for item in chunk]
            writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))


def read_cases(path: Path) -> list[LabelledCase]:
    """All cases of a file that ``write_cases`` made.

    Raises:
        BadInputError: the file is missing, is not Parquet, has no column of the schema, or a row
            breaks the contract; the message has the row's number and field, never its content.
    """
    if not path.is_file():
        raise BadInputError(f"{path} is missing; run the stage that makes it (dvc repro).")
    try:
        missing = sorted(set(SCHEMA.names) - set(pq.read_schema(path).names))
        rows = [] if missing else pq.read_table(path, schema=SCHEMA).to_pylist()
    except (ValueError, OSError) as error:  # pyarrow's are ValueErrors, as is undecodable text
        raise BadInputError(
            f"{path} can't be read as a case file, Parquet with the columns of "
            f"build/ingest/cases.parquet; {_AGAIN}"
        ) from error
    if missing:
        raise BadInputError(
            f"{path} has no column {missing[0]} of build/ingest/cases.parquet; {_AGAIN}"
        )
    return [_from_row(path, number, row) for number, row in enumerate(rows, 1)]


def _from_row(path: Path, number: int, row: dict[str, object]) -> LabelledCase:
    try:
        return LabelledCase(
            case=Case.model_validate({name: row[name] for name in Case.model_fields}),
            label=Label.model_validate({name: row[name] for name in Label.model_fields}),
        )
    except ValidationError as error:
        where = ".".join(map(str, error.errors(include_input=False)[0]["loc"])) or "the whole row"
        raise BadInputError(
            f"{path} row {number}: {where} breaks the contract of a case; {_AGAIN}"
        ) from None


def disease_groups(cases: Sequence[LabelledCase]) -> list[str]:
    """The disease of each case, shape ``(n_cases,)``: the group that no fold may separate."""
    return [item.label.disease_id for item in cases]


def is_rare(cases: Sequence[LabelledCase]) -> list[bool]:
    """Whether each case is rare, shape ``(n_cases,)``."""
    return [item.label.label == "rare" for item in cases]
