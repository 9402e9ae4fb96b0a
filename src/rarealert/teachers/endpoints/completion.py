"""One whole response of an endpoint, read from its JSON without a model of every field."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from rarealert.teachers.endpoints.expectation import Token
from rarealert.teachers.endpoints.limits import price_of
from rarealert.teachers.panel import Price

_REQUEST_ID = "x-request-id"


@dataclass(frozen=True)
class Completion:
    """What an endpoint said, and what it counted."""

    content: str
    refusal: str | None
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    request_id: str | None
    tokens: tuple[Token, ...] = field(default=(), repr=False)


def read_completion(
    body: bytes,
    headers: Mapping[str, str],
    price: Price | None,
    redact: Callable[[str], str],
    worst_usd: float,
) -> Completion:
    """The completion in ``body``, a chat completion's JSON; ``redact`` takes keys out of its text.

    A server that does not count its tokens is taken to have charged ``worst_usd``.

    Raises:
        ValueError, TypeError, AttributeError, LookupError: the body is cut short or is of another
            shape.
    """
    said = _parsed(body)
    choice = said["choices"][0]
    message = choice["message"]
    read, written = _counted(said.get("usage"))
    counted = read is not None and written is not None
    return Completion(
        content=redact(_joined(message.get("content"))),
        refusal=_text(message.get("refusal")),
        finish_reason=_text(choice.get("finish_reason")),
        prompt_tokens=read or 0,
        completion_tokens=written or 0,
        cost_usd=price_of(price, read or 0, written or 0) if counted else worst_usd,
        request_id=_text(headers.get(_REQUEST_ID) or said.get("id")),
        tokens=_tokens(choice),
    )


def _counted(usage: object) -> tuple[int | None, int | None]:
    """Tokens of prompt and reply, ``None`` where the server gives no number."""
    held = usage if isinstance(usage, dict) else {}
    said = (held.get("prompt_tokens"), held.get("completion_tokens"))
    read, written = (
        int(count) if isinstance(count, int | float) and 0 <= count < math.inf else None
        for count in said
    )
    return read, written


def _joined(content: object) -> str:
    """What was said, in one piece or as a list of parts, of which those of text count."""
    if not isinstance(content, list):
        return _text(content) or ""
    return "".join(_text(part.get("text")) or "" for part in content if part["type"] == "text")


def _tokens(choice: Any) -> tuple[Token, ...]:
    """Empty where they are of another shape: the answer is good without them."""
    try:
        listed = (choice.get("logprobs") or {}).get("content") or ()
        return tuple(
            Token(one["token"], one.get("logprob"), one.get("top_logprobs") or ())
            for one in listed
            if isinstance(one["token"], str)
        )
    except (AttributeError, LookupError, TypeError):
        return ()


def _parsed(body: bytes) -> Any:
    try:
        return from_json(body)
    except ValueError:  # half a surrogate pair, which the slower parser lets pass
        return json.loads(body)


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise TypeError("text expected")
