"""One whole response of an endpoint, read from its JSON without a model of every field."""

import json
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
    body: bytes, headers: Mapping[str, str], price: Price | None, redact: Callable[[str], str]
) -> Completion:
    """The completion in ``body``, a chat completion's JSON; ``redact`` takes keys out of its text.

    Raises:
        ValueError, TypeError, AttributeError, LookupError: the body is cut short or is of another
            shape.
    """
    said = _parsed(body)
    choice = said["choices"][0]
    message = choice["message"]
    usage = said.get("usage") or {}
    read, written = int(usage.get("prompt_tokens", 0)), int(usage.get("completion_tokens", 0))
    listed = (choice.get("logprobs") or {}).get("content") or ()
    return Completion(
        content=redact(_text(message.get("content")) or ""),
        refusal=_text(message.get("refusal")),
        finish_reason=_text(choice.get("finish_reason")),
        prompt_tokens=read,
        completion_tokens=written,
        cost_usd=price_of(price, read, written),
        request_id=_text(headers.get(_REQUEST_ID) or said.get("id")),
        tokens=tuple(
            Token(one["token"], one["logprob"], one.get("top_logprobs") or ()) for one in listed
        ),
    )


def _parsed(body: bytes) -> Any:
    try:
        return from_json(body)
    except ValueError:  # half a surrogate pair, which the slower parser lets pass
        return json.loads(body)


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise TypeError("text expected")
