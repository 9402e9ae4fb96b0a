"""The cached answers of a panel on given cases, and each teacher's coverage.

Answers are parsed from the shards into Arrow, a block at a time. They are not validated again: the
schema that accepted them is part of their key.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rarealert.files import whole
from rarealert.teachers.answer import SCHEMA
from rarealert.teachers.cache import Located, RationaleCache
from rarealert.teachers.teacher import Teacher
from rarealert.visits.case import Case
from rarealert.visits.reading import read_visit

_DIGITS = 4
_BLOCK = 8192  # answers parsed at a time, and a row group of the file: some 20 MB
_CHUNK = 512  # visits rendered at a time: each is rendered once for all teachers
STATUSES = ("missing", "failed", "ok")
_MISSING, _FAILED, _OK = range(3)
_NO_QUESTION = -1  # the teacher has no answer to the case
_NEXT_FIELD = b',"at":"'  # of a cached row, after its answer
_KEYS = ("case_id", "teacher", "status")
_ANSWER = pa.schema([column for column in SCHEMA if column.name not in _KEYS])


@dataclass(frozen=True)
class Projection:
    """One row a teacher and case, teacher by teacher in panel order, cases in their order.

    ``status`` are indices into ``STATUSES``, shape ``(n_teachers, n_cases)``. A request without
    an answer is ``failed`` if it failed at least once, else ``missing``.
    """

    teachers: Sequence[Teacher]
    cases: Sequence[Case]
    status: NDArray[np.int8]
    _answer: NDArray[np.int32]
    _keys: Sequence[str]
    _located: Located

    def write(self, path: Path, used: frozenset[str]) -> int:
        """Write the rows of the teachers in ``used``; returns the number of answers.

        The file has the columns of ``answer.SCHEMA`` and appears only once it is whole. The same
        cache, cases and panel give the same bytes.
        """
        kept = [row for row, teacher in enumerate(self.teachers) if teacher.id in used]
        with whole(path) as partial, pq.ParquetWriter(partial, SCHEMA) as writer:
            for row in kept:
                for start in range(0, len(self.cases), _BLOCK):
                    writer.write_table(self._block(row, slice(start, start + _BLOCK)))
        return int((self.status[kept] == _OK).sum())

    def _block(self, row: int, span: slice) -> pa.Table:
        cases = self.cases[span]
        rows = self._located.rows(self._answer[row, span].tolist(), self._keys)
        answers = _parse(rows)
        columns = {
            "case_id": pa.array([case.case_id for case in cases], pa.string()),
            "teacher": pa.array([self.teachers[row].id] * len(cases), pa.string()),
            "status": pa.array([STATUSES[code] for code in self.status[row, span]], pa.string()),
            **{column.name: answers.field(column.name) for column in _ANSWER},
        }
        return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _parse(rows: Sequence[bytes]) -> pa.StructArray:
    """The field ``answer`` of each row, null where the row is empty, shape ``(n_rows,)``."""
    lines = b"\n".join(_up_to_answer(row) for row in rows)
    answer = pa.struct(list(_ANSWER))
    table = pj.read_json(
        pa.BufferReader(lines),
        pj.ReadOptions(block_size=max(1 << 20, len(lines) + 1)),
        pj.ParseOptions(
            explicit_schema=pa.schema([("answer", answer)]), unexpected_field_behavior="ignore"
        ),
    )
    found: pa.ChunkedArray = table.column("answer")
    whole = found.combine_chunks()
    return pa.StructArray.from_arrays(whole.flatten(), fields=list(_ANSWER))


def _up_to_answer(row: bytes) -> bytes:
    """The row up to its answer: a model's raw response would double what is parsed.

    Fields are in the order of their names, and a quotation mark in a text is escaped, so the first
    such sequence begins the next field.
    """
    end = row.find(_NEXT_FIELD)
    return (row[:end] if end >= 0 else row[:-1] or b"{") + b"}"


def project(
    teachers: Sequence[Teacher], cases: Sequence[Case], cache: RationaleCache
) -> Projection:
    """The cached answers of ``teachers`` on ``cases``; asks no teacher and changes nothing.

    Memory is about 400 bytes an answer, whatever its length.
    """
    keys: dict[str, int] = {}
    answer = np.full((len(teachers), len(cases)), _NO_QUESTION, np.int32)
    for start in range(0, len(cases), _CHUNK):
        readings = [read_visit(case) for case in cases[start : start + _CHUNK]]
        for row, teacher in enumerate(teachers):
            for column, reading in enumerate(readings, start=start):
                request = teacher.request(reading)
                if request is not None:
                    answer[row, column] = keys.setdefault(request.key, len(keys))
    located = cache.locate(keys)
    of_key = np.where(located.found, _OK, _MISSING).astype(np.int8)
    failed = [keys[key] for key in cache.failed() if key in keys]
    of_key[failed] = np.maximum(of_key[failed], _FAILED)
    status = np.where(answer == _NO_QUESTION, _MISSING, np.append(of_key, _MISSING)[answer])
    return Projection(teachers, cases, status.astype(np.int8), answer, list(keys), located)


@dataclass(frozen=True)
class Coverage:
    """One teacher's coverage. ``sources`` maps a source to its counts by status."""

    share: float | None
    """Share 0-1 of its deciding cases with an answer, ``None`` without a deciding case."""
    used: bool
    """Whether the share reaches the required coverage."""
    sources: Mapping[str, Mapping[str, int]]


def coverage(
    projection: Projection, deciding: frozenset[str], min_coverage: float
) -> dict[str, Coverage]:
    """The coverage of each teacher, by id.

    A teacher of one corpus is measured on that corpus alone. Only cases whose id is in ``deciding``
    (train and valid) decide which teachers are used, so that the test part decides nothing; the
    counts are of all cases. A teacher without a deciding case is not used.
    """
    source = np.array([case.source for case in projection.cases])
    decides = np.array([case.case_id in deciding for case in projection.cases], bool)
    found = {}
    for teacher, status in zip(projection.teachers, projection.status, strict=True):
        own = sorted(set(source) if teacher.sources is None else set(source) & teacher.sources)
        counts = {
            str(name): {
                STATUSES[code]: int(((source == name) & (status == code)).sum())
                for code in (_FAILED, _MISSING, _OK)
            }
            for name in own
        }
        judged = status[decides & np.isin(source, own)]
        share = float((judged == _OK).mean()) if judged.size else None
        used = share is not None and share > 0 and share >= min_coverage
        rounded = None if share is None else round(share, _DIGITS)
        found[teacher.id] = Coverage(rounded, used, counts)
    return found
