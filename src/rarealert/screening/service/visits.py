"""From a request's visit to the case that the model reads, and what is odd about it."""

from collections.abc import Mapping
from dataclasses import dataclass

from rarealert.cases.case import TEXT_FIELDS, Case
from rarealert.cases.sources.observable import told_findings
from rarealert.knowledge.hpo import load_ontology
from rarealert.screening.notes import Remark, age_remark, case_remarks, contradiction, mentioned
from rarealert.screening.readable import MAX_TEXT, NO_WORD, wordless_field
from rarealert.screening.service.problems import FieldError, RefusedError
from rarealert.screening.service.schemas import Visit

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
