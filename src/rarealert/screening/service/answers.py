"""From questions to typed answers, with the rationales that were asked for."""

from collections.abc import Sequence
from dataclasses import replace

from rarealert.cases.case import Case
from rarealert.screening.service.batching import Answered, Question
from rarealert.screening.service.schemas import Answer, ModelMark, Note, RationaleFor
from rarealert.screening.service.state import Service

ALERT = "alert"


async def answer_all(
    service: Service,
    cases: Sequence[tuple[Case, list[Note]]],
    prevalence: float | None,
    rationale: RationaleFor,
) -> list[Answer]:
    """One answer a case, in order.

    Raises:
        RefusedError: the service can't answer now.
    """
    questions = [Question(case, prevalence, rationale == "all") for case, _ in cases]
    answered = await service.ask(questions)
    if rationale == "alerts":
        wanted = [place for place, each in enumerate(answered) if each.row["band"] == ALERT]
        told = await service.ask([replace(questions[place], rationale=True) for place in wanted])
        for place, each in zip(wanted, told, strict=True):
            answered[place] = each
    answers = [_answer(each, notes) for each, (_, notes) in zip(answered, cases, strict=True)]
    for answer in answers:
        service.metrics.answer(answer.band)
    return answers


def _answer(answered: Answered, notes: list[Note]) -> Answer:
    row, model = answered.row, answered.model
    if row["truncated"]:
        message = "The visit is longer than the model reads; history was left out."
        notes = [*notes, Note(code="truncated", message=message)]
    mark = ModelMark(name=model.name, version=model.version, digest=model.digest)
    return Answer.model_validate({**row, "notes": notes, "model": mark})
