"""From the visits of a request to their answers, with the rationales that were asked for."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rarealert.knowledge.hpo import load_ontology
from rarealert.screening.answer import Note, RationaleFor
from rarealert.screening.service.batching import Answered, Question
from rarealert.screening.service.problems import FieldError, RefusedError
from rarealert.screening.service.schemas import Answer, ModelMark, Visit
from rarealert.screening.service.state import Service
from rarealert.screening.visit_files import MAX_TEXT, NO_WORD, wordless_field
from rarealert.sources.observable import told_findings
from rarealert.visits.case import TEXT_FIELDS, Case
from rarealert.visits.reading import Reading, read_visit

_SOURCE = "request"


@dataclass(frozen=True)
class Prepared:
    """A visit ready to be answered.

    ``leads`` are the characters of white space that the case lacks at the start of each field.
    """

    reading: Reading
    leads: Mapping[str, int]


def to_case(visit: Visit, place: int, where: str) -> Prepared:
    """Read ``visit``; ``where`` is its path in the request.

    Coded findings are added in HPO's words to the end of the history, as the readers of FHIR and
    phenopackets do, where the text does not name them already: the model reads text alone.

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
    fields = {
        "case_id": visit.case_id or str(place),
        "source": _SOURCE,
        "age_years": visit.age_years,
        "sex": visit.sex,
        **{name: getattr(visit, name) for name in TEXT_FIELDS},
        "findings_present": tuple(visit.findings_present),
        "findings_excluded": tuple(visit.findings_excluded),
    }
    worded = any(fields[name] for name in TEXT_FIELDS)
    reading = read_visit(Case.model_validate(fields)) if worded else None
    if told := _told(visit, reading):
        history = " ".join(filter(None, (visit.history_of_present_illness, told)))
        fields["history_of_present_illness"] = history[:MAX_TEXT]
        reading = read_visit(Case.model_validate(fields))
    if reading is None:
        reason = "HPO has no such living term; give text or current terms"
        where = f"{where}.findings_present"
        raise RefusedError(422, "Nothing to read.", [FieldError(field=where, reason=reason)])
    if wordless := wordless_field(reading.case):
        error = FieldError(field=f"{where}.{wordless}", reason=NO_WORD)
        raise RefusedError(422, "Nothing to read.", [error])
    return Prepared(reading, {name: _lead(getattr(visit, name)) for name in TEXT_FIELDS})


def _told(visit: Visit, reading: Reading | None) -> str | None:
    """The coded findings of ``visit`` that its text does not name, in words."""
    named = (reading.affirmed, reading.denied) if reading else ((), ())
    return told_findings(
        [term for term in _living(visit.findings_present) if term not in named[0]],
        [term for term in _living(visit.findings_excluded) if term not in named[1]],
    )


def _living(terms: Sequence[str]) -> list[str]:
    """Current ids of ``terms`` without repeats; those that HPO does not know are left out."""
    resolve = load_ontology().resolve
    return list(dict.fromkeys(living for term in terms if (living := resolve(term))))


def from_record(case: Case) -> Prepared:
    """A case that came from a record."""
    return Prepared(read_visit(case), {})


def _lead(text: str | None) -> int:
    return len(text) - len(text.lstrip()) if text else 0


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
    questions = [Question(each.reading, prevalence) for each in prepared]
    answered = await service.ask(questions)
    late: set[int] = set()
    if rationale != "none":
        wanted = [
            place for place, each in enumerate(answered) if each.answer.wants_rationale(rationale)
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


def _answer(answered: Answered, prepared: Prepared, *, late: bool) -> Answer:
    """The service's answer; places of evidence are counted in the text as it was sent."""
    answer, model = answered.answer, answered.model
    evidence = tuple(
        replace(each, start=each.start + lead, end=each.end + lead)
        for each in answer.evidence
        for lead in (prepared.leads.get(each.field, 0),)
    )
    notes = (*answer.notes, *((_LATE,) if late else ()))
    mark = ModelMark(name=model.name, version=model.version, digest=model.digest)
    return Answer(**{**dict(answer), "evidence": evidence, "notes": notes}, model=mark)
