"""FHIR R4 records: the first visit of each patient, and nothing that was known after it.

HL7 FHIR R4, https://hl7.org/fhir/R4. The first visit is the encounter that starts first. What
belongs to it hangs on it or on no encounter, and is dated no later than the day on which it
starts, nor after its end. A result counts from its release, a condition from its recording. What
bears no date and hangs on no encounter can't be shown to be early, so it is left out.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from rarealert.knowledge.hpo import load_ontology
from rarealert.sources import fhir_resources as fc
from rarealert.sources.fhir_resources import (
    Condition,
    Encounter,
    Note,
    Record,
    When,
    add,
    age_in_years,
)
from rarealert.sources.fhir_stream import (
    DECISIVE,
    SUFFIXES,
    Doubts,
    Raw,
    Resource,
    bundled,
    resources,
)
from rarealert.sources.files import Tick, no_tick
from rarealert.sources.observable import shows_at_a_visit, told_findings
from rarealert.sources.records import Diagnosis, Visit, VisitLabeller
from rarealert.visits.refused import Place, Read, Refused, build_visit

__all__ = ["SUFFIXES", "first_visits", "read", "read_bundle", "read_visits"]


def read(folder: Path, tick: Tick = no_tick) -> Iterator[Read]:
    """Every patient of ``folder`` as a labelled case, and whatever is refused.

    Raises:
        BadInputError: ``folder`` holds no JSON or NDJSON, or a zip without a whole member.
    """
    yield from VisitLabeller(folder).label_all(read_visits(folder, tick))


def read_visits(path: Path, tick: Tick = no_tick) -> Iterator[Visit | Refused]:
    """The first visit of every patient in a file, a folder or a zip, with all diagnoses.

    Resources of one patient may stand in any order and in any number of files.

    Raises:
        BadInputError: ``path`` holds no JSON or NDJSON, or a zip without a whole member.
    """
    yield from first_visits(resources(path, tick))


def read_bundle(bundle: Raw) -> Iterator[Visit | Refused]:
    """The first visit of every patient in a bundle in memory, as ``read_visits`` reads a file."""
    yield from first_visits(bundled(bundle))


def first_visits(found: Iterable[Resource]) -> Iterator[Visit | Refused]:
    """The first visit of every patient among ``found``, by patient, after what is refused."""
    records: dict[str, Record] = {}
    seen: dict[tuple[str, str], int] = {}
    doubts = Doubts()
    for resource in found:
        if resource.loss is not None:
            doubts.lost(resource.loss, resource.place.file)
        refused = resource.refused or _conflict(resource, seen)
        if refused is not None:
            yield refused
        if resource.patient is None:
            continue
        doubts.saw(resource.patient, resource.place.file)
        record = records.setdefault(resource.patient, Record())
        if refused is not None:
            if resource.kind in DECISIVE:
                record.doubt = f"a {resource.kind} of this patient is refused"
        elif resource.checked is not None:
            record.place = record.place or resource.place
            _add_once(record, resource, seen)
    yield from _finished(records, doubts.patients())


def _finished(records: Mapping[str, Record], doubted: frozenset[str]) -> Iterator[Visit | Refused]:
    for patient in sorted(records):
        record = records[patient]
        if patient in doubted:
            record.doubt = "a part of this record may stand in what is lost of its file"
        if record.place is not None:
            yield _visit(patient, record, record.place)


def _key(resource: Resource) -> tuple[str, str] | None:
    return (resource.kind, resource.checked.id) if resource.checked.id else None


def _conflict(resource: Resource, seen: dict[tuple[str, str], int]) -> Refused | None:
    """A second resource of one id is the first one again, or a contradiction."""
    key = _key(resource)
    known = seen.get(key) if key else None
    if known is None or known == _content(resource):
        return None
    return resource.place.refuse(f"{resource.kind}.id", "an id given twice with other content")


def _content(resource: Resource) -> int:
    return hash(resource.checked.model_dump_json(exclude={"meta", "text"}))


def _add_once(record: Record, resource: Resource, seen: dict[tuple[str, str], int]) -> None:
    key = _key(resource)
    if key is None or key not in seen:
        if key is not None:
            seen[key] = _content(resource)
        add(record, resource.checked, resource.place, resource.name)


def _visit(patient: str, record: Record, place: Place) -> Visit | Refused:
    if record.doubt:
        return place.refuse("patient", record.doubt)
    if not record.encounters:
        return place.refuse("Encounter", "the patient has no encounter", "out_of_scope")
    starts = [item.start for item in record.encounters]
    days = [start for start in starts if start is not None]
    if len(days) < len(starts):
        reason = "an encounter without a day: which one is the first can't be told"
        return place.refuse("Encounter.period.start", reason, "out_of_scope")
    first = min(record.encounters, key=_order)
    day = min(start.first for start in days)
    case = build_visit(place, _fields(patient, record, first, day))
    if isinstance(case, Refused):
        return case
    return Visit(place, case, _diagnoses(record, first, day))


def _order(encounter: Encounter) -> tuple[date, float, str]:
    """By day, then by moment (a day without one comes first), then by id."""
    start = encounter.start
    assert start is not None
    return start.first, start.moment.timestamp() if start.moment else 0.0, encounter.id


def _fields(patient: str, record: Record, first: Encounter, day: date) -> dict[str, object]:
    notes = [note for note in record.notes if _belongs(note, first, day)]
    told: dict[str, list[str]] = {}
    for target, group in groupby(sorted(notes, key=attrgetter("target")), attrgetter("target")):
        told[target] = [note.text for note in group]
    coded = [note for note in notes if fc.HPO.fullmatch(note.target)]
    present, excluded = _findings(coded)
    history = [
        item.name
        for item in record.conditions
        if (known := _known(item, record)) is not None and known.last < day
    ]
    story = [*told.get("history_of_present_illness", ()), told_findings(present, excluded)]
    return {
        "case_id": f"{patient}/{first.id}",
        "source": "fhir",
        "patient_id": patient,
        "visit_date": day,
        "age_years": age_in_years(record.born, day) if record.born else None,
        "sex": record.sex,
        "chief_complaint": fc.joined([first.reasons, *told.get("chief_complaint", ())]),
        "history_of_present_illness": fc.joined(story, " "),
        "past_medical_history": fc.joined([*history, *told.get("past_medical_history", ())]),
        "family_history": fc.joined(told.get("family_history", ())),
        "social_history": fc.joined(told.get("social_history", ())),
        "physical_examination": fc.joined(told.get("physical_examination", ())),
        "vitals": fc.joined(told.get("vitals", ())),
        "findings_present": tuple(present) if coded else None,
        "findings_excluded": tuple(excluded) if coded else None,
    }


def _belongs(note: Note, first: Encounter, day: date) -> bool:
    if note.encounter is not None and note.encounter != first.id:
        return False
    if note.at is None:
        return note.encounter == first.id
    if note.at.last > day:
        return False
    end = first.end.moment if first.end else None
    if note.at.moment and end and note.at.moment > end:
        return False
    # what was measured on another day says nothing of this visit's body
    return note.target not in ("vitals", "physical_examination") or note.at.last == day


def _findings(coded: list[Note]) -> tuple[list[str], list[str]]:
    """Living HPO ids that a first visit can show; a term said to be both is present."""
    resolve = load_ontology().resolve
    terms = [(resolve(note.target), note.absent) for note in coded]
    shown = [(term, absent) for term, absent in terms if term and shows_at_a_visit(term)]
    present = sorted({term for term, absent in shown if not absent})
    return present, sorted({term for term, absent in shown if absent} - set(present))


def _known(condition: Condition, record: Record) -> When | None:
    """The day on which a condition was recorded, else that of the encounter it hangs on."""
    if condition.known is not None or condition.encounter is None:
        return condition.known
    starts = (item.start for item in record.encounters if item.id == condition.encounter)
    return next(starts, None)


def _diagnoses(record: Record, first: Encounter, day: date) -> tuple[Diagnosis, ...]:
    """Every condition, the earliest known first, those of an unknown day last.

    A condition of before the visit is a diagnosis as well: who already has the name of a rare
    disease is no example of a common one.
    """

    def rank(condition: Condition) -> tuple[date, str, tuple[str, ...]]:
        known = _known(condition, record)
        return known.last if known else date.max, condition.name or "", condition.codes

    return tuple(
        Diagnosis(item.name, item.codes, at_visit=_at(item, record, first, day))
        for item in sorted(record.conditions, key=rank)
    )


def _at(condition: Condition, record: Record, first: Encounter, day: date) -> bool:
    known = _known(condition, record)
    on_the_day = known is not None and known.first == known.last == day
    return condition.encounter == first.id or (condition.encounter is None and on_the_day)
