"""FHIR resources of one patient, taken apart into what a visit may need; nothing else is kept."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rarealert.cases.sources import fhir_codes as fc
from rarealert.cases.sources.fhir_answers import answer
from rarealert.cases.sources.fhir_dates import When, when
from rarealert.cases.sources.refused import Place

_NOT_SAID = frozenset({"entered-in-error", "cancelled", "unknown"})
_NO_ENCOUNTER = frozenset({"planned", "cancelled", "entered-in-error"})
_UNSURE = frozenset({"unconfirmed", "provisional", "differential"})
_SEX = {"female": "female", "male": "male"}


@dataclass(frozen=True)
class Encounter:
    """A visit. ``start`` is ``None`` where the record doesn't say the day."""

    id: str
    start: When | None
    end: When | None
    reasons: str | None


@dataclass(frozen=True)
class Note:
    """Something written down: ``target`` is a field of the case, or an HPO code."""

    target: str
    text: str
    at: When | None
    encounter: str | None
    absent: bool = False


@dataclass(frozen=True)
class Condition:
    """A disease, with the day on which it was known."""

    name: str | None
    codes: tuple[str, ...]
    known: When | None
    encounter: str | None


@dataclass
class Record:
    """What is kept of one patient. ``doubt`` says why no first visit can be made of it."""

    place: Place | None = None
    born: When | None = None
    sex: str | None = None
    encounters: list[Encounter] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    doubt: str | None = None


def add(record: Record, resource: Any, place: Place, name: Callable[[Any], str | None]) -> None:
    """Put a validated resource of the record's patient into it; ``name`` reads references."""
    _ADD[type(resource).__name__](record, resource, place, name)


def _add_patient(record: Record, patient: Any, place: Place, _: Any) -> None:
    record.place = record.place or place
    record.born = when(patient.birthDate)
    record.sex = _SEX.get(patient.gender or "")


def _add_encounter(record: Record, encounter: Any, _: Place, __: Any) -> None:
    if encounter.status in _NO_ENCOUNTER:
        return
    period = encounter.period
    start = when(period.start) if period else None
    exact = start if start and start.first == start.last else None
    reasons = fc.joined(fc.said(concept) for concept in encounter.reasonCode or ())
    record.encounters.append(
        Encounter(encounter.id, exact, when(period.end) if period else None, reasons)
    )


def _add_condition(record: Record, condition: Any, _: Place, name: Any) -> None:
    status = set(fc.codes(condition.verificationStatus))
    if "entered-in-error" in status:
        return
    onset = condition.onsetDateTime or (condition.onsetPeriod and condition.onsetPeriod.start)
    known = when(condition.recordedDate) or when(onset)
    encounter = name(condition.encounter)
    said = fc.said(condition.code)
    if hpo := fc.hpo_code(condition.code):
        record.notes.append(Note(hpo, said or "", known, encounter, "refuted" in status))
    elif not status & {"refuted", *_UNSURE} and condition.code is not None:
        # known at the encounter that it hangs on, where nobody wrote when it was recorded
        at = when(condition.recordedDate) or (None if encounter else known)
        codes = fc.disease_codes(condition.code)
        if said or codes:
            record.conditions.append(Condition(said, codes, at, encounter))


def _add_observation(record: Record, observation: Any, _: Place, name: Any) -> None:
    if observation.status in _NOT_SAID:
        return
    # a result counts from its release on
    at = when(observation.effectiveDateTime or observation.effectiveInstant)
    if at is None and observation.effectivePeriod is not None:
        at = when(observation.effectivePeriod.start)
    issued = when(observation.issued)
    at = max(at, issued, key=lambda day: day.last) if at and issued else at or issued
    encounter = name(observation.encounter)
    value = _value(observation)
    if hpo := fc.hpo_code(observation.code):
        present = answer(observation)
        if present is not None:
            record.notes.append(Note(hpo, "", at, encounter, absent=not present))
        return
    target = _target(observation)
    if target and value:
        told = value if _is_narrative(observation) else f"{fc.said(observation.code)}: {value}"
        if fc.said(observation.code) or _is_narrative(observation):
            record.notes.append(Note(target, told, at, encounter))


def _is_narrative(observation: Any) -> bool:
    return any(code in fc.NARRATIVES for code in fc.codes(observation.code))


def _target(observation: Any) -> str | None:
    narrative = (fc.NARRATIVES.get(code) for code in fc.codes(observation.code))
    category = (
        fc.CATEGORIES.get(code) for item in observation.category or () for code in fc.codes(item)
    )
    return next((found for found in (*narrative, *category) if found), None)


def _value(item: Any) -> str | None:
    """The value in words, with its unit; of a panel, those of its parts."""
    if item.valueQuantity is not None and item.valueQuantity.value is not None:
        unit = item.valueQuantity.unit or item.valueQuantity.code or ""
        sign = item.valueQuantity.comparator or ""
        return f"{sign}{item.valueQuantity.value:g} {unit}".strip()
    if item.valueBoolean is not None:
        return "yes" if item.valueBoolean else "no"
    if item.valueInteger is not None:
        return str(item.valueInteger)
    if item.valueString:
        return " ".join(item.valueString.split()) or None
    if item.valueCodeableConcept is not None:
        return fc.said(item.valueCodeableConcept)
    parts = (
        f"{fc.said(part.code)} {value}"
        for part in getattr(item, "component", None) or ()
        if (value := _value(part)) and fc.said(part.code)
    )
    return fc.joined(parts, ", ")


def _add_relative(record: Record, history: Any, _: Place, __: Any) -> None:
    if history.status == "entered-in-error":
        return
    illnesses = []
    for item in history.condition or ():
        age, told = item.onsetAge, fc.said(item.code)
        in_years = age is not None and age.value is not None and age.code == "a"  # UCUM's year
        illnesses.append(f"{told} (at {age.value:g} years)" if told and in_years else told)
    whose, what = fc.said(history.relationship), fc.joined(illnesses, ", ")
    if whose and what:
        note = Note("family_history", f"{whose}: {what}", when(history.date), None)
        record.notes.append(note)


_ADD: Mapping[str, Callable[[Record, Any, Place, Any], None]] = {
    "Patient": _add_patient,
    "Encounter": _add_encounter,
    "Condition": _add_condition,
    "Observation": _add_observation,
    "FamilyMemberHistory": _add_relative,
}
TYPES = tuple(_ADD)
"""The resource types that are read; all others are passed over."""
