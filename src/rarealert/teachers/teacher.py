"""The interface of every teacher, and the request whose digest is the key in the cache."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Protocol

from rarealert.files import canonical_json, digest
from rarealert.teachers.teacher_answer import TeacherAnswer
from rarealert.visits.reading import Reading

ANSWER_SCHEMA = "377716ca3c96e96fc4812b4cbae222d1e283d9eab8c4e0cdb0af08a038ede3ea"
"""Part of every cache key: the sha256 of the answer's first JSON Schema. Replace it when a field of
``TeacherAnswer`` or its range changes; a changed docstring must not make the cache stale."""


@dataclass(frozen=True)
class Request:
    """One question to one teacher: what decides the answer, and nothing else.

    Retries, time-outs and rate limits are not part of it. The visit's text is part of it by digest
    only.
    """

    teacher: str
    kind: str
    method: str
    """Version or digest of the prompt or code that turns the input into an answer."""
    input_digest: str
    renderer: str
    model: str | None = None
    base_url: str | None = None
    settings: Mapping[str, str | int | float | bool] = field(default_factory=dict)

    def described(self) -> dict[str, object]:
        """The request as the cache stores it."""
        own = {item.name: getattr(self, item.name) for item in fields(self)}
        # part of every key since the first ones, which had options and repeated samples
        return own | {"answer_schema": ANSWER_SCHEMA, "options": {}, "sample": 0}

    @cached_property
    def key(self) -> str:
        """sha256 of ``described()`` as canonical JSON, 64 hexadecimal characters."""
        return digest(canonical_json(self.described()))


class Teacher(Protocol):
    """A source of answers on visits; it never gets a label."""

    @property
    def id(self) -> str:
        """The name in the panel."""
        ...

    @property
    def sources(self) -> frozenset[str] | None:
        """The case sources on which this teacher can answer; ``None`` is every source."""
        ...

    def request(self, reading: Reading) -> Request | None:
        """The question that the visit poses, or ``None`` where the teacher has no answer to it."""
        ...

    def ask(self, reading: Reading) -> TeacherAnswer | None:
        """The answer, or ``None`` where the reply holds none. May raise any exception."""
        ...
