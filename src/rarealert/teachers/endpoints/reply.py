"""A model's reply: the JSON Schema sent to the server, and the strict way back to an Answer."""

import json
import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StringConstraints, ValidationError

from rarealert.teachers.answer import Answer, Differential, Flag, Insight
from rarealert.teachers.panel import EndpointSpec

N_INSIGHTS = 5
MAX_DIFFERENTIAL = 5

RANK_WEIGHTS = (0.4567, 0.2567, 0.1567, 0.09, 0.04)
"""Rank-order centroids of five places, rounded to sum to 1 (0.4567 is (1 + 1/2 + … + 1/5) / 5):
the mean of all weights that agree with the order. Barron and Barrett, Management Science 1996."""

_THINKING = re.compile(r"<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"^```(?:json)?\s*(.*?)\s*```$", re.DOTALL)
_CODE = re.compile(r"^(?:ORPHA|Orphanet)?[:\s]?(\d+)$", re.IGNORECASE)
_FILTERED = "content_filter"


class ReplyError(Exception):
    """A reply that is no answer; its class is what the failure file keeps.

    ``problem`` is what the model is told.
    """

    repairable = True

    def __init__(self, problem: str):
        super().__init__(problem)
        self.problem = problem


class EmptyReplyError(ReplyError):
    """No text at all."""


class NotJsonError(ReplyError):
    """Text that is not one JSON object."""


class WrongSchemaError(ReplyError):
    """JSON with a field that is missing, unknown or out of range."""


class WeightsDoNotSumError(ReplyError):
    """Insights whose weights don't sum to 1 within the tolerance."""


class TruncatedError(ReplyError):
    """The model reached ``max_tokens``: asked again the same way, it would again."""

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

    The risk comes last, so that it follows from what was said before.
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
    """Refuse what the server itself marks as no whole answer.

    Raises:
        TruncatedError, RefusedError: as their names say.
    """
    if refusal or finish_reason == _FILTERED:
        raise RefusedError("the model declined")
    if finish_reason == "length":
        raise TruncatedError("the reply was cut at max_tokens")


def parse_reply(
    content: str, spec: EndpointSpec, expected_risk: float | None, flags: tuple[Flag, ...]
) -> Answer:
    """The Answer in ``content``.

    Raises:
        ReplyError: one of its kinds, with a problem that the model can mend.
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
        return Answer(
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
    """``ORPHA:<digits>`` from the ways models write it; ``None`` for anything else."""
    found = _CODE.match(str(code).strip()) if code is not None else None
    return f"ORPHA:{int(found.group(1))}" if found else None
