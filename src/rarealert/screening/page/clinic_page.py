"""The clinic page and its routes: finding search, next questions and Orphanet heads.

No route stores, logs or caches a visit. The page loads nothing from other hosts and runs only its
own scripts (CSP, https://www.w3.org/TR/CSP3/).
"""

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from rarealert.screening.answer import Answer, Note
from rarealert.screening.finding_search import MAX_QUERY, load_search
from rarealert.screening.next_questions import Question, load_knowledge, next_questions
from rarealert.screening.service.answers import to_case
from rarealert.screening.service.batching import Job
from rarealert.screening.service.problems import RESPONSES, RequestError
from rarealert.screening.service.schemas import Prevalence, Visit
from rarealert.screening.service.state import Service, service_of
from rarealert.visits.reading import Reading

OPEN_PATHS = ("/", "/page/")
"""Paths that need no token: static files without anything of a visit."""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_FILES = {
    "style.css": "text/css",
    "app.js": "text/javascript",
    "dial.js": "text/javascript",
    "findings.js": "text/javascript",
    "answer.js": "text/javascript",
}

router = APIRouter()
Serving = Annotated[Service, Depends(service_of)]


class FindingMatch(BaseModel):
    """A finding that matches the query."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    hpo_id: str
    """HPO id."""
    name: str
    """HPO's name."""
    wording: str
    """The wording that matched, often a lay one."""


class FindingMatches(BaseModel):
    """Matching findings, best first."""

    findings: list[FindingMatch]


class NextRequest(BaseModel):
    """A visit and the questions asked so far."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    visit: Visit
    """The visit so far."""
    asked: Annotated[list[str], Field(max_length=200)] = []
    """Keys of questions that were answered or skipped; they are not asked again."""
    prevalence: Prevalence | None = None
    """As in ``/v1/screen``."""


class PossibleAnswer(BaseModel):
    """One answer to a question."""

    model_config = ConfigDict(use_attribute_docstrings=True, from_attributes=True)

    label: str
    """The answer in a word or two."""
    chance_if_rare: float
    """Its probability if the disease is rare."""
    chance_if_common: float
    """Its probability if the disease is common."""
    risk: float
    """The risk with this answer, at the requested prevalence."""


class NextQuestion(BaseModel):
    """One question in lay words."""

    model_config = ConfigDict(use_attribute_docstrings=True, from_attributes=True)

    key: str
    """HPO id of the finding, or name of the absent field."""
    kind: Literal["symptom", "sign", "field"]
    """Ask, examine, or fill in a field."""
    text: str
    """The question."""
    wording: str
    """The finding in the words of the question."""
    answers: list[PossibleAnswer]
    """Possible answers."""
    expected_change: float
    """Mean absolute change of the model's risk over the answers, 0-1."""
    profile_change: float | None
    """The same by Bayes' rule on the disease profiles, without the model; null for a field."""


class Disease(BaseModel):
    """A rare disease that matches the findings."""

    orpha_code: str
    name: str


class Head(BaseModel):
    """One Orphanet classification head."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    head: str
    """Its name."""
    share: float
    """Its share of the posterior over rare diseases, 0-1."""
    diseases: list[Disease]
    """Its likeliest diseases."""


class Next(BaseModel):
    """Next questions and matching heads; heads come from disease profiles, not from the student."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    risk: float
    """The visit's risk, at the requested prevalence."""
    notes: list[Note] = []
    """Notes, as in ``/v1/screen``."""
    questions: list[NextQuestion]
    """At most three findings, those that separate rare from common profiles most first."""
    absent_fields: list[NextQuestion]
    """Empty fields, the largest expected change first."""
    heads: list[Head]
    """At most four, the likeliest first; empty for a low risk or where no finding is recognised."""


@router.get("/", include_in_schema=False)
def page() -> Response:
    """The page itself."""
    # not stored: going back in the browser must not show a visit
    return _file("index.html", "text/html", cache="no-store")


@router.get("/page/{name}", include_in_schema=False)
def page_file(name: str) -> Response:
    """A file of the page.

    Raises:
        RequestError: the page has no such file.
    """
    if name not in _FILES:
        raise RequestError(404, "There is nothing here; see /openapi.json.")
    return _file(name, _FILES[name])


@lru_cache(maxsize=len(_FILES) + 1)
def _read(name: str) -> bytes:
    return files("rarealert.screening.page").joinpath(name).read_bytes()


def _file(name: str, media_type: str, cache: str = "no-cache") -> Response:
    headers = {**_HEADERS, "Cache-Control": cache}
    return Response(_read(name), headers=headers, media_type=f"{media_type}; charset=utf-8")


@router.get("/v1/findings", responses=RESPONSES)
def search_findings(
    q: Annotated[str, Query(min_length=1, max_length=MAX_QUERY)],
    limit: Annotated[int, Query(ge=1, le=50)] = 8,
) -> FindingMatches:
    """HPO findings whose name, synonym or lay wording holds the words of ``q``."""
    found = load_search().search(q, limit)
    return FindingMatches(
        findings=[FindingMatch(hpo_id=f.hpo_id, name=f.name, wording=f.wording) for f in found]
    )


@router.post("/v1/next", responses=RESPONSES)
async def what_next(request: NextRequest, service: Serving) -> Next:
    """Three findings to ask for, empty fields, and the heads that the findings match."""
    loop = asyncio.get_running_loop()
    return await run_in_threadpool(_next, request, service, loop)


def _next(request: NextRequest, service: Service, loop: asyncio.AbstractEventLoop) -> Next:
    reading = to_case(request.visit, 1, "visit").reading
    knowledge = load_knowledge()

    def answers(readings: Sequence[Reading]) -> list[Answer]:
        asked = [Job(each, request.prevalence) for each in readings]
        answered = asyncio.run_coroutine_threadsafe(service.ask(asked), loop).result()
        return [each.answer for each in answered]

    [answer] = answers([reading])
    found = next_questions(
        reading,
        answer.risk,
        lambda readings: [each.risk for each in answers(readings)],
        knowledge,
        skip=frozenset(request.asked),
    )
    heads = [
        Head(
            head=each.head,
            share=each.share,
            diseases=[Disease(orpha_code=d.orpha_code, name=d.name) for d in each.diseases],
        )
        for each in (found.heads if answer.band != "low" else ())
    ]
    return Next(
        risk=answer.risk,
        notes=list(answer.notes),
        questions=[_told(question) for question in found.findings],
        absent_fields=[_told(question) for question in found.fields],
        heads=heads,
    )


def _told(question: Question) -> NextQuestion:
    return NextQuestion.model_validate(question, from_attributes=True)
