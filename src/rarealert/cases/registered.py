"""A pre-registered split: a CSV of case id and part, honoured as it stands."""

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rarealert.cases.splits import PARTS
from rarealert.errors import BadInputError

_COLUMNS = ("case_id", "part")


@dataclass(frozen=True)
class RegisteredSplit:
    """The part of each case, in the order asked for; ``absent`` rows name cases we don't have."""

    parts: list[str]
    sha256: str
    absent: int


def read_registered(path: Path, case_ids: Sequence[str]) -> RegisteredSplit:
    """The parts that ``path`` gives to ``case_ids``; a row of an unknown case is counted.

    Such rows are no error: a case may have been registered and then been refused at ingest.

    Raises:
        BadInputError: the file is missing or no such CSV, a part is unknown, a case has two rows
            or none.
    """
    content = _content(path)
    try:
        rows = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        lacking = [name for name in _COLUMNS if name not in (rows.fieldnames or ())]
        if lacking:
            raise BadInputError(f"{path} has no column {lacking[0]}; give case_id,part.")
        part_of = _parts(path, rows)
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInputError(f"{path} is no CSV in UTF-8; save it as such.") from error
    missing = [case_id for case_id in case_ids if case_id not in part_of]
    if missing:
        raise BadInputError(
            f"{path} gives no part to {len(missing)} of {len(case_ids)} cases, among them "
            f"{min(missing)}; add a row for each."
        )
    return RegisteredSplit(
        parts=[part_of[case_id] for case_id in case_ids],
        sha256=hashlib.sha256(content).hexdigest(),
        absent=len(part_of.keys() - set(case_ids)),
    )


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInputError(
            f"{path}, which split.assign names, can't be read; put the CSV there."
        ) from error


def _parts(path: Path, rows: "csv.DictReader[str]") -> dict[str, str]:
    part_of: dict[str, str] = {}
    for row in rows:
        case_id, part = (row["case_id"] or "").strip(), (row["part"] or "").strip()
        where = f"{path}, line {rows.line_num}"
        if part not in PARTS:
            raise BadInputError(f"{where}: part must be one of {', '.join(PARTS)}; mend the row.")
        if not case_id:
            raise BadInputError(f"{where}: case_id is empty; mend the row.")
        if case_id in part_of:
            raise BadInputError(f"{where}: case {case_id[:200]} has two rows; keep one.")
        part_of[case_id] = part
    return part_of
