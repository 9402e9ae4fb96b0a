"""FHIR's coded concepts: which codes we know, and in which words they are said.

FHIR's dates, which may be a moment, a day, a month or a year.

What an observation that asks after a finding answers: it is there, it is not, or nothing.

FHIR resources of one patient, taken apart into what a visit may need; nothing else is kept.
"""

import re
from calendar import monthrange
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from rarealert.visits.refused import Place

HPO = re.compile(r"HP:[0-9]{7}")
_KIND_OF_CONCEPT = re.compile(
    r"\s*\((?:disorder|finding|situation|observable entity|morphologic abnormality)\)$"
)
_DISEASE_SYSTEMS = (
    (re.compile(r"orpha\.net"), "ORPHA:"),
    (re.compile(r"\bomim\.org"), "OMIM:"),
    (re.compile(r"icd-10-cm"), "ICD10CM:"),
    (re.compile(r"sid/icd-10$"), "ICD10:"),
)
_PREFIX = re.compile(r"^[A-Za-z_0-9]+:")
NARRATIVES: Mapping[str, str] = {
    "10154-3": "chief_complaint",
    "8661-1": "chief_complaint",
    "10164-2": "history_of_present_illness",
    "11348-0": "past_medical_history",
    "10157-6": "family_history",
    "29762-2": "social_history",
    "29545-1": "physical_examination",
    "10187-3": "history_of_present_illness",
}
"""LOINC codes of narrative sections, and the field of a case that each is."""

CATEGORIES: Mapping[str, str] = {
    "vital-signs": "vitals",
    "exam": "physical_examination",
    "social-history": "social_history",
}
"""Observation categories that belong to a visit; laboratory, imaging and procedures do not."""


def raw_codes(concepts: object) -> Iterator[str]:
    """Codes of a concept or a list of concepts in JSON that nobody has checked yet."""
    for concept in concepts if isinstance(concepts, list) else [concepts]:
        codings = concept.get("coding") if isinstance(concept, dict) else None
        for coding in codings if isinstance(codings, list) else []:
            code = coding.get("code") if isinstance(coding, dict) else None
            if isinstance(code, str):
                yield code


def codes(concept: Any) -> list[str]:
    """The codes of a CodeableConcept, or of nothing."""
    return [coding.code for coding in (concept.coding if concept else None) or () if coding.code]


def said(concept: Any) -> str | None:
    """A CodeableConcept in words: its text, else the display of its first coding that has one."""
    words = next((text for text in wordings(concept) if text.strip()), None)
    return _KIND_OF_CONCEPT.sub("", " ".join(words.split())) if words else None


def wordings(concept: Any) -> list[str]:
    """The text of a CodeableConcept and the displays of its codings; none of nothing."""
    displays = [coding.display for coding in (concept.coding if concept else None) or ()]
    return [text for text in (concept.text if concept else None, *displays) if text]


def disease_codes(concept: Any) -> tuple[str, ...]:
    """Codes of disease vocabularies that the labels know, such as ``ORPHA:558``."""
    return tuple(
        prefix + _PREFIX.sub("", coding.code)
        for coding in (concept.coding if concept else None) or ()
        for system, prefix in _DISEASE_SYSTEMS
        if coding.code and coding.system and system.search(str(coding.system).lower())
    )


def hpo_code(concept: Any) -> str | None:
    """The first HPO code of a concept."""
    return next((code for code in codes(concept) if HPO.fullmatch(code)), None)


def joined(texts: Iterable[str | None], mark: str = "; ") -> str | None:
    """The distinct texts in alphabetical order, so that the order of a bundle says nothing."""
    return mark.join(sorted({text for text in texts if text})) or None


_DAYS_A_YEAR = 365.25


@dataclass(frozen=True)
class When:
    """The days between which something happened, both included, and the moment if it is known.

    A moment's day is the one of its own time zone: the clinic's.
    """

    first: date
    last: date
    moment: datetime | None = None


def when(value: object) -> When | None:
    """``value`` as ``fhir.resources`` gives a date; ``None`` where it is absent."""
    if isinstance(value, datetime):
        return When(value.date(), value.date(), value if value.tzinfo else None)
    if isinstance(value, date):
        return When(value, value)
    if not isinstance(value, str):
        return None
    parts = [int(part) for part in value.split("-")]
    year, first, last = parts[0], 1, 12
    if len(parts) > 1:
        first = last = parts[1]
    return When(date(year, first, 1), date(year, last, monthrange(year, last)[1]))


def age_in_years(born: When, day: date) -> float:
    """Age on ``day``: completed years, and below two years their fraction.

    A birth known to the year or month counts as its middle. Before the birth it is negative.
    """
    birth = born.first + (born.last - born.first) / 2
    if born.first <= day < birth:
        birth = day
    years = day.year - birth.year - ((day.month, day.day) < (birth.month, birth.day))
    return float(years) if years >= 2 else (day - birth).days / _DAYS_A_YEAR


_VALUES = (
    "valueBoolean",
    "valueCodeableConcept",
    "valueDateTime",
    "valueInteger",
    "valuePeriod",
    "valueQuantity",
    "valueRange",
    "valueRatio",
    "valueSampledData",
    "valueString",
    "valueTime",
)
_PRESENT = frozenset(
    {
        "LA33-6",
        "LA9633-4",
        "LA6576-8",
        "52101004",
        "373066001",
        "10828004",
        "410515003",
        "410605003",
        "POS",
        "Y",
        "yes",
    }
)
"""Codes for "present", "yes" and "positive" (LOINC, SNOMED CT, HL7)."""

_ABSENT = frozenset(
    {
        "LA32-8",
        "LA9634-2",
        "LA6577-6",
        "2667000",
        "373067005",
        "260385009",
        "410516002",
        "HP:0040285",
        "NEG",
        "N",
        "ND",
        "no",
    }
)
"""Codes for "absent", "no" and "negative" (LOINC, SNOMED CT, HPO, HL7)."""

_ABNORMAL = frozenset({"A", "AA", "H", "HH", "HU", "L", "LL", "LU", "DET"})
"""HL7's interpretations of a measurement that bear the finding out; as answers they may be a form's
own letters."""

_SAYS_PRESENT = frozenset(
    {
        "yes",
        "true",
        "present",
        "positive",
        "detected",
        "confirmed",
        "known present",
        "mild",
        "moderate",
        "severe",
    }
)
_SAYS_ABSENT = frozenset(
    {
        "no",
        "none",
        "false",
        "absent",
        "negative",
        "excluded",
        "known absent",
        "not present",
        "not detected",
    }
)


def answer(observation: Any) -> bool | None:
    """Whether the finding in the observation's code is there; ``None`` if nobody can say.

    Without a value the observation itself says so. A number alone affirms nothing, since 36.5 °C is
    no fever; its interpretation may. An answer that is not known ("unknown", a local code) is none.
    """
    if observation.dataAbsentReason is not None:
        return None
    interpretations = observation.interpretation or ()
    said = {observation.valueBoolean, _of_text(observation.valueString)}
    said.update(map(_of_concept, (observation.valueCodeableConcept, *interpretations)))
    if any(code in _ABNORMAL for item in interpretations for code in codes(item)):
        said.add(True)
    if False in said:
        return False
    nothing = not interpretations and all(getattr(observation, name) is None for name in _VALUES)
    return True if nothing or True in said else None


def _of_concept(concept: Any) -> bool | None:
    """What the codes say, and else the words; a code of HPO, such as a severity, affirms."""
    known = set(codes(concept))
    if known & _ABSENT:
        return False
    if known & _PRESENT or any(map(HPO.fullmatch, known)):
        return True
    return _first(map(_of_text, wordings(concept)))


def _of_text(text: str | None) -> bool | None:
    words = " ".join((text or "").split("(")[0].casefold().split()).rstrip(".")
    if words in _SAYS_ABSENT:
        return False
    return True if words in _SAYS_PRESENT else None


def _first(said: Iterable[bool | None]) -> bool | None:
    return next((item for item in said if item is not None), None)


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
    reasons = joined(said(concept) for concept in encounter.reasonCode or ())
    record.encounters.append(
        Encounter(encounter.id, exact, when(period.end) if period else None, reasons)
    )


def _add_condition(record: Record, condition: Any, _: Place, name: Any) -> None:
    status = set(codes(condition.verificationStatus))
    if "entered-in-error" in status:
        return
    onset = condition.onsetDateTime or (condition.onsetPeriod and condition.onsetPeriod.start)
    known = when(condition.recordedDate) or when(onset)
    encounter = name(condition.encounter)
    wording = said(condition.code)
    if hpo := hpo_code(condition.code):
        record.notes.append(Note(hpo, wording or "", known, encounter, "refuted" in status))
    elif not status & {"refuted", *_UNSURE} and condition.code is not None:
        # known at the encounter that it hangs on, where nobody wrote when it was recorded
        at = when(condition.recordedDate) or (None if encounter else known)
        coded = disease_codes(condition.code)
        if wording or coded:
            record.conditions.append(Condition(wording, coded, at, encounter))


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
    if hpo := hpo_code(observation.code):
        present = answer(observation)
        if present is not None:
            record.notes.append(Note(hpo, "", at, encounter, absent=not present))
        return
    target = _target(observation)
    if target and value:
        told = value if _is_narrative(observation) else f"{said(observation.code)}: {value}"
        if said(observation.code) or _is_narrative(observation):
            record.notes.append(Note(target, told, at, encounter))


def _is_narrative(observation: Any) -> bool:
    return any(code in NARRATIVES for code in codes(observation.code))


def _target(observation: Any) -> str | None:
    narrative = (NARRATIVES.get(code) for code in codes(observation.code))
    category = (CATEGORIES.get(code) for item in observation.category or () for code in codes(item))
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
        return said(item.valueCodeableConcept)
    parts = (
        f"{said(part.code)} {value}"
        for part in getattr(item, "component", None) or ()
        if (value := _value(part)) and said(part.code)
    )
    return joined(parts, ", ")


def _add_relative(record: Record, history: Any, _: Place, __: Any) -> None:
    if history.status == "entered-in-error":
        return
    illnesses = []
    for item in history.condition or ():
        age, told = item.onsetAge, said(item.code)
        in_years = age is not None and age.value is not None and age.code == "a"  # UCUM's year
        illnesses.append(f"{told} (at {age.value:g} years)" if told and in_years else told)
    whose, what = said(history.relationship), joined(illnesses, ", ")
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
