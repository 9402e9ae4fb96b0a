"""From the visits of a request to their answers, with the requested rationales."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rarealert.knowledge.hpo import load_ontology
from rarealert.screening.answer import Note, RationaleFor
from rarealert.screening.service.batching import Answered, Job
from rarealert.screening.service.problems import FieldError, RequestError
from rarealert.screening.service.schemas import ModelMark, Visit, VisitAnswer
from rarealert.screening.service.state import Service
from rarealert.screening.visit_files import NO_WORD, wordless_field
from rarealert.sources.observable import describe_findings
from rarealert.visits.case import MAX_TEXT, TEXT_FIELDS, Case
from rarealert.visits.reading import Reading, read_visit

_SOURCE = "request"


@dataclass(frozen=True)
class Prepared:
    """A visit ready to be answered.

    ``leads`` counts the leading white space that was stripped from each field.
    """

    reading: Reading
    leads: Mapping[str, int]


def to_case(visit: Visit, place: int, where: str) -> Prepared:
    """Read ``visit``; ``where`` is its path in the request.

    Coded findings are added in HPO's words to the end of the history, as the readers of FHIR and
    phenopackets do, where the text does not name them already: the model reads text alone.

    Raises:
        RequestError: a finding is both present and excluded, or there is no word to read.
    """
    both = set(visit.findings_present) & set(visit.findings_excluded)
    if both:
        reason = "a term is both in findings_present and in findings_excluded"
        raise RequestError(
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
    if worded_codes := _worded_codes(visit, reading):
        history = " ".join(filter(None, (visit.history_of_present_illness, worded_codes)))
        fields["history_of_present_illness"] = history[:MAX_TEXT]
        reading = read_visit(Case.model_validate(fields))
    if reading is None:
        reason = "HPO has no such current term; give text or current terms"
        where = f"{where}.findings_present"
        raise RequestError(422, "Nothing to read.", [FieldError(field=where, reason=reason)])
    if wordless := wordless_field(reading.case):
        error = FieldError(field=f"{where}.{wordless}", reason=NO_WORD)
        raise RequestError(422, "Nothing to read.", [error])
    return Prepared(reading, {name: _lead(getattr(visit, name)) for name in TEXT_FIELDS})


def _worded_codes(visit: Visit, reading: Reading | None) -> str | None:
    """The coded findings of ``visit`` that its text does not name, in words."""
    named = (reading.affirmed, reading.denied) if reading else ((), ())
    return describe_findings(
        [term for term in _current(visit.findings_present) if term not in named[0]],
        [term for term in _current(visit.findings_excluded) if term not in named[1]],
    )


def _current(terms: Sequence[str]) -> list[str]:
    """Current ids of ``terms`` without repeats; ids unknown to HPO are dropped."""
    resolve = load_ontology().resolve
    return list(dict.fromkeys(current for term in terms if (current := resolve(term))))


def from_record(case: Case) -> Prepared:
    """A case read from a record."""
    return Prepared(read_visit(case), {})


def _lead(text: str | None) -> int:
    return len(text) - len(text.lstrip()) if text else 0


_LATE = Note(
    code="rationale_late",
    message="The rationale took too long; try again later, or with fewer visits.",
)


async def answer_all(
    service: Service,
    prepared: Sequence[Prepared],
    prevalence: float | None,
    rationale: RationaleFor,
) -> list[VisitAnswer]:
    """Answer each visit, in order.

    Raises:
        RequestError: the service can't answer now.
    """
    until = time.monotonic() + service.settings.answer_timeout_s
    jobs = [Job(each.reading, prevalence) for each in prepared]
    answered = await service.ask(jobs)
    late: set[int] = set()
    if rationale != "none":
        wanted = [
            place for place, each in enumerate(answered) if each.answer.wants_rationale(rationale)
        ]
        written = await _with_rationale(service, [jobs[place] for place in wanted], until)
        for place, again in zip(wanted, written, strict=True):
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


async def _with_rationale(
    service: Service, jobs: Sequence[Job], until: float
) -> list[Answered | None]:
    """Each job's answer with its rationale; ``None`` where it takes too long.

    A rationale takes dozens of times as long as a risk, so a late one must not cost the risks.
    """

    async def explained(job: Job) -> Answered | None:
        try:
            left = max(0.0, until - time.monotonic())
            [answered] = await service.ask([replace(job, rationale=True)], left)
        except RequestError:
            return None
        return answered

    return list(await asyncio.gather(*(explained(each) for each in jobs)))


def _answer(answered: Answered, prepared: Prepared, *, late: bool) -> VisitAnswer:
    """The service's answer; evidence offsets refer to the text as it was sent."""
    answer, model = answered.answer, answered.model
    evidence = tuple(
        each.model_copy(update={"start": each.start + lead, "end": each.end + lead})
        for each in answer.evidence
        for lead in (prepared.leads.get(each.field, 0),)
    )
    notes = (*answer.notes, *((_LATE,) if late else ()))
    mark = ModelMark(name=model.name, version=model.version, digest=model.digest)
    return VisitAnswer(**{**dict(answer), "evidence": evidence, "notes": notes}, model=mark)
