"""The answers of a screened file read back, each checked: what is amiss is told by row and column.

A file that was opened in a spreadsheet, cut, or written by an earlier version holds cells where
they don't belong. They may be a visit's words, so nothing that stands in a cell is ever told.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from rarealert.cases.sources.files import json_lines, no_tick
from rarealert.cases.sources.rows import rows
from rarealert.errors import BadInputError
from rarealert.student.calibration import Band

FLAGS: Final = ("abstain", "out_of_distribution", "not_english", "truncated")
"""Columns that are true or false."""

_ENDINGS = (".jsonl", ".csv", ".parquet")
_OF_FINDING = ("hpo_id", "status")
_TRUTH = {"true": True, "false": False}


@dataclass(frozen=True)
class SaidRow:
    """What one answer says; ``distance`` is its ``ood_score``, ``flags`` are those of ``FLAGS``."""

    risk: float
    band: str
    distance: float
    evidence: list[Mapping[str, Any]]
    flags: Mapping[str, bool]


def holds_answers(path: Path) -> bool:
    """Whether the first whole row of ``path`` is an answer.

    Raises:
        BadInputError: it is missing, empty, or can't be read at all.
    """
    if not path.exists():
        raise BadInputError(f"{path} is missing; name a file of visits or of answers.")
    if path.suffix.lower() not in _ENDINGS:
        return False
    first = next((row for _, row in _rows(path) if not isinstance(row, str)), {})
    return {"risk", "band"} <= first.keys()


def read_answers(path: Path) -> Iterator[SaidRow]:
    """Every answer of ``path``, in order.

    Raises:
        BadInputError: a row is none; the sentence names its number (a line of CSV or JSONL) and
            column.
    """
    for number, row in _rows(path):
        place = f"{path}, {'row' if path.suffix.lower() == '.parquet' else 'line'} {number}"
        if isinstance(row, str):
            raise BadInputError(f"{place}: {row}; screen the visits again.")
        yield _Checked(place, row).said()


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    return json_lines(path) if path.suffix.lower() == ".jsonl" else rows(path, no_tick)


@dataclass(frozen=True)
class _Checked:
    """One row and where it stands; a cell is given only as what its column has to hold."""

    place: str
    row: Mapping[str, Any]

    def said(self) -> SaidRow:
        band = self._cell("band")
        if band not in get_args(Band):
            raise self._amiss("band", f"none of {', '.join(get_args(Band))}")
        risk = self._number("risk")
        if not 0 <= risk <= 1:
            raise self._amiss("risk", "not from 0 to 1")
        flags = {name: self._truth(name) for name in FLAGS}
        return SaidRow(risk, band, self._number("ood_score"), self._evidence(), flags)

    def _cell(self, name: str) -> Any:
        value = self.row.get(name)
        if value is None:
            raise self._amiss(name, "missing; an earlier RareAlert or another program wrote it")
        return value

    def _number(self, name: str) -> float:
        try:
            value = float(self._cell(name))
        except (TypeError, ValueError, OverflowError):
            raise self._amiss(name, "not a number") from None
        if not math.isfinite(value):
            raise self._amiss(name, "not a finite number")
        return value

    def _truth(self, name: str) -> bool:
        said = _TRUTH.get(str(self._cell(name)).lower())
        if said is None:
            raise self._amiss(name, "neither true nor false")
        return said

    def _evidence(self) -> list[Mapping[str, Any]]:
        told = self._cell("evidence")
        try:
            found = json.loads(str(told).removeprefix("'"))
            whole = all(isinstance(each[key], str) for each in found for key in _OF_FINDING)
        except (ValueError, TypeError, KeyError, RecursionError):
            whole = False
        if not whole or not isinstance(found, list):
            raise self._amiss("evidence", "not the list of findings that screening writes")
        return found

    def _amiss(self, name: str, reason: str) -> BadInputError:
        return BadInputError(f"{self.place}: {name} is {reason}. Screen the visits again.")
