"""Answers by their place in the shards, so that millions are projected without being held.

The rationale cache: what teachers said, kept so that nothing is lost and nothing asked twice.

Successes and failures lie in shards of their own below one folder (``build/teach/cache``). Only
successes count as answered; a failure is asked again by the next run. The first success of a key
in shard order is the one that is read, so that two writers never change what was projected.
"""

import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rarealert.errors import RareAlertError
from rarealert.teachers.answer import TeacherAnswer
from rarealert.teachers.shards import (
    Compaction,
    ShardWriter,
    compact,
    scan,
    set_aside_damage,
    shards,
)
from rarealert.teachers.teacher import Request, digest


@dataclass(frozen=True)
class Located:
    """Places of ``n`` answers; ``shard[i]`` is an index into ``shards``, -1 where there is none.

    ``offset`` and ``length`` are in bytes, all three arrays of shape ``(n,)``.
    """

    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    length: NDArray[np.int32]
    shards: list[Path] = field(default_factory=list)

    @classmethod
    def nowhere(cls, n: int) -> Self:
        """No answer of ``n`` is found yet."""
        return cls(np.full(n, -1, np.int32), np.zeros(n, np.int64), np.zeros(n, np.int32))

    @property
    def found(self) -> NDArray[np.bool_]:
        """Which answers there are, shape ``(n,)``."""
        known: NDArray[np.bool_] = self.shard >= 0
        return known

    def rows(self, wanted: Sequence[int], keys: Sequence[str]) -> list[bytes]:
        """The row of each of ``wanted``, in its order; empty where there is none.

        ``keys[i]`` is the key of answer ``i``.

        Raises:
            RareAlertError: a shard was rewritten since the answers were located.
        """
        rows = [b""] * len(wanted)
        order = sorted(
            (place for place, at in enumerate(wanted) if self.shard[at] >= 0),
            key=lambda place: (self.shard[wanted[place]], self.offset[wanted[place]]),
        )
        stream, opened = None, -1
        try:
            for place in order:
                at = wanted[place]
                if stream is None or self.shard[at] != opened:
                    opened = int(self.shard[at])
                    if stream is not None:
                        stream.close()
                    stream = self.shards[opened].open("rb")
                stream.seek(int(self.offset[at]))
                rows[place] = stream.read(int(self.length[at]))
                if not rows[place].startswith(b'{"key":"' + keys[at].encode()):
                    raise RareAlertError(_REWRITTEN)
        except FileNotFoundError as error:
            raise RareAlertError(_REWRITTEN) from error
        finally:
            if stream is not None:
                stream.close()
        return rows


_REWRITTEN = (
    "The cache was compacted or repaired by another process meanwhile; run the command again."
)


_ANSWERS = "answers"
_FAILURES = "failures"


@dataclass(frozen=True)
class Usage:
    """What an answer took; ``None`` where the kind of teacher has no such thing."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None
    seconds: float | None = None
    finish_reason: str | None = None
    request_id: str | None = None
    """What the endpoint calls this request; its operator can look it up."""


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
    """What the cache holds of one teacher."""

    answers: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    last: str = ""
    """When the newest answer was given, ISO 8601 in UTC."""


class RationaleCache:
    """The cache in ``folder``; a context manager, because its writers hold files open.

    Reading never changes the folder. Each instance writes shards of its own, so any number of
    processes may write at once.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._answers = ShardWriter(folder, _ANSWERS)
        self._failures = ShardWriter(folder, _FAILURES)
        self._lock = threading.Lock()
        self._just_read: set[str] | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._answers.close()
        self._failures.close()

    def set_aside_damage(self) -> int:
        """Move torn and corrupt lines to ``damaged/``; returns how many there were.

        What they held is simply no longer answered, so the next run asks for it and only for it.
        """
        moved, self._just_read = set_aside_damage(self.folder, _ANSWERS)
        return moved + set_aside_damage(self.folder, _FAILURES)[0]

    def answered(self) -> set[str]:
        """Keys of all requests that were answered.

        What ``set_aside_damage`` has read a moment ago is not read again: a large cache takes
        seconds.
        """
        known, self._just_read = self._just_read, None
        if known is None:
            known = {line.key for line in scan(self.folder, _ANSWERS) if line.key is not None}
        return known

    def failed(self) -> set[str]:
        """Keys of all requests that failed at least once."""
        return {line.key for line in scan(self.folder, _FAILURES) if line.key is not None}

    def locate(self, keys: Mapping[str, int]) -> Located:
        """Where the first answer to each of ``keys`` lies; its value is its place in the arrays."""
        places = Located.nowhere(len(keys))
        number: dict[Path, int] = {}
        for line in scan(self.folder, _ANSWERS):
            at = None if line.key is None else keys.get(line.key)
            if at is not None and line.row is not None and places.shard[at] < 0:
                places.shard[at] = number.setdefault(line.shard, len(number))
                places.offset[at] = line.offset
                places.length[at] = len(line.row)
        places.shards.extend(number)
        return places

    def add(
        self,
        request: Request,
        case_id: str,
        answer: TeacherAnswer,
        usage: Usage | None = None,
        response: str | None = None,
    ) -> None:
        """Keep an answer; it outlives a kill -9 from the moment this returns.

        ``response`` is the raw text a model sent; teachers that are code have none.
        """
        row = self._row(request, case_id, usage)
        row["answer"] = answer.model_dump(mode="json")
        row["response"] = response
        raw = None if response is None else response.encode(errors="replace")
        row["response_digest"] = None if raw is None else digest(raw)
        with self._lock:
            self._just_read = None
            self._answers.append(request.key, row)

    def fail(
        self, request: Request, case_id: str, error: Exception | str, usage: Usage | None = None
    ) -> None:
        """Keep a failure by its exception's type (or its name): a message may quote the case."""
        kind = error if isinstance(error, str) else type(error).__name__
        row = {**self._row(request, case_id, usage), "error": kind}
        with self._lock:
            self._failures.append(request.key, row)

    def verify(self) -> Verification:
        """Check every row's checksum."""
        damaged: list[str] = []
        seen: Counter[str] = Counter()
        rows: Counter[str] = Counter()
        for kind in (_ANSWERS, _FAILURES):
            for line in scan(self.folder, kind):
                if line.key is None:
                    damaged.append(f"{line.shard.name}:{line.number}")
                    continue
                rows[kind] += 1
                if kind == _ANSWERS:
                    seen[line.key] += 1
        return Verification(
            shards=sum(len(shards(self.folder, kind)) for kind in (_ANSWERS, _FAILURES)),
            answers=rows[_ANSWERS],
            failures=rows[_FAILURES],
            duplicates=rows[_ANSWERS] - len(seen),
            damaged=tuple(damaged),
        )

    def stats(self) -> dict[str, TeacherStats]:
        """Answers, failures by type, tokens and cost of each teacher, by teacher id."""
        found: dict[str, TeacherStats] = {}
        for kind in (_ANSWERS, _FAILURES):
            for line in scan(self.folder, kind):
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
        for line in scan(self.folder, _ANSWERS):
            if line.key is not None and line.row is not None and line.key not in seen:
                seen.add(line.key)
                row = json.loads(line.row)
                row["teacher"] = row["request"]["teacher"]
                yield {name: value for name, value in row.items() if name != "response"}

    def compact(self) -> tuple[Compaction, Compaction]:
        """Merge finished shards: answers, each question's first alone, and all failures."""
        return (
            compact(self.folder, _ANSWERS, once=True),
            compact(self.folder, _FAILURES, once=False),
        )

    def _row(self, request: Request, case_id: str, usage: Usage | None) -> dict[str, object]:
        return {
            "case_id": case_id,
            "request": request.described(),
            "usage": vars(usage or Usage()),
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
