"""From prepared visits to typed answers, with the rationales that were asked for."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rarealert.screening.service.batching import Answered, Question
from rarealert.screening.service.schemas import (
    Answer,
    Evidence,
    ModelMark,
    Note,
    NoteCode,
    RationaleFor,
)
from rarealert.screening.service.state import Service
from rarealert.screening.service.visits import Prepared

ALERT = "alert"

_FLAGS: Mapping[NoteCode, str] = {
    "not_english": "The text is not English; the model can't read it, and the risk means nothing.",
    "out_of_distribution": "The visit is unlike what the model has learnt from.",
    "abstain": "The model does not decide on this visit.",
    "truncated": "The visit is longer than the model reads; history was left out.",
}
"""Flags of a row that a reader must not miss, most serious first, in words."""


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
        wanted = [place for place, each in enumerate(answered) if each.row["band"] == ALERT]
        told = await service.ask([replace(questions[place], rationale=True) for place in wanted])
        for place, again in zip(wanted, told, strict=True):
            answered[place] = again
    answers = [_answer(*pair) for pair in zip(answered, prepared, strict=True)]
    for answer in answers:
        service.metrics.answer(answer.band)
    return answers


def _answer(answered: Answered, prepared: Prepared) -> Answer:
    row, model = answered.row, answered.model
    flags = [Note(code=code, message=text) for code, text in _FLAGS.items() if row.get(code)]
    mark = ModelMark(name=model.name, version=model.version, digest=model.digest)
    said: dict[str, Any] = {
        **row,
        "evidence": _evidence(row.get("evidence"), prepared.leads),
        "notes": [*flags, *prepared.notes],
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
