"""CDS Hooks: a card when a clinician opens a patient.

CDS Hooks 2.0, https://cds-hooks.hl7.org/2.0/, hook ``patient-view``. The service asks no FHIR
server: what it needs comes as prefetch, and without it the answer is 412, as the specification
wants of a service that lacks its data.
"""

from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from rarealert.screening.service.answers import Prepared, answer_all, from_record
from rarealert.screening.service.problems import RESPONSES, FieldError, RefusedError
from rarealert.screening.service.schemas import Answer
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
"""Prefetch templates: the visit, and what is recorded of the patient before it."""

_NEEDED = ("patient", "encounter")

router = APIRouter(prefix="/cds-services", tags=["CDS Hooks"])
Serving = Annotated[Service, Depends(service_of)]


class _Spoken(BaseModel):
    model_config = ConfigDict(extra="allow", hide_input_in_errors=True)


class HookContext(_Spoken):
    """Context of ``patient-view``."""

    userId: str  # noqa: N815 - the specification's names
    patientId: str  # noqa: N815
    encounterId: str | None = None  # noqa: N815


class HookCall(_Spoken):
    """A call of the service."""

    hook: Literal["patient-view"]
    hookInstance: UUID  # noqa: N815
    context: HookContext
    prefetch: dict[str, dict[str, Any] | None] = Field(default_factory=dict)


class CardSource(BaseModel):
    """Who says so."""

    label: str = "RareAlert"


class Card(BaseModel):
    """What a clinician sees."""

    uuid: UUID = Field(default_factory=uuid4)
    summary: Annotated[str, Field(max_length=140)]
    detail: str
    indicator: Literal["info", "warning", "critical"]
    source: CardSource = CardSource()


class Cards(BaseModel):
    """The answer to a call; no card where there is nothing to say."""

    cards: list[Card]


class HookService(BaseModel):
    """How the service describes itself."""

    id: str = SERVICE_ID
    hook: str = "patient-view"
    title: str = "RareAlert: rare disease at the first visit"
    description: str = (
        "Calibrated risk of a rare disease from a first visit. Decision support, not a diagnosis."
    )
    prefetch: dict[str, str] = PREFETCH


class HookServices(BaseModel):
    """Discovery."""

    services: list[HookService]


@router.get("")
async def discover() -> HookServices:
    """The services of this server, as CDS Hooks wants them listed."""
    return HookServices(services=[HookService()])


@router.post(f"/{SERVICE_ID}", responses=RESPONSES)
async def patient_view(call: HookCall, service: Serving) -> Cards:
    """A card for the patient's visit, if it is an alert or one to watch."""
    prepared = await run_in_threadpool(_visit, call)
    prevalence = service.settings.prevalence
    [answer] = await answer_all(service, [prepared], prevalence, "alerts")
    card = _card(answer, prevalence)
    return Cards(cards=[card] if card else [])


def _visit(call: HookCall) -> Prepared:
    """The prefetched visit.

    Raises:
        RefusedError: the prefetch does not hold one.
    """
    lacking = [name for name in _NEEDED if call.prefetch.get(name) is None]
    if lacking:
        errors = [FieldError(field=f"prefetch.{name}", reason="missing") for name in lacking]
        raise RefusedError(412, "The visit was not prefetched, and no server is asked.", errors)
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
    raise RefusedError(412, "The prefetch holds no visit that could be read.", errors)


def _entries(value: dict[str, Any]) -> list[Any]:
    if value.get("resourceType") != "Bundle":
        return [{"resource": value}]
    listed = value.get("entry")
    return listed if isinstance(listed, list) else []


def _card(answer: Answer, prevalence: float) -> Card | None:
    """The card for ``answer``; none for a low risk without a note: notes must not be lost."""
    cautions = "".join(f"\n\n*{note.message}*" for note in answer.notes)
    if answer.not_english:
        return Card(
            summary="RareAlert could not read this visit", detail=cautions.strip(), indicator="info"
        )
    if answer.band == "low" and not answer.abstain and not answer.notes:
        return None
    alert = answer.band == "alert" and not answer.abstain
    summary = "Could be a rare disease" if alert else "A rare disease can't be ruled out"
    among = f"where {_percent(prevalence)} of patients have a rare disease"
    interval = f"interval {_percent(answer.risk_low)} to {_percent(answer.risk_high)}"
    told = [f"Risk {_percent(answer.risk)} ({interval}) {among}.", answer.rationale or ""]
    found = [each for each in answer.evidence if each.direction == "raises"]
    if found:
        told.append("Speaks for it: " + ", ".join(_plain(each.label) for each in found[:5]) + ".")
    told.append("Decision support, not a diagnosis.")
    return Card(
        summary=f"{summary}: risk {_percent(answer.risk)}",
        detail="\n\n".join(_plain(text) for text in told if text) + cautions,
        indicator="warning" if alert else "info",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.1g} %"


def _plain(text: str) -> str:
    """``text`` without what a card's Markdown would take for a link, an image or a tag."""
    return text.translate(str.maketrans("", "", "<>[]`*_#|\\"))
