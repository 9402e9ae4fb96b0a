"""The rationale cache: every answer of every teacher, so that no question is asked twice.

Successes and failures are in separate shards below one folder (``build/teach/cache``). A failed
question is asked again by the next run. Of several answers to one question the first in shard order
is read, so concurrent writers never change a projection.
"""

import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rarealert.errors import RareAlertError
from rarealert.files import digest
from rarealert.teachers import shards
from rarealert.teachers.teacher import Request
from rarealert.teachers.teacher_answer import TeacherAnswer

_ANSWERS = "answers"
_FAILURES = "failures"
_REWRITTEN = "Another process compacted or repaired the cache meanwhile. Run the command again."


@dataclass(frozen=True)
class Usage:
    """Resources of one answer; ``None`` where a kind of teacher has no such figure."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None
    seconds: float | None = None
    finish_reason: str | None = None
    request_id: str | None = None
    """The endpoint's id of the request, for its operator."""


@dataclass(frozen=True)
class Verification:
    """Counts over all shards; ``damaged`` holds ``shard name:line number``."""

    shards: int
    answers: int
    failures: int
    duplicates: int
    damaged: tuple[str, ...]


@dataclass
class TeacherStats:
    """Figures of one teacher."""

    answers: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    last: str = ""
    """Time of the newest answer, ISO 8601 in UTC."""


@dataclass(frozen=True)
class Located:
    """Places of ``n`` answers, so that millions are read without keeping them in memory.

    ``shard[i]`` is an index into ``shards``, -1 if there is no answer; ``offset`` and ``length``
    are in bytes. All three arrays have the shape ``(n,)``.
    """

    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    length: NDArray[np.int32]
    shards: list[Path]

    @property
    def found(self) -> NDArray[np.bool_]:
        """Whether there is an answer, shape ``(n,)``."""
        known: NDArray[np.bool_] = self.shard >= 0
        return known

    def rows(self, wanted: Sequence[int], keys: Sequence[str]) -> list[bytes]:
        """The row of each of ``wanted`` in its order, empty where there is none.

        ``keys[i]`` is the key of answer ``i``.

        Raises:
            RareAlertError: a shard was rewritten since the answers were located.
        """
        rows = [b""] * len(wanted)
        places: dict[int, list[int]] = {}
        for place, at in enumerate(wanted):
            if self.shard[at] >= 0:
                places.setdefault(int(self.shard[at]), []).append(place)
        for number, held in places.items():
            try:
                with self.shards[number].open("rb") as stream:
                    for place in sorted(held, key=lambda place: self.offset[wanted[place]]):
                        at = wanted[place]
                        stream.seek(int(self.offset[at]))
                        rows[place] = stream.read(int(self.length[at]))
                        if not rows[place].startswith(b'{"key":"' + keys[at].encode()):
                            raise RareAlertError(_REWRITTEN)
            except FileNotFoundError as error:
                raise RareAlertError(_REWRITTEN) from error
        return rows


class RationaleCache:
    """The cache in ``folder``; a context manager, because its writers keep files open.

    Reading changes nothing. Each instance writes its own shards, so any number of processes may
    write at once.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._answers = shards.ShardWriter(folder, _ANSWERS)
        self._failures = shards.ShardWriter(folder, _FAILURES)
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.close()
        self._failures.close()

    def set_aside_damage(self) -> tuple[int, set[str]]:
        """Move torn and corrupt lines to ``damaged/``, so that the next run asks for them again.

        Returns the number of lines moved, and the keys of all answers.
        """
        moved, keys = shards.set_aside_damage(self.folder, _ANSWERS)
        return moved + shards.set_aside_damage(self.folder, _FAILURES)[0], keys

    def answered(self) -> set[str]:
        """Keys of all requests with an answer."""
        return {line.key for line in shards.scan(self.folder, _ANSWERS) if line.key is not None}

    def failed(self) -> set[str]:
        """Keys of all requests that failed at least once."""
        return {line.key for line in shards.scan(self.folder, _FAILURES) if line.key is not None}

    def locate(self, keys: Mapping[str, int]) -> Located:
        """The place of the first answer to each key; its value is the index into the arrays."""
        n = len(keys)
        shard, offset = np.full(n, -1, np.int32), np.zeros(n, np.int64)
        length, number = np.zeros(n, np.int32), dict[Path, int]()
        for line in shards.scan(self.folder, _ANSWERS):
            at = None if line.key is None else keys.get(line.key)
            if at is not None and line.row is not None and shard[at] < 0:
                shard[at] = number.setdefault(line.shard, len(number))
                offset[at], length[at] = line.offset, len(line.row)
        return Located(shard, offset, length, list(number))

    def add(
        self,
        request: Request,
        case_id: str,
        answer: TeacherAnswer,
        usage: Usage | None = None,
        response: str | None = None,
    ) -> None:
        """Keep an answer; it survives a kill -9 once this returns.

        ``response`` is the raw text of a model; teachers that are code have none.
        """
        row = _row(request, case_id, usage)
        row["answer"] = answer.model_dump(mode="json")
        row["response"] = response
        raw = None if response is None else response.encode(errors="replace")
        row["response_digest"] = None if raw is None else digest(raw)
        with self._lock:
            self._answers.append(request.key, row)

    def fail(
        self, request: Request, case_id: str, error: Exception | str, usage: Usage | None = None
    ) -> None:
        """Keep a failure by the name of its exception: a message may quote the case."""
        kind = error if isinstance(error, str) else type(error).__name__
        row = {**_row(request, case_id, usage), "error": kind}
        with self._lock:
            self._failures.append(request.key, row)

    def verify(self) -> Verification:
        """Check every row's checksum."""
        damaged: list[str] = []
        keys: set[str] = set()
        rows: Counter[str] = Counter()
        for kind in (_ANSWERS, _FAILURES):
            for line in shards.scan(self.folder, kind):
                if line.key is None:
                    damaged.append(f"{line.shard.name}:{line.number}")
                    continue
                rows[kind] += 1
                if kind == _ANSWERS:
                    keys.add(line.key)
        return Verification(
            shards=sum(len(shards.shards(self.folder, kind)) for kind in (_ANSWERS, _FAILURES)),
            answers=rows[_ANSWERS],
            failures=rows[_FAILURES],
            duplicates=rows[_ANSWERS] - len(keys),
            damaged=tuple(damaged),
        )

    def stats(self) -> dict[str, TeacherStats]:
        """Answers, failures by type, tokens and cost of each teacher, by teacher id."""
        found: dict[str, TeacherStats] = {}
        for kind in (_ANSWERS, _FAILURES):
            for line in shards.scan(self.folder, kind):
                if line.row is None:
                    continue
                row = json.loads(line.row)
                entry = found.setdefault(row["request"]["teacher"], TeacherStats())
                if kind == _ANSWERS:
                    entry.answers += 1
                    entry.last = max(entry.last, row["at"])
                else:
                    entry.failures[row["error"]] += 1
                entry.prompt_tokens += row["usage"]["prompt_tokens"] or 0
                entry.completion_tokens += row["usage"]["completion_tokens"] or 0
                entry.cost_usd += row["usage"]["cost_usd"] or 0.0
        return dict(sorted(found.items()))

    def export(self) -> Iterator[dict[str, object]]:
        """Each answer once, with its provenance and without the model's raw response."""
        seen: set[str] = set()
        for line in shards.scan(self.folder, _ANSWERS):
            if line.key is not None and line.row is not None and line.key not in seen:
                seen.add(line.key)
                row = json.loads(line.row)
                row["teacher"] = row["request"]["teacher"]
                yield {name: value for name, value in row.items() if name != "response"}

    def compact(self) -> tuple[shards.Compaction, shards.Compaction]:
        """Merge finished shards: of answers only each question's first, and all failures."""
        return (
            shards.compact(self.folder, _ANSWERS, once=True),
            shards.compact(self.folder, _FAILURES, once=False),
        )


def _row(request: Request, case_id: str, usage: Usage | None) -> dict[str, object]:
    return {
        "case_id": case_id,
        "request": request.described(),
        "usage": vars(usage or Usage()),
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
