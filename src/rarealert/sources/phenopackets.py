"""GA4GH phenopackets v2: one individual each, with coded findings and a diagnosis.

Jacobsen et al. 2022, Nature Biotechnology; https://phenopacket-schema.readthedocs.io. A packet
describes an individual at the last encounter, so only findings that a first visit can show are
used, under HPO's names. Every published packet has a rare disease: use them to measure recall,
never as the positives against another source's negatives.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rarealert.errors import BadInputError
from rarealert.knowledge.hpo import load_ontology
from rarealert.sources.labelling import CaseLabeller, Diagnosis, RecordedCase
from rarealert.sources.observable import describe_findings, shows_at_a_visit
from rarealert.sources.published_files import Document, Tick, documents, json_object, no_tick
from rarealert.visits.case import LabelledCase
from rarealert.visits.refused import Place, Refused, build_case, safe_name

if TYPE_CHECKING:
    from phenopackets.schema.v2 import Phenopacket, PhenotypicFeature, TimeElement

SUFFIXES = (".json",)
_FAILED_FIELD = re.compile(r"Failed to parse (\w+) field")
_UNKNOWN_FIELD = re.compile(r'no field named "(\w+)"')
_SEX = {"FEMALE": "female", "MALE": "male"}
_SECONDS_A_YEAR = 365.25 * 24 * 3600
_NUMBER = r"(\d{1,7}(?:[.,]\d{1,6})?)"
_DURATION = re.compile(
    rf"P(?!$)(?:{_NUMBER}Y)?(?:{_NUMBER}M)?(?:{_NUMBER}W)?(?:{_NUMBER}D)?"
    rf"(?:T(?!$)(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}S)?)?",
    re.ASCII,
)
_YEARS_EACH = (
    1.0,
    1 / 12,
    7 / 365.25,
    1 / 365.25,
    1 / (24 * 365.25),
    1 / (24 * 60 * 365.25),
    1 / (24 * 3600 * 365.25),
)


def read(folder: Path, tick: Tick = no_tick) -> Iterator[LabelledCase | Refused]:
    """Read every packet of ``folder`` as a labelled case or refused.

    Raises:
        BadInputError: ``folder`` contains no JSON file, or a damaged zip.
    """
    yield from CaseLabeller(folder).label_all(read_recorded(folder, tick))


def read_recorded(path: Path, tick: Tick = no_tick) -> Iterator[RecordedCase | Refused]:
    """Read every packet of a JSON file, a folder or a zip as a case with its diagnosis.

    Raises:
        BadInputError: ``path`` contains no JSON file, or a damaged zip, or the package
            ``phenopackets`` is not installed.
    """
    _library()
    for document in documents(path, SUFFIXES, tick):
        yield _recorded(document)


def _library() -> type["Phenopacket"]:
    try:
        from phenopackets.schema.v2 import Phenopacket
    except ImportError as error:
        raise BadInputError(
            "The package phenopackets is not installed; run "
            "pip install --no-deps phenopackets==2.0.2.post5 (see docs/importing.md)."
        ) from error
    message: type[Phenopacket] = Phenopacket
    return message


def _recorded(document: Document) -> RecordedCase | Refused:
    place = Place("phenopackets", document.name, document.number)
    packet = _packet(place, document)
    if isinstance(packet, Refused):
        return packet
    encounter = packet.subject.time_at_last_encounter
    if encounter.WhichOneof("element") == "gestational_age":
        return place.refuse("subject.timeAtLastEncounter", "an unborn child", "out_of_scope")
    age = _age(packet, encounter)
    present, excluded = _findings(packet, age)
    if not present:
        return place.refuse(
            "phenotypicFeatures", "no finding that a first visit can show", "out_of_scope"
        )
    case = build_case(place, _fields(packet, age, present, excluded))
    if isinstance(case, Refused):
        return case
    diagnoses = _diagnoses(packet)
    if len({diagnosis.codes for diagnosis in diagnoses}) > 1:
        return place.refuse("interpretations", "several diagnoses", "out_of_scope")
    return RecordedCase(place, case, tuple(diagnoses[:1]))


def _packet(place: Place, document: Document) -> "Phenopacket | Refused":
    """Parse a packet; a field that schema v2 does not have is a refusal.

    Skipping unknown fields would turn findings that v1 marks ``negated`` into present ones.
    """
    from google.protobuf.json_format import ParseDict, ParseError
    from phenopackets.schema.v2 import Sex

    if document.problem:
        return place.refuse("file", document.problem)
    content = json_object(document.content)
    if isinstance(content, str):
        return place.refuse("file", content)
    try:
        packet: Phenopacket = ParseDict(content, _library()(), max_recursion_depth=50)
    except ParseError as error:
        message = str(error)  # it quotes the value that failed, so only the field is reported
        field = _FAILED_FIELD.search(message) or _UNKNOWN_FIELD.search(message)
        name = safe_name(field.group(1)) if field else "file"
        return place.refuse(name, "not as GA4GH phenopackets v2 defines it")
    except (ValueError, TypeError, AttributeError, RecursionError):
        return place.refuse("file", "not a GA4GH phenopacket v2")
    if not packet.id:
        return place.refuse("id", "missing")
    if packet.subject.sex not in Sex.values():
        # the library keeps numbers outside the enumeration
        return place.refuse("sex", "not as GA4GH phenopackets v2 defines it")
    return packet


def _fields(
    packet: "Phenopacket", age: float | None, present: list[str], excluded: list[str]
) -> dict[str, object]:
    from phenopackets.schema.v2 import Sex

    return {
        "case_id": packet.id,
        "source": "phenopackets",
        "age_years": age,
        "sex": _SEX.get(Sex.Name(packet.subject.sex)),
        "history_of_present_illness": describe_findings(present, excluded),
        "findings_present": tuple(present),
        "findings_excluded": tuple(excluded),
    }


def _age(packet: "Phenopacket", element: "TimeElement") -> float | None:
    """Years at the encounter; the middle of a range, ``None`` for a class such as "adult"."""
    kind = element.WhichOneof("element")
    if kind == "age":
        return duration_in_years(element.age.iso8601duration)
    if kind == "age_range":
        start = duration_in_years(element.age_range.start.iso8601duration)
        end = duration_in_years(element.age_range.end.iso8601duration)
        return None if start is None or end is None else (start + end) / 2
    if kind == "timestamp" and packet.subject.HasField("date_of_birth"):
        seconds: int = element.timestamp.seconds - packet.subject.date_of_birth.seconds
        return seconds / _SECONDS_A_YEAR
    return None


def duration_in_years(duration: str) -> float | None:
    """Years of an ISO 8601 duration such as ``P3Y6M``; ``None`` for any other text."""
    match = _DURATION.fullmatch(duration.strip())
    if match is None:
        return None
    parts = [float((part or "0").replace(",", ".")) for part in match.groups()]
    return sum(part * each for part, each in zip(parts, _YEARS_EACH, strict=True))


def _findings(packet: "Phenopacket", age: float | None) -> tuple[list[str], list[str]]:
    """Living HPO ids that a first visit can show: present, and absent.

    A term recorded as both is present; a finding that began after the encounter is left out.
    """
    present: dict[str, None] = {}
    excluded: dict[str, None] = {}
    for feature in packet.phenotypic_features:
        term = load_ontology().resolve(feature.type.id)
        if term is None or not shows_at_a_visit(term) or _began_later(feature, packet, age):
            continue
        (excluded if feature.excluded else present)[term] = None
    return list(present), [term for term in excluded if term not in present]


def _began_later(feature: "PhenotypicFeature", packet: "Phenopacket", age: float | None) -> bool:
    onset = _age(packet, feature.onset)
    return age is not None and onset is not None and onset > age


def _diagnoses(packet: "Phenopacket") -> list[Diagnosis]:
    """Distinct diagnoses of solved interpretations, else of the diseases that are not excluded."""
    from phenopackets.schema.v2 import Interpretation

    solved = [
        item.diagnosis.disease
        for item in packet.interpretations
        if item.progress_status == Interpretation.ProgressStatus.SOLVED
    ]
    diseases = [item.term for item in packet.diseases if not item.excluded]
    found = [term for term in solved if term.id] or [term for term in diseases if term.id]
    return list(dict.fromkeys(Diagnosis(term.label or None, (term.id,)) for term in found))
