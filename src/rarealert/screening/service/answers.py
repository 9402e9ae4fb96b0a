"""From a request's visit to the case that the model reads, and what is odd about it.

From prepared visits to typed answers, with the rationales that were asked for.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rarealert.knowledge.hpo import load_ontology
from rarealert.screening.answer import (
    Remark,
    age_remark,
    case_remarks,
    contradiction,
    flag_remarks,
    mentioned,
)
from rarealert.screening.service.batching import Answered, Question
from rarealert.screening.service.problems import FieldError, RefusedError
from rarealert.screening.service.schemas import (
    Answer,
    Evidence,
    ModelMark,
    Note,
    RationaleFor,
    Visit,
)
from rarealert.screening.service.state import Service
from rarealert.screening.visit_files import MAX_TEXT, NO_WORD, wordless_field
from rarealert.sources.observable import told_findings
from rarealert.visits.case import TEXT_FIELDS, Case

_SOURCE = "request"


@dataclass(frozen=True)
class Prepared:
    """A case ready to be asked about, and notes on it.

    ``leads`` are the characters of white space that the case lacks at the start of each field.
    """

    case: Case
    notes: tuple[Remark, ...]
    leads: Mapping[str, int]


def to_case(visit: Visit, place: int, where: str) -> Prepared:
    """The case of ``visit``; ``where`` is its path in the request.

    Coded findings are told in HPO's words at the end of the history, as the readers of FHIR and
    phenopackets tell them, where the text does not name them already: the model reads text alone.

    Raises:
        RefusedError: a finding is both present and excluded, or there is no word to read.
    """
    both = set(visit.findings_present) & set(visit.findings_excluded)
    if both:
        reason = "a term is both in findings_present and in findings_excluded"
        raise RefusedError(
            422,
            "The findings contradict each other.",
            [FieldError(field=f"{where}.findings_excluded", reason=reason)],
        )
    fields = {name: getattr(visit, name) for name in TEXT_FIELDS}
    said, denied = mentioned(fields)
    present, unknown = _living(visit.findings_present)
    excluded, more = _living(visit.findings_excluded)
    told = told_findings(
        [term for term in present if term not in said],
        [term for term in excluded if term not in denied],
    )
    history = " ".join(filter(None, (fields["history_of_present_illness"], told)))
    fields["history_of_present_illness"] = history[:MAX_TEXT] or None
    if not any(text and text.strip() for text in fields.values()):
        reason = "HPO has no such living term; give text or current terms"
        where = f"{where}.findings_present"
        raise RefusedError(422, "Nothing to read.", [FieldError(field=where, reason=reason)])
    case = Case(
        case_id=visit.case_id or str(place),
        source=_SOURCE,
        age_years=visit.age_years,
        sex=visit.sex,
        **fields,
    )
    if wordless := wordless_field(case):
        error = FieldError(field=f"{where}.{wordless}", reason=NO_WORD)
        raise RefusedError(422, "Nothing to read.", [error])
    both = (said | set(present)) & (denied | set(excluded)) | _denied_above(present, excluded)
    remarks = (contradiction(both), _unknown(unknown + more), age_remark(case))
    leads = {name: _lead(getattr(visit, name)) for name in TEXT_FIELDS}
    return Prepared(case, tuple(each for each in remarks if each), leads)


def _denied_above(present: list[str], excluded: list[str]) -> set[str]:
    """Coded findings that are denied though a kind of theirs is present."""
    above = load_ontology().ancestors
    return {term for term in excluded if any(term in above(each) for each in present)}


def from_record(case: Case) -> Prepared:
    """A case that came from a record."""
    return Prepared(case, tuple(case_remarks(case)), {})


def _lead(text: str | None) -> int:
    return len(text) - len(text.lstrip()) if text else 0


def _unknown(count: int) -> Remark | None:
    if not count:
        return None
    message = f"{count} HPO codes are not known here and were not read."
    return Remark("unknown_finding", message)


def _living(terms: list[str]) -> tuple[list[str], int]:
    """Current ids of ``terms`` without repeats, and how many HPO does not know."""
    resolve = load_ontology().resolve
    found = [resolve(term) for term in terms]
    return list(dict.fromkeys(term for term in found if term)), found.count(None)


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
