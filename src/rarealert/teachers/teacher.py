"""What every teacher is, whatever its kind, and the digest that names one question to it."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Protocol

from rarealert.teachers.answer import TeacherAnswer
from rarealert.visits.case import Case

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(data: bytes) -> str:
    """sha256 of ``data`` in hexadecimal, 64 characters."""
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: object) -> bytes:
    """``value`` as JSON with sorted keys and no spaces: equal values give equal bytes."""
    return _CANONICAL.encode(value).encode(errors="replace")


ANSWER_SCHEMA = "377716ca3c96e96fc4812b4cbae222d1e283d9eab8c4e0cdb0af08a038ede3ea"
"""Part of every cache key: the sha256 of the answer's first JSON Schema. Replace it when a field of
``TeacherAnswer`` or its range changes; a changed docstring must not make the cache stale."""


def source_digest(folders: Iterable[Path], suffixes: tuple[str, ...] = (".py", ".tsv")) -> str:
    """Digest of all source files below ``folders``, by relative name and content.

    A teacher that is code is versioned by its code: an edited method never meets a stale answer.
    """
    listing = [
        (folder.name, str(file.relative_to(folder)), digest(file.read_bytes()))
        for folder in folders
        for file in sorted(folder.rglob("*"))
        if file.suffix in suffixes
    ]
    return digest(canonical_json(listing))


@dataclass(frozen=True)
class Request:
    """One question to one teacher: everything that decides the answer, and nothing else.

    Retries, timeouts and rate limits are not in it. Case text is in it by digest only.
    """

    teacher: str
    kind: str
    method: str
    """Version or digest of the prompt or code that turns the input into an answer."""
    input_digest: str
    renderer: str
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    model: str | None = None
    base_url: str | None = None
    settings: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    sample: int = 0

    def described(self) -> dict[str, object]:
        """The request as the cache keeps it."""
        own = {item.name: getattr(self, item.name) for item in fields(self)}
        return {**own, "answer_schema": ANSWER_SCHEMA}

    @cached_property
    def key(self) -> str:
        """sha256 over all of it as canonical JSON, 64 hexadecimal characters.

        Among millions of requests little but the input differs, so what stands around it is
        written out once.
        """
        rest = (
            *(self.teacher, self.kind, self.method, self.renderer, self.model, self.base_url),
            *(self.sample, repr(self.options), repr(self.settings)),
        )
        if rest not in _AROUND:
            before, after = canonical_json({**self.described(), "input_digest": _HOLE}).split(
                canonical_json(_HOLE)
            )
            _AROUND[rest] = before, after
        before, after = _AROUND[rest]
        return digest(before + canonical_json(self.input_digest) + after)


_HOLE = "<the input's digest stands here, and this sentence nowhere else>"
_AROUND: dict[tuple[str | int | None, ...], tuple[bytes, bytes]] = {}
"""JSON before and after the input's digest, by all else that is in a request."""


class Teacher(Protocol):
    """Someone who judges a case without ever seeing its label."""

    @property
    def id(self) -> str:
        """The name in the panel."""
        ...

    @property
    def sources(self) -> frozenset[str] | None:
        """The case sources this teacher can speak of; ``None`` is every source."""
        ...

    def request(self, case: Case) -> Request | None:
        """The question that ``case`` poses, or ``None`` where the teacher has no answer to give."""
        ...

    def ask(self, case: Case) -> TeacherAnswer | None:
        """The judgement, or ``None`` where nothing usable was said. May raise anything."""
        ...
