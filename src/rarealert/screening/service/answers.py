"""From prepared visits to typed answers, with the rationales that were asked for."""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rarealert.screening.notes import flag_remarks
from rarealert.screening.service.batching import Answered, Question
from rarealert.screening.service.problems import RefusedError
from rarealert.screening.service.schemas import (
    Answer,
    Evidence,
    ModelMark,
    Note,
    RationaleFor,
)
from rarealert.screening.service.state import Service
from rarealert.screening.service.visits import Prepared

ALERT = "alert"
_LATE = Note(
    code="rationale_late",
    message="The rationale took too long; ask again later, or for fewer visits at once.",
)


async def answer_all(
    service: Service,
    prepared: Sequence[Prepared],
    prevalence: float | None,
    rationale: RationaleFor,
) -> list[Answer]:
    """One answer a visit, in order.

    Raises:
        RefusedError: the service can't answer now.
    """
    until = time.monotonic() + service.settings.answer_timeout_s
    questions = [Question(each.case, prevalence) for each in prepared]
    answered = await service.ask(questions)
    late: set[int] = set()
    if rationale != "none":
        wanted = [
            place
            for place, each in enumerate(answered)
            if not each.row.get("not_english") and (rationale == "all" or _is_alert(each.row))
        ]
        told = await _explained(service, [questions[place] for place in wanted], until)
        for place, again in zip(wanted, told, strict=True):
            if again is None:
                late.add(place)
            else:
                answered[place] = again
    answers = [
        _answer(each, prepared[place], late=place in late) for place, each in enumerate(answered)
    ]
    for answer in answers:
        service.metrics.answer(answer.band)
    return answers


async def _explained(
    service: Service, questions: Sequence[Question], until: float
) -> list[Answered | None]:
    """Each question's answer with its rationale; ``None`` where there is none in time.

    A rationale takes dozens of times as long as a risk, so the risks must not be lost with it: the
    same request would never be answered.
    """

    async def explained(question: Question) -> Answered | None:
        try:
            left = max(0.0, until - time.monotonic())
            [answered] = await service.ask([replace(question, rationale=True)], left)
        except RefusedError:
            return None
        return answered

    return list(await asyncio.gather(*(explained(each) for each in questions)))


def notes_of(row: Mapping[str, Any], prepared: Prepared) -> list[Note]:
    """What a reader of the answer ``row`` must know."""
    remarks = (*flag_remarks(row), *prepared.notes)
    return [Note(code=each.code, message=each.message) for each in remarks]


def _is_alert(row: Mapping[str, Any]) -> bool:
    return bool(row["band"] == ALERT)


def _answer(answered: Answered, prepared: Prepared, *, late: bool) -> Answer:
    row, model = answered.row, answered.model
    mark = ModelMark(name=model.name, version=model.version, digest=model.digest)
    said: dict[str, Any] = {
        **row,
        "rationale": None if row.get("not_english") else row.get("rationale"),
        "evidence": _evidence(row.get("evidence"), prepared.leads),
        "notes": [*notes_of(row, prepared), *([_LATE] if late else [])],
        "model": mark,
    }
    return Answer.model_validate(said)


def _evidence(said: str | None, leads: Mapping[str, int]) -> list[Evidence] | None:
    """The model's evidence, its places counted in the text as it was sent."""
    if said is None:
        return None
    found = [Evidence.model_validate(each) for each in json.loads(said)]
    return [
        each.model_copy(update={"start": each.start + lead, "end": each.end + lead})
        for each in found
        for lead in (leads.get(each.field, 0),)
    ]
