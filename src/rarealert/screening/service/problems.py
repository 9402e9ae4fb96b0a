"""Errors as problem details (RFC 9457): what is wrong and where, never text of a visit.

FastAPI's own errors echo the input, which here is case text; a client also gets one format for
every status.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from rarealert.errors import BadInputError
from rarealert.visits.case import Case, Label, LabelledCase
from rarealert.visits.refused import safe_name

MEDIA_TYPE = "application/problem+json"
_AGES = ("age", "age_months", "age_in_months", "age_days", "birth_date", "date_of_birth", "dob")
_OTHERS = (*_AGES, "gender", "complaint", "history", "examination", "findings", "height", "weight")
"""Field names of other forms; an error repeats them only in exactly this spelling."""
_FIELDS = (*Case.model_fields, *Label.model_fields, *LabelledCase.model_fields, "diagnosis")
"""Field names that an error may repeat, misspelt too; any other key could be case text."""

_TITLES = {
    400: "Bad request",
    401: "Not authorised",
    404: "Not found",
    405: "Method not allowed",
    408: "Request too slow",
    412: "Precondition failed",
    413: "Request too large",
    422: "Invalid request",
    429: "Too many requests",
    500: "Internal error",
    503: "Not available",
}


class FieldError(BaseModel):
    """What is wrong with one field; ``field`` is a path such as ``visits.0.age_years``."""

    field: str
    reason: str


class Problem(BaseModel):
    """Problem details, RFC 9457; ``errors`` name the fields."""

    model_config = ConfigDict(json_schema_extra={"description": "RFC 9457"})

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldError] = Field(default_factory=list)


class RequestError(Exception):
    """A refused request: ``status``, ``detail`` and fields; ``retry_s`` is the wait in seconds."""

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Sequence[FieldError] = (),
        retry_s: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = list(errors)
        self.retry_s = retry_s


def problem(
    status: int,
    detail: str,
    errors: Sequence[FieldError] = (),
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """The response for an error of ``status``."""
    title = _TITLES.get(status, "Error")
    body = Problem(title=title, status=status, detail=detail, errors=list(errors))
    return JSONResponse(body.model_dump(), status, headers, media_type=MEDIA_TYPE)


def refuse(refusal: RequestError) -> JSONResponse:
    """The response for ``refusal``."""
    headers = {} if refusal.retry_s is None else {"Retry-After": str(refusal.retry_s)}
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return problem(refusal.status, refusal.detail, refusal.errors, headers)


def field_errors(errors: Sequence[Any]) -> list[FieldError]:
    """Pydantic's errors without inputs, contexts, or keys that could be case text."""
    return [FieldError(field=_place(each), reason=_reason(each)) for each in errors]


def _place(error: dict[str, Any]) -> str:
    if error["type"] == "json_invalid":  # its location is a character offset
        return "body"
    parts = [str(safe_name(part)) for part in error["loc"] if part != "body"]
    if error["type"] == "extra_forbidden" and not _may_be_repeated(parts[-1]):
        parts[-1] = "(unnamed)"  # an unknown key may be a patient's name
    return ".".join(parts) or "body"


def _may_be_repeated(name: str) -> bool:
    return name in _OTHERS or bool(get_close_matches(name, _FIELDS, 1, 0.8))


def _reason(error: dict[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        if error["loc"][-1] in _AGES:
            return "unknown field; give age_years as a number, 18 months are 1.5"
        return "unknown field; /openapi.json lists the known ones"
    if error["type"] == "json_invalid":
        return "not valid JSON"
    if error["loc"] == ("body",) and error["type"] == "model_attributes_type":
        # curl -d sends a form by default, and FastAPI then parses no JSON
        return "must be a JSON object, sent with Content-Type: application/json"
    return str(error["msg"]).removeprefix("Value error, ")


def add_handlers(app: FastAPI) -> None:
    """Answer every error of ``app`` with problem details."""

    @app.exception_handler(RequestValidationError)
    async def _(_: Request, error: RequestValidationError) -> JSONResponse:
        errors = field_errors(error.errors())
        named = ", ".join(dict.fromkeys(each.field for each in errors[:3]))
        return problem(422, f"The request is not valid at {named}.", errors)

    @app.exception_handler(RequestError)
    async def _(_: Request, error: RequestError) -> JSONResponse:
        return refuse(error)

    @app.exception_handler(BadInputError)
    async def _(_: Request, error: BadInputError) -> JSONResponse:
        return problem(422, str(error))

    @app.exception_handler(HTTPException)
    async def _(_: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 400:  # FastAPI's status for a body that is not JSON
            errors = [FieldError(field="body", reason="not readable as JSON")]
            return problem(400, "The body is not readable as JSON.", errors)
        detail = {404: "There is nothing here; see /openapi.json."}.get(
            error.status_code, str(error.detail)
        )
        return problem(error.status_code, detail, headers=dict(error.headers or {}))


RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {
        "description": _TITLES[status],
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for status in (400, 401, 408, 412, 413, 422, 429, 503)
}
"""Error responses of every route, for the OpenAPI description."""


def describe(app: FastAPI) -> None:
    """Add the schema of a problem to the OpenAPI description of ``app``.

    FastAPI would describe it as plain JSON, and its own 422 as another model.
    """
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        described = plain()
        template = "#/components/schemas/{model}"
        _, schemas = models_json_schema([(Problem, "serialization")], ref_template=template)
        described["components"]["schemas"].update(schemas["$defs"])
        return described

    app.openapi = openapi  # type: ignore[method-assign]
