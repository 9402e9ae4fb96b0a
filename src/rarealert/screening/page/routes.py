"""``/`` and what the page asks for beside ``/v1/screen``: finding search, next questions, heads.

No route keeps, logs or caches a visit. The page loads nothing from elsewhere, and its policy lets
it run no script but its own file (CSP, https://www.w3.org/TR/CSP3/).
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

from rarealert.screening.answer import Note
from rarealert.screening.finding_search import MAX_QUERY, load_search
from rarealert.screening.next_questions import Question, load_knowledge, next_questions
from rarealert.screening.service.answers import to_case
from rarealert.screening.service.batching import Question as ServiceQuestion
from rarealert.screening.service.problems import RESPONSES, RefusedError
from rarealert.screening.service.schemas import Prevalence, Visit
from rarealert.screening.service.state import Service, service_of
from rarealert.visits.case import Case
from rarealert.visits.reading import read_visit

OPEN_PATHS = ("/", "/page/")
"""Paths that ask for no token: they are the same for everyone and tell nothing of a visit."""

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


class Finding(BaseModel):
    """A finding that the query names."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    hpo_id: str
    """Its HPO id."""
    name: str
    """HPO's name for it."""
    wording: str
    """The wording that was met, often a lay one."""


class Findings(BaseModel):
    """Findings, best first."""

    findings: list[Finding]


class NextRequest(BaseModel):
    """A visit, and what was asked before."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    visit: Visit
    """The visit as it stands."""
    asked: Annotated[list[str], Field(max_length=200)] = []
    """Keys of questions that were answered or set aside; they are not asked again."""
    prevalence: Prevalence | None = None
    """As in a screening."""


class PossibleAnswer(BaseModel):
    """One answer to a question."""

    model_config = ConfigDict(use_attribute_docstrings=True, from_attributes=True)

    label: str
    """The answer in a word or two."""
    chance_if_rare: float
    """Its chance if the disease is a rare one, 0-1."""
    chance_if_common: float
    """Its chance if it is not, 0-1."""
    risk: float
    """The risk with it, at the prevalence that was asked for."""


class NextQuestion(BaseModel):
    """One question in lay words."""

    model_config = ConfigDict(use_attribute_docstrings=True, from_attributes=True)

    key: str
    """HPO id of the finding, or name of the absent field."""
    kind: Literal["symptom", "sign", "field"]
    """To ask, to look for, or a field to fill in."""
    text: str
    """The question."""
    wording: str
    """The finding in the words of the question."""
    answers: list[PossibleAnswer]
    """What may be answered."""
    expected_change: float
    """Mean absolute change of the model's risk over the answers, 0-1."""
    profile_change: float | None
    """The same by Bayes' rule on the disease profiles, without the model; null for a field."""


class Disease(BaseModel):
    """A rare disease that the findings fit."""

    orpha_code: str
    name: str


class Head(BaseModel):
    """One Orphanet classification head."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    head: str
    """Its name."""
    share: float
    """Its share of the belief in rare diseases, 0-1."""
    diseases: list[Disease]
    """The likeliest below it."""


class Next(BaseModel):
    """What to ask, and where the findings point. The heads come from findings, not the model."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    risk: float
    """The visit's risk, at the prevalence that was asked for."""
    notes: list[Note] = []
    """What a reader must know, in words, as in a screening."""
    questions: list[NextQuestion]
    """At most three findings to ask for, those that split the disease profiles most first."""
    absent_fields: list[NextQuestion]
    """What the visit leaves out, the largest expected change first."""
    heads: list[Head]
    """At most four, the likeliest first; empty where no finding was recognised."""


@router.get("/", include_in_schema=False)
def page() -> Response:
    """The page itself."""
    # not stored, so the browser has no page with a visit in it to go back to
    return _file("index.html", "text/html", cache="no-store")


@router.get("/page/{name}", include_in_schema=False)
def page_file(name: str) -> Response:
    """A file of the page.

    Raises:
        RefusedError: the page has no such file.
    """
    if name not in _FILES:
        raise RefusedError(404, "There is nothing here; see /openapi.json.")
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
) -> Findings:
    """HPO findings whose name, synonym or lay wording holds the words of ``q``."""
    found = load_search().search(q, limit)
    return Findings(
        findings=[Finding(hpo_id=f.hpo_id, name=f.name, wording=f.wording) for f in found]
    )


@router.post("/v1/next", responses=RESPONSES)
async def what_next(request: NextRequest, service: Serving) -> Next:
    """The three findings worth asking for, absent fields, and the heads that the findings fit."""
    loop = asyncio.get_running_loop()
    return await run_in_threadpool(_next, request, service, loop)


def _next(request: NextRequest, service: Service, loop: asyncio.AbstractEventLoop) -> Next:
    reading = to_case(request.visit, 1, "visit").reading
    case = reading.case
    knowledge = load_knowledge()
    notes: list[Note] = []

    def risks(cases: Sequence[Case]) -> list[float]:
        readings = (reading if each is case else read_visit(each) for each in cases)
        asked = [ServiceQuestion(each, request.prevalence) for each in readings]
        answered = asyncio.run_coroutine_threadsafe(service.ask(asked), loop).result()
        if cases[0] is case:  # asked for first, and alone
            notes.extend(answered[0].answer.notes)
        return [each.answer.risk for each in answered]

    found = next_questions(case, risks, knowledge, skip=frozenset(request.asked))
    heads = [
        Head(
            head=each.head,
            share=each.share,
            diseases=[Disease(orpha_code=d.orpha_code, name=d.name) for d in each.diseases],
        )
        for each in knowledge.heads(knowledge.beliefs(case))
    ]
    return Next(
        risk=found.risk,
        notes=notes,
        questions=[_told(question) for question in found.findings],
        absent_fields=[_told(question) for question in found.fields],
        heads=heads,
    )


def _told(question: Question) -> NextQuestion:
    return NextQuestion.model_validate(question, from_attributes=True)
