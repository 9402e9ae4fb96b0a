"""The cached answers of a panel on given cases, and each teacher's coverage.

Answers are read from the shards a block at a time, so memory does not grow with their length. They
are not validated again: the schema that accepted them is part of their key.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rarealert.files import whole
from rarealert.teachers.cache import Located, RationaleCache
from rarealert.teachers.teacher import Teacher
from rarealert.teachers.teacher_answer import SCHEMA
from rarealert.visits.case import Case
from rarealert.visits.reading import read_visit

_DIGITS = 4
_BLOCK = 8192  # answers parsed at a time, and a row group of the file: some 20 MB
_CHUNK = 512  # visits rendered at a time: each is rendered once for all teachers
STATUSES = ("missing", "failed", "ok")
_MISSING, _FAILED, _OK = range(3)
_NO_QUESTION = -1  # the teacher has no answer to the case


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
        teacher = self.teachers[row].id
        cached = self._located.rows(self._answer[row, span].tolist(), self._keys)
        rows = [
            {"case_id": case.case_id, "teacher": teacher, "status": STATUSES[status]}
            | (json.loads(answer)["answer"] if answer else {})
            for case, status, answer in zip(
                self.cases[span], self.status[row, span], cached, strict=True
            )
        ]
        return pa.Table.from_pylist(rows, schema=SCHEMA)


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
