"""CDS Hooks: a card when a clinician opens a patient.

CDS Hooks 2.0, https://cds-hooks.hl7.org/2.0/, hook ``patient-view``. The service calls no FHIR
server: its data come as prefetch, and without them it returns 412, as the specification requires.
"""

from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from rarealert.screening.service.answers import Prepared, answer_all, from_record
from rarealert.screening.service.problems import RESPONSES, FieldError, RequestError
from rarealert.screening.service.schemas import VisitAnswer
from rarealert.screening.service.state import Service, service_of
from rarealert.sources.fhir import read_bundle
from rarealert.visits.refused import Refused

SERVICE_ID = "rarealert-patient-view"
_PATIENT = "{{context.patientId}}"

PREFETCH = {
    "patient": f"Patient/{_PATIENT}",
    "encounter": "Encounter/{{context.encounterId}}",
    "conditions": f"Condition?patient={_PATIENT}",
    "observations": f"Observation?patient={_PATIENT}&category=vital-signs,exam,social-history",
    "family": f"FamilyMemberHistory?patient={_PATIENT}",
}
"""Prefetch templates: the visit and the patient's earlier record."""

_SMALLEST = 0.001  # share; nobody reads a smaller risk as a number

_NEEDED = ("patient", "encounter")

router = APIRouter(prefix="/cds-services", tags=["CDS Hooks"])
Serving = Annotated[Service, Depends(service_of)]


class _HookModel(BaseModel):
    model_config = ConfigDict(extra="allow", hide_input_in_errors=True)


class HookContext(_HookModel):
    """Context of ``patient-view``."""

    userId: str  # noqa: N815 - the specification's names
    patientId: str  # noqa: N815
    encounterId: str | None = None  # noqa: N815


class HookCall(_HookModel):
    """A call of the service."""

    hook: Literal["patient-view"]
    hookInstance: UUID  # noqa: N815
    context: HookContext
    prefetch: dict[str, dict[str, Any] | None] = Field(default_factory=dict)


class HookCardSource(BaseModel):
    """Source of a card."""

    label: str = "RareAlert"


class HookCard(BaseModel):
    """One card."""

    uuid: UUID = Field(default_factory=uuid4)
    summary: Annotated[str, Field(max_length=140)]
    detail: str
    indicator: Literal["info", "warning", "critical"]
    source: HookCardSource = HookCardSource()


class Cards(BaseModel):
    """The response to a call; empty for a visit without an alert to look at."""

    cards: list[HookCard]


class HookService(BaseModel):
    """The description of the service."""

    id: str = SERVICE_ID
    hook: str = "patient-view"
    title: str = "RareAlert: rare disease at the first visit"
    description: str = (
        "Calibrated risk of a rare disease from a first visit. Decision support, not a diagnosis."
    )
    prefetch: dict[str, str] = PREFETCH


class HookServices(BaseModel):
    """The response to discovery."""

    services: list[HookService]


@router.get("")
async def discover() -> HookServices:
    """List the services (CDS Hooks discovery)."""
    return HookServices(services=[HookService()])


@router.post(f"/{SERVICE_ID}", responses=RESPONSES)
async def patient_view(call: HookCall, service: Serving) -> Cards:
    """Return a card for the patient's visit unless its risk is low."""
    prepared = await run_in_threadpool(_visit, call)
    prevalence = service.settings.prevalence
    [answer] = await answer_all(service, [prepared], prevalence, "alerts")
    card = _card(answer, prevalence)
    return Cards(cards=[card] if card else [])


def _visit(call: HookCall) -> Prepared:
    """The prefetched visit.

    Raises:
        RequestError: the prefetch does not hold one.
    """
    lacking = [name for name in _NEEDED if call.prefetch.get(name) is None]
    if lacking:
        errors = [FieldError(field=f"prefetch.{name}", reason="missing") for name in lacking]
        raise RequestError(412, "The visit was not prefetched; no server is called.", errors)
    entries = [
        entry for value in call.prefetch.values() if value is not None for entry in _entries(value)
    ]
    reasons = []
    for read in read_bundle({"resourceType": "Bundle", "entry": entries}):
        if not isinstance(read, Refused):
            if read.case.patient_id == call.context.patientId:
                return from_record(read.case)
            reasons.append(("patient", "another patient than context.patientId"))
        else:
            reasons.append((read.field, read.reason))
    errors = [FieldError(field=f"prefetch.{field}", reason=reason) for field, reason in reasons]
    raise RequestError(412, "The prefetch holds no readable visit.", errors)


def _entries(value: dict[str, Any]) -> list[Any]:
    if value.get("resourceType") != "Bundle":
        return [{"resource": value}]
    listed = value.get("entry")
    return listed if isinstance(listed, list) else []


def _card(answer: VisitAnswer, prevalence: float) -> HookCard | None:
    """The card for ``answer``; none for a low risk, which is no reason to interrupt."""
    cautions = "".join(f"\n\n*{note.message}*" for note in answer.notes)
    if answer.not_english:
        return HookCard(
            summary="RareAlert could not read this visit", detail=cautions.strip(), indicator="info"
        )
    if answer.band == "low":
        return None
    alert = answer.band == "alert" and not answer.abstain
    summary = "Could be a rare disease" if alert else "A rare disease can't be ruled out"
    among = f"where {_percent(prevalence)} of patients have a rare disease"
    interval = f"interval {_percent(answer.risk_low)} to {_percent(answer.risk_high)}"
    parts = [f"Risk {_percent(answer.risk)} ({interval}) {among}.", answer.rationale or ""]
    found = [each for each in answer.evidence if each.direction == "raises"]
    if found:
        parts.append(
            "Findings that raise the risk: "
            + ", ".join(_plain(each.label) for each in found[:5])
            + "."
        )
    parts.append("Decision support, not a diagnosis.")
    return HookCard(
        summary=f"{summary}: risk {_percent(answer.risk)}",
        detail="\n\n".join(_plain(text) for text in parts if text) + cautions,
        indicator="warning" if alert else "info",
    )


def _percent(share: float) -> str:
    if share < _SMALLEST:
        return f"below {100 * _SMALLEST:g} %"
    if share > 1 - _SMALLEST:
        return f"above {100 * (1 - _SMALLEST):g} %"
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.1f} %"


def _plain(text: str) -> str:
    """``text`` without the characters of Markdown links, images and tags."""
    return text.translate(str.maketrans("", "", "<>[]`*_#|\\"))
