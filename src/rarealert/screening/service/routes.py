"""``/v1``: screening of visits and of FHIR bundles."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool

from rarealert.screening.answer import RationaleFor
from rarealert.screening.page.clinic_page import Next, NextRequest, what_next
from rarealert.screening.service.answers import Prepared, answer_all, from_record, to_case
from rarealert.screening.service.problems import RESPONSES, FieldError, RequestError
from rarealert.screening.service.schemas import (
    ExplainRequest,
    Prevalence,
    RefusedRecord,
    Screened,
    ScreenedBundle,
    ScreenRequest,
    VisitAnswer,
)
from rarealert.screening.service.state import Service, service_of
from rarealert.sources.fhir import read_bundle
from rarealert.visits.refused import Refused

router = APIRouter(prefix="/v1", responses=RESPONSES)
Serving = Annotated[Service, Depends(service_of)]


@router.post("/screen")
async def screen(request: ScreenRequest, service: Serving) -> Screened:
    """Calibrated risk of a rare disease for each visit."""
    check_count(len(request.visits), service.settings.max_visits, "visits")

    def prepare() -> list[Prepared]:
        return [
            to_case(visit, place + 1, f"visits.{place}")
            for place, visit in enumerate(request.visits)
        ]

    prepared = await run_in_threadpool(prepare)
    answers = await answer_all(service, prepared, request.prevalence, request.rationale)
    return Screened(answers=answers)


@router.post("/screen/fhir")
async def screen_fhir(
    bundle: Annotated[
        dict[str, Any],
        Body(description="A FHIR R4 Bundle: Patient, Encounter, Condition, Observation, …"),
    ],
    service: Serving,
    prevalence: Annotated[Prevalence | None, Query()] = None,
    rationale: RationaleFor = "none",
) -> ScreenedBundle:
    """Risk for the first visit of each patient in a FHIR R4 bundle."""
    cases, refused = await run_in_threadpool(read_cases, bundle)
    check_count(len(cases), service.settings.max_visits, "entry")
    if not cases:
        errors = [
            FieldError(
                field=f"entry.{each.entry - 1}.resource", reason=f"{each.field}: {each.reason}"
            )
            for each in refused
        ]
        raise RequestError(422, "The bundle holds no readable first visit.", errors)
    answers = await answer_all(service, cases, prevalence, rationale)
    return ScreenedBundle(answers=answers, refused=refused)


class Explained(BaseModel):
    """The full explanation of one visit."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    answer: VisitAnswer
    """The answer, with evidence and rationale."""
    next: Next
    """Next questions, and the Orphanet heads that the findings match."""
    notice: str = "Decision support, not a diagnosis."
    """The intended use."""


@router.post("/explain")
async def explain(request: ExplainRequest, service: Serving) -> Explained:
    """Risk, evidence and rationale of one visit, next questions, and matching Orphanet heads."""
    prepared = await run_in_threadpool(to_case, request.visit, 1, "visit")
    [answer] = await answer_all(service, [prepared], request.prevalence, "all")
    asked = NextRequest(visit=request.visit, prevalence=request.prevalence)
    following = await what_next(asked, service)
    return Explained(answer=answer, next=following)


def check_count(count: int, most: int, field: str) -> None:
    """Refuse more visits than one request may hold.

    Raises:
        RequestError: ``count`` is above ``most``.
    """
    if count > most:
        reason = f"{count} visits; one request may hold {most}"
        errors = [FieldError(field=field, reason=reason)]
        raise RequestError(413, "Too many visits in one request.", errors)


def read_cases(bundle: dict[str, Any]) -> tuple[list[Prepared], list[RefusedRecord]]:
    """The first visit of each patient, and the refused resources.

    Raises:
        RequestError: ``bundle`` is not a FHIR Bundle.
    """
    if bundle.get("resourceType") != "Bundle":
        errors = [FieldError(field="resourceType", reason="must be Bundle")]
        raise RequestError(422, "The body is not a FHIR Bundle.", errors)
    cases: list[Prepared] = []
    refused: list[RefusedRecord] = []
    for read in read_bundle(bundle):
        if isinstance(read, Refused):
            refused.append(RefusedRecord(entry=read.row, field=read.field, reason=read.reason))
        else:
            cases.append(from_record(read.case))
    return cases, refused
