"""From an endpoint's response to an answer: read, check against the schema, expected risk."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StringConstraints, ValidationError
from pydantic_core import from_json

from rarealert.teachers.endpoints.limits import price_of
from rarealert.teachers.panel import EndpointSpec, Price
from rarealert.teachers.teacher_answer import Differential, Flag, Insight, TeacherAnswer

N_INSIGHTS = 5
MAX_DIFFERENTIAL = 5

RANK_WEIGHTS = (0.4567, 0.2567, 0.1567, 0.09, 0.04)
"""Rank-order centroids of five places, rounded to sum to 1 (0.4567 is (1 + 1/2 + … + 1/5) / 5):
the mean of all weights that agree with the order. Barron and Barrett, Management Science 1996."""

_RISK = re.compile(r'"risk"\s*:\s*(\d{1,3})')
_MAX_RISK = 100
_REQUEST_ID = "x-request-id"
_THINKING = re.compile(r"<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"^```(?:json)?\s*(.*?)\s*```$", re.DOTALL)
_CODE = re.compile(r"^(?:ORPHA|Orphanet)?[:\s]?(\d+)$", re.IGNORECASE)
_FILTERED = "content_filter"


class ReplyToken(NamedTuple):
    """One token of a reply with the log-probabilities of itself and of its alternatives.

    ``alternatives`` are as the server sent them, ``{"token", "logprob"}`` each, unchecked: of
    hundreds of tokens only those of the risk are used.
    """

    text: str
    logprob: Any
    alternatives: Sequence[Mapping[str, Any]]


def expected_risk(content: str, tokens: Sequence[ReplyToken]) -> float | None:
    """The mean, 0 to 100, of the number after ``"risk":`` under the model's token probabilities.

    It orders answers of the same risk (Liu et al., G-Eval, EMNLP 2023). It is exact where one token
    holds the number. Where each digit is a token, the digits after an unchosen first one are
    unknown and count with their mean. ``None`` without usable probabilities.
    """
    written = "".join(token.text for token in tokens)
    found = list(_RISK.finditer(written))
    if not found or written.strip() != content.strip():  # servers trim what the model wrote
        return None
    start, stop = found[-1].span(1)
    total, path, prefix, at = 0.0, 1.0, "", 0
    for token in tokens:
        begin, at = at, at + len(token.text)
        if at <= start or begin >= stop:
            continue
        lead = token.text[: max(0, start - begin)]
        tail = token.text[max(0, stop - begin) :]
        own = token.text[len(lead) : len(token.text) - len(tail)]
        options = _options(token, lead, prefix)
        mass = sum(options.values())
        if not mass or own not in options:
            return None
        still_open = stop - min(at, stop)
        for text, chance in options.items():
            if text != own:
                value = _value(prefix + text, still_open if text else 0)
                total += path * chance / mass * value
        path *= options[own] / mass
        prefix += own
    return min(_MAX_RISK, total + path * int(prefix)) if prefix else None


def _options(token: ReplyToken, lead: str, prefix: str) -> dict[str, float]:
    """The possible digits at this token with their probabilities; "" ends the number."""
    options: dict[str, float] = {}
    for text, logprob in dict(_numbered(token)).items():
        if not text.startswith(lead):
            continue
        rest = text[len(lead) :]
        digits = re.match(r"\d*", rest)
        number = digits.group(0) if digits else ""
        if not number and not prefix:
            continue
        if prefix + number and int(prefix + number) <= _MAX_RISK:
            options[number] = options.get(number, 0.0) + math.exp(logprob)
    return options


def _numbered(token: ReplyToken) -> Iterator[tuple[str, float]]:
    """Texts with their log-probabilities, the token's own last; rounded ones above 0 become 0."""
    for one in (*token.alternatives, {"token": token.text, "logprob": token.logprob}):
        text, logprob = one.get("token"), one.get("logprob")
        if isinstance(text, str) and isinstance(logprob, int | float) and not math.isnan(logprob):
            yield text, min(0.0, logprob)


def _value(digits: str, still_open: int) -> float:
    """The number with the mean of all that ``still_open`` further digits can be."""
    base = 10**still_open
    return float(min(_MAX_RISK, int(digits) * base + (base - 1) / 2))


@dataclass(frozen=True)
class Completion:
    """A chat completion and its usage."""

    content: str
    refusal: str | None
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    request_id: str | None
    tokens: tuple[ReplyToken, ...] = field(default=(), repr=False)


def read_completion(
    body: bytes,
    headers: Mapping[str, str],
    price: Price | None,
    redact: Callable[[str], str],
    worst_usd: float,
) -> Completion:
    """The completion in ``body``, the JSON of a chat completion; ``redact`` removes keys.

    A server that does not count its tokens is assumed to have charged ``worst_usd``.

    Raises:
        ValueError, TypeError, AttributeError, LookupError: the body is cut or of another shape.
    """
    response = _parsed(body)
    choice = response["choices"][0]
    message = choice["message"]
    read, written = _counted(response.get("usage"))
    counted = read is not None and written is not None
    return Completion(
        content=redact(_joined(message.get("content"))),
        refusal=_text(message.get("refusal")),
        finish_reason=_text(choice.get("finish_reason")),
        prompt_tokens=read or 0,
        completion_tokens=written or 0,
        cost_usd=price_of(price, read or 0, written or 0) if counted else worst_usd,
        request_id=_text(headers.get(_REQUEST_ID) or response.get("id")),
        tokens=_tokens(choice),
    )


def _counted(usage: object) -> tuple[int | None, int | None]:
    """Tokens of prompt and reply, ``None`` where the server gives no number."""
    given = usage if isinstance(usage, dict) else {}
    read, written = (
        int(count) if isinstance(count, int | float) and 0 <= count < math.inf else None
        for count in (given.get("prompt_tokens"), given.get("completion_tokens"))
    )
    return read, written


def _joined(content: object) -> str:
    """The content, a text or a list of parts; only parts of type text count."""
    if not isinstance(content, list):
        return _text(content) or ""
    return "".join(_text(part.get("text")) or "" for part in content if part["type"] == "text")


def _tokens(choice: Any) -> tuple[ReplyToken, ...]:
    """The tokens, empty where they are of another shape: an answer is valid without them."""
    try:
        listed = (choice.get("logprobs") or {}).get("content") or ()
        return tuple(
            ReplyToken(one["token"], one.get("logprob"), one.get("top_logprobs") or ())
            for one in listed
            if isinstance(one["token"], str)
        )
    except (AttributeError, LookupError, TypeError):
        return ()


def _parsed(body: bytes) -> Any:
    try:
        return from_json(body)
    except ValueError:  # half a surrogate pair, which the slower parser accepts
        return json.loads(body)


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise TypeError("text expected")


class ReplyError(Exception):
    """A reply that is no answer; the cache keeps the name of its class.

    ``problem`` is sent to the model for a repair.
    """

    repairable = True

    def __init__(self, problem: str):
        super().__init__(problem)
        self.problem = problem


class EmptyReplyError(ReplyError):
    """An empty reply."""


class NotJsonError(ReplyError):
    """Text that is not one JSON object."""


class WrongSchemaError(ReplyError):
    """JSON with a field that is missing, unknown or out of range."""


class WeightsDoNotSumError(ReplyError):
    """Insights whose weights don't sum to 1 within the tolerance."""


class TruncatedError(ReplyError):
    """The model reached ``max_tokens``; a repeated call would reach it again."""

    repairable = False


class RefusedError(ReplyError):
    """The model or its host's filter declined."""

    repairable = False


_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class _Ranked(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: _Text
    explanation: str


class _Weighted(_Ranked):
    weight: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Disease(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: _Text
    orpha_code: str | int | None = None


class _Reply(BaseModel):
    model_config = ConfigDict(extra="forbid")

    differential: Annotated[list[_Disease], Field(max_length=MAX_DIFFERENTIAL)]
    explanation: _Text
    risk: Annotated[StrictInt, Field(ge=0, le=100)]


class _WeightedReply(_Reply):
    insights: Annotated[list[_Weighted], Field(min_length=N_INSIGHTS, max_length=N_INSIGHTS)]


class _RankedReply(_Reply):
    insights: Annotated[list[_Ranked], Field(min_length=N_INSIGHTS, max_length=N_INSIGHTS)]


def wire_schema(spec: EndpointSpec) -> dict[str, object]:
    """The JSON Schema of a reply, in the subset that strict structured output accepts.

    The risk comes last, so that it is generated after its reasons.
    """
    text: dict[str, object] = {"type": "string"}
    if spec.max_text_chars is not None:
        text |= {"minLength": 1, "maxLength": spec.max_text_chars}
    code = {"type": ["string", "null"]} if spec.max_text_chars is None else {"type": "null"}
    weight = {"weight": {"type": "number"}} if spec.weights == "stated" else {}
    insight = _object({"name": text, **weight, "explanation": text})
    disease = _object({"name": text, "orpha_code": code})
    return _object(
        {
            "differential": {"type": "array", "items": disease, "maxItems": MAX_DIFFERENTIAL},
            "insights": {
                "type": "array",
                "items": insight,
                "minItems": N_INSIGHTS,
                "maxItems": N_INSIGHTS,
            },
            "explanation": text,
            "risk": {"type": "integer", "minimum": 0, "maximum": 100},
        }
    )


def _object(properties: dict[str, object]) -> dict[str, object]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def check_finish(finish_reason: str | None, refusal: str | None) -> None:
    """Reject a reply that the server marks as refused or cut.

    Raises:
        TruncatedError: the reply was cut at ``max_tokens``.
        RefusedError: the model or its host's filter declined.
    """
    if refusal or finish_reason == _FILTERED:
        raise RefusedError("the model declined")
    if finish_reason == "length":
        raise TruncatedError("the reply was cut at max_tokens")


def parse_reply(
    content: str, spec: EndpointSpec, expected_risk: float | None, flags: tuple[Flag, ...]
) -> TeacherAnswer:
    """The answer in ``content``.

    Raises:
        ReplyError: one of its subclasses, with a problem that the model can repair.
    """
    found = _json(content)
    model = _WeightedReply if spec.weights == "stated" else _RankedReply
    try:
        reply = model.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the object"
        raise WrongSchemaError(f"{where}: {first['msg']}") from None
    weights = [
        insight.weight if isinstance(insight, _Weighted) else RANK_WEIGHTS[place]
        for place, insight in enumerate(reply.insights)
    ]
    try:
        return TeacherAnswer(
            insights=tuple(
                Insight(name=one.name, weight=weight, explanation=one.explanation)
                for one, weight in zip(reply.insights, weights, strict=True)
            ),
            differential=tuple(
                Differential(name=one.name, orpha_code=_orpha(one.orpha_code))
                for one in reply.differential
            ),
            risk=reply.risk,
            explanation=reply.explanation,
            expected_risk=expected_risk,
            flags=flags,
        )
    except ValidationError:
        total = sum(weights)
        raise WeightsDoNotSumError(f"the weights sum to {total:.3f}, not to 1") from None


def _json(content: str) -> object:
    text = _THINKING.sub("", content).strip()
    fenced = _FENCE.match(text)
    text = fenced.group(1) if fenced else text
    if not text:
        raise EmptyReplyError("it is empty")
    try:
        return json.loads(text)
    except ValueError as error:
        at = error.pos if isinstance(error, json.JSONDecodeError) else 0
        raise NotJsonError(f"it is not one JSON object (character {at} of {len(text)})") from None


def _orpha(code: str | int | None) -> str | None:
    """``ORPHA:<digits>`` from the spellings that models use; ``None`` for anything else."""
    found = _CODE.match(str(code).strip()) if code is not None else None
    return f"ORPHA:{int(found.group(1))}" if found else None
