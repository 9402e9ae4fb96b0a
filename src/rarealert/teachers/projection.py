"""The rationale cache seen from these cases and this panel, and how much of it there is.

Answers are read straight from the shards into Arrow, a block at a time: a row under a key is what
the answer's schema accepted when it was asked for, because the schema's digest is in the key.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
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

_DIGITS = 4
_BLOCK = 8192  # answers parsed at a time, and a row group of the file: some 20 MB
_CHUNK = 512  # cases whose keys are computed for all teachers before the next: renders stay warm
STATUSES = ("missing", "failed", "ok")
_MISSING, _FAILED, _OK = range(3)
_NOBODY = -1  # the teacher has no answer to give
_NEXT_FIELD = b',"at":"'  # of a cached row, after its answer
_KEYS = ("case_id", "teacher", "status")
_SAID = pa.schema([column for column in SCHEMA if column.name not in _KEYS])


@dataclass(frozen=True)
class Projection:
    """One row a teacher and case, teacher by teacher in panel order, cases in their order.

    ``status`` indexes ``STATUSES``, shape ``(n_teachers, n_cases)``: a request that only ever
    failed is ``failed``, one that was never answered ``missing``.
    """

    teachers: Sequence[Teacher]
    cases: Sequence[Case]
    status: NDArray[np.int8]
    _answer: NDArray[np.int32]
    _keys: Sequence[str]
    _located: Located

    def write(self, path: Path, listened: frozenset[str]) -> int:
        """Write the rows of the teachers in ``listened``; returns how many hold an answer.

        The file has the columns of ``answer.SCHEMA`` and appears only once it is whole. The same
        cache, cases and panel give the same bytes.
        """
        kept = [row for row, teacher in enumerate(self.teachers) if teacher.id in listened]
        with whole(path) as partial, pq.ParquetWriter(partial, SCHEMA) as writer:
            for row in kept:
                for start in range(0, len(self.cases), _BLOCK):
                    writer.write_table(self._block(row, slice(start, start + _BLOCK)))
        return int((self.status[kept] == _OK).sum())

    def _block(self, row: int, span: slice) -> pa.Table:
        cases = self.cases[span]
        rows = self._located.rows(self._answer[row, span].tolist(), self._keys)
        said = _parse(rows)
        columns = {
            "case_id": pa.array([case.case_id for case in cases], pa.string()),
            "teacher": pa.array([self.teachers[row].id] * len(cases), pa.string()),
            "status": pa.array([STATUSES[code] for code in self.status[row, span]], pa.string()),
            **{column.name: said.field(column.name) for column in _SAID},
        }
        return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _parse(rows: Sequence[bytes]) -> pa.StructArray:
    """The field ``answer`` of each row, null where the row is empty, shape ``(n_rows,)``."""
    lines = b"\n".join(_up_to_answer(row) for row in rows)
    answer = pa.struct(list(_SAID))
    table = pj.read_json(
        pa.BufferReader(lines),
        pj.ReadOptions(block_size=max(1 << 20, len(lines) + 1)),
        pj.ParseOptions(
            explicit_schema=pa.schema([("answer", answer)]), unexpected_field_behavior="ignore"
        ),
    )
    found: pa.ChunkedArray = table.column("answer")
    whole = found.combine_chunks()
    return pa.StructArray.from_arrays(whole.flatten(), fields=list(_SAID))


def _up_to_answer(row: bytes) -> bytes:
    """The row without what follows its answer; a model's raw response is as long again.

    Fields come in the order of their names, and a quotation mark inside a text has a backslash
    before it, so the first such sequence is the next field.
    """
    end = row.find(_NEXT_FIELD)
    return (row[:end] if end >= 0 else row[:-1] or b"{") + b"}"


def project(
    teachers: Sequence[Teacher], cases: Sequence[Case], cache: RationaleCache
) -> Projection:
    """What the cache holds of ``teachers`` on ``cases``; asks nobody and changes nothing.

    Memory is about 400 bytes an answer, whatever its length.
    """
    keys: dict[str, int] = {}
    answer = np.full((len(teachers), len(cases)), _NOBODY, np.int32)
    for start, chunk in _chunks(cases):
        for row, teacher in enumerate(teachers):
            for column, case in enumerate(chunk, start=start):
                request = teacher.request(case)
                if request is not None:
                    answer[row, column] = keys.setdefault(request.key, len(keys))
    located = cache.locate(keys)
    of_key = np.where(located.found, _OK, _MISSING).astype(np.int8)
    failed = [keys[key] for key in cache.failed() if key in keys]
    of_key[failed] = np.maximum(of_key[failed], _FAILED)
    status = np.where(answer == _NOBODY, _MISSING, np.append(of_key, _MISSING)[answer])
    return Projection(teachers, cases, status.astype(np.int8), answer, list(keys), located)


def _chunks(cases: Sequence[Case]) -> Iterator[tuple[int, list[Case]]]:
    left, start = iter(cases), 0
    while chunk := list(islice(left, _CHUNK)):
        yield start, chunk
        start += len(chunk)


@dataclass(frozen=True)
class Coverage:
    """How much one teacher said. ``sources`` maps a source to its counts by status."""

    share: float | None
    """Share of answered cases 0-1 among the judged cases of the sources it can speak of."""
    listened: bool
    sources: Mapping[str, Mapping[str, int]]


def coverage(
    projection: Projection, judged: frozenset[str], min_coverage: float
) -> dict[str, Coverage]:
    """The coverage of each teacher, by id.

    A teacher of one corpus is judged within that corpus: what it was never asked is no gap. Only
    cases whose id is in ``judged`` (train and valid) decide who is listened to, so that the test
    part decides nothing; the counts are of all cases. A teacher without a single judged case of
    its sources is not listened to, and its share is ``None``.
    """
    source = np.array([case.source for case in projection.cases])
    decides = np.array([case.case_id in judged for case in projection.cases], bool)
    found = {}
    for teacher, status in zip(projection.teachers, projection.status, strict=True):
        spoken = sorted(set(source) if teacher.sources is None else set(source) & teacher.sources)
        counts = {
            str(name): {
                STATUSES[code]: int(((source == name) & (status == code)).sum())
                for code in (_FAILED, _MISSING, _OK)
            }
            for name in spoken
        }
        own = status[decides & np.isin(source, spoken)]
        share = float((own == _OK).mean()) if own.size else None
        listened = share is not None and share > 0 and share >= min_coverage
        rounded = None if share is None else round(share, _DIGITS)
        found[teacher.id] = Coverage(rounded, listened, counts)
    return found
