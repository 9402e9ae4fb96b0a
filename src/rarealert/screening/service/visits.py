"""From a request's visit to the case that the model reads, and what is odd about it."""

from collections.abc import Mapping
from dataclasses import dataclass

from rarealert.cases.case import TEXT_FIELDS, Case
from rarealert.cases.sources.demographics import parse_age
from rarealert.cases.sources.observable import told_findings
from rarealert.knowledge.hpo import load_ontology
from rarealert.knowledge.recognise import load_recogniser
from rarealert.screening.readable import NO_WORD, wordless_field
from rarealert.screening.service.problems import FieldError, RefusedError
from rarealert.screening.service.schemas import MAX_TEXT, Note, Visit

_SOURCE = "request"
_AGE_SHARE = 0.25  # a rounded age differs by less, one in months instead of years by far more
_AGE_YEARS = 1.0


@dataclass(frozen=True)
class Prepared:
    """A case ready to be asked about, and notes on it.

    ``leads`` are the characters of white space that the case lacks at the start of each field.
    """

    case: Case
    notes: tuple[Note, ...]
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
    said, denied = _mentioned(fields)
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
    contradicted = (said | set(present)) & (denied | set(excluded))
    contradicted |= _denied_above(present, excluded)
    leads = {name: _lead(getattr(visit, name)) for name in TEXT_FIELDS}
    return Prepared(case, _notes(case, contradicted, unknown + more), leads)


def _denied_above(present: list[str], excluded: list[str]) -> set[str]:
    """Coded findings that are denied though a kind of theirs is present."""
    above = load_ontology().ancestors
    return {term for term in excluded if any(term in above(each) for each in present)}


def from_record(case: Case) -> Prepared:
    """A case that came from a record."""
    said, denied = _mentioned({name: getattr(case, name) for name in TEXT_FIELDS})
    return Prepared(case, _notes(case, said & denied, 0), {})


def _lead(text: str | None) -> int:
    return len(text) - len(text.lstrip()) if text else 0


def _mentioned(fields: dict[str, str | None]) -> tuple[set[str], set[str]]:
    """HPO ids that the text states, and those it denies, of the patient."""
    said: set[str] = set()
    denied: set[str] = set()
    for name, text in fields.items():
        for mention in load_recogniser().mentions(text or "", family=name == "family_history"):
            if not mention.family:
                (denied if mention.negated else said).add(mention.hpo_id)
    return said, denied


def _living(terms: list[str]) -> tuple[list[str], int]:
    """Current ids of ``terms`` without repeats, and how many HPO does not know."""
    resolve = load_ontology().resolve
    found = [resolve(term) for term in terms]
    return list(dict.fromkeys(term for term in found if term)), found.count(None)


def _notes(case: Case, contradicted: set[str], unknown: int) -> tuple[Note, ...]:
    notes = []
    if contradicted:
        name = load_ontology().name
        told = ", ".join(sorted(name(term) for term in contradicted)[:5])
        message = f"Both stated and denied: {told}."
        notes.append(Note(code="contradictory_findings", message=message))
    if unknown:
        message = f"{unknown} HPO codes are not known here and were not read."
        notes.append(Note(code="unknown_finding", message=message))
    said = _age_said(case)
    if said is not None and case.age_years is not None:
        apart = abs(said - case.age_years)
        if apart > max(_AGE_YEARS, _AGE_SHARE * max(said, case.age_years)):
            message = f"age_years is {case.age_years:g}, the text says {said:.3g} years."
            notes.append(Note(code="age_differs", message=message))
    return tuple(notes)


def _age_said(case: Case) -> float | None:
    texts = (case.chief_complaint, case.history_of_present_illness)
    return next((age for text in texts if text and (age := parse_age(text)) is not None), None)
