"""What an observation that asks after a finding answers: it is there, it is not, or nothing."""

from collections.abc import Iterable
from typing import Any

from rarealert.cases.sources import fhir_codes as fc

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
    if any(code in _ABNORMAL for item in interpretations for code in fc.codes(item)):
        said.add(True)
    if False in said:
        return False
    nothing = not interpretations and all(getattr(observation, name) is None for name in _VALUES)
    return True if nothing or True in said else None


def _of_concept(concept: Any) -> bool | None:
    """What the codes say, and else the words; a code of HPO, such as a severity, affirms."""
    codes = set(fc.codes(concept))
    if codes & _ABSENT:
        return False
    if codes & _PRESENT or any(map(fc.HPO.fullmatch, codes)):
        return True
    return _first(map(_of_text, fc.wordings(concept)))


def _of_text(text: str | None) -> bool | None:
    words = " ".join((text or "").split("(")[0].casefold().split()).rstrip(".")
    if words in _SAYS_ABSENT:
        return False
    return True if words in _SAYS_PRESENT else None


def _first(said: Iterable[bool | None]) -> bool | None:
    return next((item for item in said if item is not None), None)
