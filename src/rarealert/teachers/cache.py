"""The rationale cache: what teachers said, kept so that nothing is lost and nothing asked twice.

Successes and failures lie in shards of their own below one folder (``build/teach/cache``). Only
successes count as answered; a failure is asked again by the next run. The first success of a key
in shard order is the one that is read, so that two writers never change what was projected.
"""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from rarealert.teachers.answer import Answer
from rarealert.teachers.shards import ShardWriter, scan, set_aside_damage, shards
from rarealert.teachers.teacher import Request, digest

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
        return sum(set_aside_damage(self.folder, kind) for kind in (_ANSWERS, _FAILURES))

    def answered(self) -> set[str]:
        """Keys of all requests that were answered."""
        return {line.key for line in scan(self.folder, _ANSWERS) if line.key is not None}

    def failed(self) -> set[str]:
        """Keys of all requests that failed at least once."""
        return {line.key for line in scan(self.folder, _FAILURES) if line.key is not None}

    def answers(self, keys: set[str]) -> Iterator[tuple[str, Answer]]:
        """The answers to ``keys`` in shard order, each key once; unanswered keys are left out."""
        open_keys = set(keys)
        for line in scan(self.folder, _ANSWERS):
            if line.key in open_keys and line.row is not None:
                open_keys.remove(line.key)
                yield line.key, Answer.model_validate(json.loads(line.row)["answer"])

    def add(
        self,
        request: Request,
        case_id: str,
        answer: Answer,
        usage: Usage | None = None,
        response: str | None = None,
    ) -> None:
        """Keep an answer; it outlives a kill -9 from the moment this returns.

        ``response`` is the raw text a model sent; teachers that are code have none.
        """
        row = self._row(request, case_id, usage)
        row["answer"] = answer.model_dump(mode="json")
        row["response"] = response
        row["response_digest"] = None if response is None else digest(response.encode())
        with self._lock:
            self._answers.append(request.key, row)

    def fail(
        self, request: Request, case_id: str, error: Exception, usage: Usage | None = None
    ) -> None:
        """Keep a failure by the exception's type alone: its message may quote the case."""
        row = {**self._row(request, case_id, usage), "error": type(error).__name__}
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
                else:
                    entry.failures[row["error"]] += 1
                entry.prompt_tokens += row["usage"]["prompt_tokens"] or 0
                entry.completion_tokens += row["usage"]["completion_tokens"] or 0
                entry.cost_usd += row["usage"]["cost_usd"] or 0.0
        return dict(sorted(found.items()))

    def _row(self, request: Request, case_id: str, usage: Usage | None) -> dict[str, object]:
        return {
            "case_id": case_id,
            "request": request.described(),
            "usage": vars(usage or Usage()),
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
