"""FHIR R4 records: the first visit of each patient, and nothing that was known after it.

HL7 FHIR R4, https://hl7.org/fhir/R4. The first visit is the encounter that starts first. A resource
belongs to it if it refers to this encounter or to none, and is dated no later than the day on which
the encounter starts, nor after its end. A result counts from its release, a condition from its
recording. What has neither a date nor an encounter could be from later, so it is left out.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

from rarealert.knowledge.hpo import load_ontology
from rarealert.sources.fhir_resources import (
    CodedFinding,
    Condition,
    Encounter,
    Part,
    Passage,
    PatientRecord,
    Person,
    When,
    age_in_years,
    joined,
)
from rarealert.sources.fhir_stream import SUFFIXES, bundle_patients, read_patients
from rarealert.sources.labelling import CaseLabeller, Diagnosis, RecordedCase
from rarealert.sources.observable import describe_findings, shows_at_a_visit
from rarealert.sources.published_files import Tick, no_tick
from rarealert.visits.case import LabelledCase
from rarealert.visits.refused import Refused, build_case

__all__ = ["SUFFIXES", "read", "read_bundle", "read_recorded"]

_P = TypeVar("_P", bound=Part)
_OF_THE_DAY = ("vitals", "physical_examination")  # measured on another day, they are of no use


def read(folder: Path, tick: Tick = no_tick) -> Iterator[LabelledCase | Refused]:
    """Read every patient of ``folder`` as a labelled case or refused.

    Raises:
        BadInputError: ``folder`` contains no JSON or NDJSON, or a damaged zip.
    """
    yield from CaseLabeller(folder).label_all(read_recorded(folder, tick))


def read_recorded(path: Path, tick: Tick = no_tick) -> Iterator[RecordedCase | Refused]:
    """Read the first visit of every patient in a file, a folder or a zip, with all diagnoses.

    Resources of one patient may be in any order and in any number of files of any size; memory
    holds one patient.

    Raises:
        BadInputError: ``path`` contains no JSON or NDJSON, or a damaged zip.
    """
    yield from _first_visits(read_patients(path, tick))


def read_bundle(bundle: Mapping[str, Any]) -> Iterator[RecordedCase | Refused]:
    """Read the first visit of every patient in a bundle in memory."""
    yield from _first_visits(bundle_patients(bundle))


def _first_visits(
    found: Iterable[PatientRecord | Refused],
) -> Iterator[RecordedCase | Refused]:
    for item in found:
        yield item if isinstance(item, Refused) else _first_visit(item)


def _first_visit(record: PatientRecord) -> RecordedCase | Refused:
    encounters = _of_type(record, Encounter)
    if not encounters:
        reason = "the patient has no encounter"
        return record.place.refuse("Encounter", reason, "out_of_scope")
    starts = [item.start for item in encounters if item.start is not None]
    if len(starts) < len(encounters):
        reason = "an encounter without a day, so the first one is unknown"
        return record.place.refuse("Encounter.period.start", reason, "out_of_scope")
    first = min(encounters, key=_order)
    day = min(start.first for start in starts)
    days = {item.id: item.start for item in encounters}
    conditions = [_dated(item, days) for item in _of_type(record, Condition)]
    case = build_case(record.place, _fields(record, conditions, first, day))
    if isinstance(case, Refused):
        return case
    return RecordedCase(record.place, case, _diagnoses(conditions, first, day))


def _of_type(record: PatientRecord, kind: type[_P]) -> list[_P]:
    return [part for part in record.parts if isinstance(part, kind)]


def _order(encounter: Encounter) -> tuple[date, float, str]:
    """By day, then by moment (a day without one comes first), then by id."""
    start = encounter.start
    assert start is not None
    return start.first, start.moment.timestamp() if start.moment else 0.0, encounter.id


def _dated(condition: Condition, days: Mapping[str, When | None]) -> Condition:
    """Date a condition without a date of recording by its encounter."""
    if condition.known is not None or condition.encounter is None:
        return condition
    return replace(condition, known=days.get(condition.encounter))


def _fields(
    record: PatientRecord, conditions: Iterable[Condition], first: Encounter, day: date
) -> dict[str, object]:
    person = next(iter(_of_type(record, Person)), Person(None, None))
    texts: dict[str, list[str | None]] = {"chief_complaint": [first.reasons]}
    for passage in _of_type(record, Passage):
        if _belongs(passage, first, day) and _is_of_the_day(passage, day):
            texts.setdefault(passage.field, []).append(passage.text)
    for condition in conditions:
        if condition.known is not None and condition.known.last < day:
            texts.setdefault("past_medical_history", []).append(condition.name)
    coded = [item for item in _of_type(record, CodedFinding) if _belongs(item, first, day)]
    present, excluded = _findings(coded)
    story = [*texts.pop("history_of_present_illness", ()), describe_findings(present, excluded)]
    return {
        "case_id": f"{record.patient}/{first.id}",
        "source": "fhir",
        "patient_id": record.patient,
        "visit_date": day,
        "age_years": age_in_years(person.born, day) if person.born else None,
        "sex": person.sex,
        **{field: joined(parts) for field, parts in texts.items()},
        "history_of_present_illness": joined(story, " "),
        "findings_present": tuple(present) if coded else None,
        "findings_excluded": tuple(excluded) if coded else None,
    }


def _belongs(part: Passage | CodedFinding, first: Encounter, day: date) -> bool:
    if part.encounter is not None and part.encounter != first.id:
        return False
    if part.known is None:
        return part.encounter == first.id
    if part.known.last > day:
        return False
    end = first.end.moment if first.end else None
    return not (part.known.moment and end and part.known.moment > end)


def _is_of_the_day(passage: Passage, day: date) -> bool:
    """Whether a measurement was taken on ``day``, as far as its date is known."""
    return passage.field not in _OF_THE_DAY or passage.known is None or passage.known.last == day


def _findings(coded: Iterable[CodedFinding]) -> tuple[list[str], list[str]]:
    """Living HPO ids that a first visit can show; a term coded as both is present."""
    resolve = load_ontology().resolve
    terms = [(resolve(finding.hpo_id), finding.is_absent) for finding in coded]
    shown = [(term, is_absent) for term, is_absent in terms if term and shows_at_a_visit(term)]
    present = sorted({term for term, is_absent in shown if not is_absent})
    return present, sorted({term for term, is_absent in shown if is_absent} - set(present))


def _diagnoses(
    conditions: Iterable[Condition], first: Encounter, day: date
) -> tuple[Diagnosis, ...]:
    """Every condition, the earliest known first, those of an unknown day last.

    Conditions from before the visit count as well: a patient whose rare disease is already known
    is no example of a common one.
    """

    def order(condition: Condition) -> tuple[date, str, tuple[str, ...]]:
        known = condition.known
        return known.last if known else date.max, condition.name or "", condition.codes

    def is_at_visit(condition: Condition) -> bool:
        if condition.encounter is not None:
            return condition.encounter == first.id
        known = condition.known
        return known is not None and known.first == known.last == day

    return tuple(
        Diagnosis(item.name, item.codes, at_visit=is_at_visit(item))
        for item in sorted(conditions, key=order)
    )
