"""From prepared visits to typed answers, with the rationales that were asked for."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rarealert.screening.notes import flag_remarks
from rarealert.screening.service.batching import Answered, Question
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
    questions = [Question(each.case, prevalence, rationale == "all") for each in prepared]
    answered = await service.ask(questions)
    if rationale == "alerts":
        wanted = [place for place, each in enumerate(answered) if _is_alert(each.row)]
        told = await service.ask([replace(questions[place], rationale=True) for place in wanted])
        for place, again in zip(wanted, told, strict=True):
            answered[place] = again
    answers = [_answer(*pair) for pair in zip(answered, prepared, strict=True)]
    for answer in answers:
        service.metrics.answer(answer.band)
    return answers


def notes_of(row: Mapping[str, Any], prepared: Prepared) -> list[Note]:
    """What a reader of the answer ``row`` must know."""
    remarks = (*flag_remarks(row), *prepared.notes)
    return [Note(code=each.code, message=each.message) for each in remarks]


def _is_alert(row: Mapping[str, Any]) -> bool:
    return row["band"] == ALERT and not row.get("not_english")


def _answer(answered: Answered, prepared: Prepared) -> Answer:
    row, model = answered.row, answered.model
    mark = ModelMark(name=model.name, version=model.version, digest=model.digest)
    said: dict[str, Any] = {
        **row,
        "rationale": None if row.get("not_english") else row.get("rationale"),
        "evidence": _evidence(row.get("evidence"), prepared.leads),
        "notes": notes_of(row, prepared),
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
