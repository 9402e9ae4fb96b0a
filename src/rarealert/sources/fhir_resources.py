"""What one FHIR resource contributes to a visit: dates, codes, answers, findings and texts.

HL7 FHIR R4, https://hl7.org/fhir/R4. Names, addresses and identifiers of a patient are not read.
"""

import re
from calendar import monthrange
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
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
"""LOINC codes of narrative sections, each with its field of a case."""

CATEGORIES: Mapping[str, str] = {
    "vital-signs": "vitals",
    "exam": "physical_examination",
    "social-history": "social_history",
}
"""Observation categories that belong to a visit; laboratory, imaging and procedures do not."""


def raw_codes(concepts: object) -> Iterator[str]:
    """Codes of a concept or a list of concepts in JSON that is not validated yet."""
    for concept in concepts if isinstance(concepts, list) else [concepts]:
        codings = concept.get("coding") if isinstance(concept, dict) else None
        for coding in codings if isinstance(codings, list) else []:
            code = coding.get("code") if isinstance(coding, dict) else None
            if isinstance(code, str):
                yield code


def codes(concept: Any) -> list[str]:
    """The codes of a CodeableConcept; none of ``None``."""
    return [coding.code for coding in (concept.coding if concept else None) or () if coding.code]


def concept_text(concept: Any) -> str | None:
    """The text of a CodeableConcept, else the first display of its codings."""
    text = next((text for text in _texts(concept) if text.strip()), None)
    return _KIND_OF_CONCEPT.sub("", " ".join(text.split())) if text else None


def _texts(concept: Any) -> list[str]:
    displays = [coding.display for coding in (concept.coding if concept else None) or ()]
    return [text for text in (concept.text if concept else None, *displays) if text]


def _disease_codes(concept: Any) -> tuple[str, ...]:
    """Codes of the disease vocabularies that labels know, such as ``ORPHA:558``."""
    return tuple(
        prefix + _PREFIX.sub("", coding.code)
        for coding in (concept.coding if concept else None) or ()
        for system, prefix in _DISEASE_SYSTEMS
        if coding.code and coding.system and system.search(str(coding.system).lower())
    )


def _hpo_code(concept: Any) -> str | None:
    return next((code for code in codes(concept) if HPO.fullmatch(code)), None)


def joined(texts: Iterable[str | None], mark: str = "; ") -> str | None:
    """Join the distinct texts in alphabetical order, which is independent of a bundle's order."""
    return mark.join(sorted({text for text in texts if text})) or None


_DAYS_A_YEAR = 365.25


@dataclass(frozen=True)
class When:
    """The first and last day on which something may have happened, and the moment if known.

    A moment's day is that of its own time zone, the clinic's.
    """

    first: date
    last: date
    moment: datetime | None = None


def when(value: object) -> When | None:
    """Read a date of ``fhir.resources``, which may be a moment, a day, a month or a year."""
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
    """Age on ``day``: completed years, below two years with their fraction.

    A birth known to the month or year counts as the middle. Before the birth the age is negative.
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
"""HL7's interpretations of a measurement that confirm the finding. They do not count in an answer,
where they may be letters of a form."""

_PRESENT_WORDS = frozenset(
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
_ABSENT_WORDS = frozenset(
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


def is_present(observation: Any) -> bool | None:
    """Whether the finding that an observation is coded for is present; ``None`` if undecided.

    Without a value, the observation affirms the finding. A number alone does not, since 36.5 °C is
    no fever, but its interpretation may. Any other answer, such as "unknown" or a local code, is
    undecided. One negative answer outweighs the others.
    """
    if observation.dataAbsentReason is not None:
        return None
    interpretations = observation.interpretation or ()
    answers = {observation.valueBoolean, _answer_in_text(observation.valueString)}
    answers.update(map(_answer_in_concept, (observation.valueCodeableConcept, *interpretations)))
    if any(code in _ABNORMAL for item in interpretations for code in codes(item)):
        answers.add(True)
    if False in answers:
        return False
    has_value = any(getattr(observation, name) is not None for name in _VALUES)
    return True if True in answers or not (interpretations or has_value) else None


def _answer_in_concept(concept: Any) -> bool | None:
    """The answer by code, else by words; a code of HPO, such as a severity, affirms."""
    known = set(codes(concept))
    if known & _ABSENT:
        return False
    if known & _PRESENT or any(map(HPO.fullmatch, known)):
        return True
    answers = map(_answer_in_text, _texts(concept))
    return next((answer for answer in answers if answer is not None), None)


def _answer_in_text(text: str | None) -> bool | None:
    words = " ".join((text or "").split("(")[0].casefold().split()).rstrip(".")
    if words in _ABSENT_WORDS:
        return False
    return True if words in _PRESENT_WORDS else None


_NO_RESULT = frozenset({"entered-in-error", "cancelled", "unknown"})
_NO_ENCOUNTER = frozenset({"planned", "cancelled", "entered-in-error"})
_UNSURE = frozenset({"unconfirmed", "provisional", "differential"})
_SEX = {"female": "female", "male": "male"}


@dataclass(frozen=True)
class Person:
    """Birth and sex of a patient."""

    born: When | None
    sex: str | None


@dataclass(frozen=True)
class Encounter:
    """An encounter; ``start`` is ``None`` where its day is not recorded."""

    id: str
    start: When | None
    end: When | None
    reasons: str | None


@dataclass(frozen=True)
class Passage:
    """A text for a field of the case, known from ``known`` on."""

    field: str
    text: str
    known: When | None
    encounter: str | None


@dataclass(frozen=True)
class CodedFinding:
    """An HPO term coded as present or absent, known from ``known`` on."""

    hpo_id: str
    is_absent: bool
    known: When | None
    encounter: str | None


@dataclass(frozen=True)
class Condition:
    """A disease, known from ``known`` on, else from its encounter on."""

    name: str | None
    codes: tuple[str, ...]
    known: When | None
    encounter: str | None


Part = Person | Encounter | Passage | CodedFinding | Condition
"""What is kept of a resource."""

Identify = Callable[[Any], str | None]
"""Returns the id of the resource that a reference names."""


@dataclass(frozen=True)
class PatientRecord:
    """All parts of one patient's record; ``place`` is that of the first resource."""

    patient: str
    place: Place
    parts: tuple[Part, ...]


def extract(resource: Any, identify: Identify) -> tuple[Part, ...]:
    """Extract the parts of a validated resource of one of ``TYPES``."""
    return tuple(_EXTRACT[type(resource).__name__](resource, identify))


def _person(patient: Any, _: Identify) -> Iterator[Part]:
    yield Person(when(patient.birthDate), _SEX.get(patient.gender or ""))


def _encounter(encounter: Any, _: Identify) -> Iterator[Part]:
    if encounter.status in _NO_ENCOUNTER:
        return
    period = encounter.period
    start = when(period.start) if period else None
    exact = start if start and start.first == start.last else None
    reasons = joined(concept_text(concept) for concept in encounter.reasonCode or ())
    yield Encounter(encounter.id, exact, when(period.end) if period else None, reasons)


def _condition(condition: Any, identify: Identify) -> Iterator[Part]:
    status = set(codes(condition.verificationStatus))
    if "entered-in-error" in status:
        return
    recorded = when(condition.recordedDate)
    onset = condition.onsetDateTime or (condition.onsetPeriod and condition.onsetPeriod.start)
    encounter = identify(condition.encounter)
    if hpo_id := _hpo_code(condition.code):
        yield CodedFinding(hpo_id, "refuted" in status, recorded or when(onset), encounter)
    elif not status & {"refuted", *_UNSURE}:
        name, disease_codes = concept_text(condition.code), _disease_codes(condition.code)
        # without a date of recording, the encounter dates it better than the onset
        known = recorded or (None if encounter else when(onset))
        if name or disease_codes:
            yield Condition(name, disease_codes, known, encounter)


def _observation(observation: Any, identify: Identify) -> Iterator[Part]:
    if observation.status in _NO_RESULT:
        return
    known = _known_from(observation)
    encounter = identify(observation.encounter)
    if hpo_id := _hpo_code(observation.code):
        present = is_present(observation)
        if present is not None:
            yield CodedFinding(hpo_id, not present, known, encounter)
        return
    field, value, name = _field(observation), _value(observation), concept_text(observation.code)
    if not field or not value:
        return
    if any(code in NARRATIVES for code in codes(observation.code)):
        yield Passage(field, value, known, encounter)
    elif name:
        yield Passage(field, f"{name}: {value}", known, encounter)


def _known_from(observation: Any) -> When | None:
    """The later of effective date and release."""
    effective = when(observation.effectiveDateTime or observation.effectiveInstant)
    if effective is None and observation.effectivePeriod is not None:
        effective = when(observation.effectivePeriod.start)
    dates = [known for known in (effective, when(observation.issued)) if known]
    return max(dates, key=lambda known: known.last, default=None)


def _field(observation: Any) -> str | None:
    """The field of the case that the observation belongs to, by its code, else its category."""
    narrative = (NARRATIVES.get(code) for code in codes(observation.code))
    category = (CATEGORIES.get(code) for item in observation.category or () for code in codes(item))
    return next((found for found in (*narrative, *category) if found), None)


def _value(item: Any) -> str | None:
    """The value as text, with its unit; of a panel, the values of its components."""
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
        return concept_text(item.valueCodeableConcept)
    parts = (
        f"{concept_text(part.code)} {value}"
        for part in getattr(item, "component", None) or ()
        if (value := _value(part)) and concept_text(part.code)
    )
    return joined(parts, ", ")


def _relative(history: Any, _: Identify) -> Iterator[Part]:
    if history.status == "entered-in-error":
        return
    illnesses = []
    for item in history.condition or ():
        age, name = item.onsetAge, concept_text(item.code)
        in_years = age is not None and age.value is not None and age.code == "a"  # UCUM's year
        illnesses.append(f"{name} (at {age.value:g} years)" if name and in_years else name)
    relative, text = concept_text(history.relationship), joined(illnesses, ", ")
    if relative and text:
        yield Passage("family_history", f"{relative}: {text}", when(history.date), None)


_EXTRACT: Mapping[str, Callable[[Any, Identify], Iterator[Part]]] = {
    "Patient": _person,
    "Encounter": _encounter,
    "Condition": _condition,
    "Observation": _observation,
    "FamilyMemberHistory": _relative,
}
TYPES = tuple(_EXTRACT)
"""The resource types that are read; all others are ignored."""
