"""Ages as ISO 8601 durations, as phenopackets write them.

GA4GH phenopackets v2: one individual each, with coded findings and a diagnosis.

Jacobsen et al. 2022, Nature Biotechnology; https://phenopacket-schema.readthedocs.io. A packet
describes an individual at the last encounter, so its findings are cut to what a first visit can
show, told by the names that HPO gives them. Every published packet has a rare disease: use them
for recall, never as the positives against another source's negatives.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rarealert.errors import BadInputError
from rarealert.knowledge.hpo import load_ontology
from rarealert.sources.files import Document, Tick, documents, no_tick, parse_json
from rarealert.sources.observable import shows_at_a_visit, told_findings
from rarealert.sources.records import Diagnosis, Visit, VisitLabeller
from rarealert.visits.refused import Place, Read, Refused, build_visit, harmless

if TYPE_CHECKING:
    from phenopackets.schema.v2 import Phenopacket, PhenotypicFeature, TimeElement

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


def age_in_years(duration: str) -> float | None:
    """Years of ``P3Y6M`` and its like (a year is 365.25 days), ``None`` for anything else."""
    match = _DURATION.fullmatch(duration.strip())
    if match is None:
        return None
    parts = [float((part or "0").replace(",", ".")) for part in match.groups()]
    return sum(part * each for part, each in zip(parts, _YEARS_EACH, strict=True))


SUFFIXES = (".json",)
_FAILED_FIELD = re.compile(r"Failed to parse (\w+) field")
_UNKNOWN_FIELD = re.compile(r'no field named "(\w+)"')
_SEX = {"FEMALE": "female", "MALE": "male"}
_SECONDS_A_YEAR = 365.25 * 24 * 3600


def read(folder: Path, tick: Tick = no_tick) -> Iterator[Read]:
    """Every packet of ``folder`` as a labelled case or refused.

    Raises:
        BadInputError: ``folder`` holds no JSON file, or a zip without one whole member.
    """
    yield from VisitLabeller(folder).label_all(read_visits(folder, tick))


def read_visits(path: Path, tick: Tick = no_tick) -> Iterator[Visit | Refused]:
    """Every packet of a JSON file, a folder or a zip as a visit with its diagnosis.

    Raises:
        BadInputError: ``path`` holds no JSON file or whole member, or ``phenopackets`` is not
            installed.
    """
    _library()
    for document in documents(path, SUFFIXES, tick):
        yield _visit(document)


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


def _visit(document: Document) -> Visit | Refused:
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
    case = build_visit(place, _fields(packet, age, present, excluded))
    if isinstance(case, Refused):
        return case
    diagnoses = _diagnoses(packet)
    if len({diagnosis.codes for diagnosis in diagnoses}) > 1:
        return place.refuse("interpretations", "several diagnoses", "out_of_scope")
    return Visit(place, case, tuple(diagnoses[:1]))


def _packet(place: Place, document: Document) -> "Phenopacket | Refused":
    """The parsed packet; a field that the schema has not (such as v1's) is a refusal.

    Reading on would turn v1's ``negated`` findings into present ones.
    """
    from google.protobuf.json_format import ParseDict, ParseError
    from phenopackets.schema.v2 import Sex

    if document.problem:
        return place.refuse("file", document.problem)
    try:
        content = parse_json(document.content.removeprefix(b"\xef\xbb\xbf"))
    except UnicodeDecodeError:
        return place.refuse("file", "not UTF-8")
    except ValueError:
        return place.refuse("file", "not valid JSON")
    if not isinstance(content, dict):
        return place.refuse("file", "not a JSON object")
    try:
        packet: Phenopacket = ParseDict(content, _library()(), max_recursion_depth=50)
    except ParseError as error:
        said = str(error)  # it quotes the value that failed, so only the field's name is told
        field = _FAILED_FIELD.search(said) or _UNKNOWN_FIELD.search(said)
        name = harmless(field.group(1)) if field else "file"
        return place.refuse(name, "not as GA4GH phenopackets v2 defines it")
    except (ValueError, TypeError, AttributeError, RecursionError):
        return place.refuse("file", "not a GA4GH phenopacket v2")
    if not packet.id:
        return place.refuse("id", "missing")
    if packet.subject.sex not in Sex.values():
        # the library keeps a number that no sex has
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
        "history_of_present_illness": told_findings(present, excluded),
        "findings_present": tuple(present),
        "findings_excluded": tuple(excluded),
    }


def _age(packet: "Phenopacket", element: "TimeElement") -> float | None:
    """Years at the encounter; a range is its middle, an ontology class such as "adult" is none."""
    kind = element.WhichOneof("element")
    if kind == "age":
        return age_in_years(element.age.iso8601duration)
    if kind == "age_range":
        start = age_in_years(element.age_range.start.iso8601duration)
        end = age_in_years(element.age_range.end.iso8601duration)
        return None if start is None or end is None else (start + end) / 2
    if kind == "timestamp" and packet.subject.HasField("date_of_birth"):
        seconds: int = element.timestamp.seconds - packet.subject.date_of_birth.seconds
        return seconds / _SECONDS_A_YEAR
    return None


def _findings(packet: "Phenopacket", age: float | None) -> tuple[list[str], list[str]]:
    """Living HPO ids that a first visit can show: present, and looked for and absent.

    A term said to be both is present; a finding that began after the encounter is left out.
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
    """Distinct diagnoses: those of solved interpretations, else the diseases not excluded."""
    from phenopackets.schema.v2 import Interpretation

    solved = [
        item.diagnosis.disease
        for item in packet.interpretations
        if item.progress_status == Interpretation.ProgressStatus.SOLVED
    ]
    diseases = [item.term for item in packet.diseases if not item.excluded]
    found = [term for term in solved if term.id] or [term for term in diseases if term.id]
    return list(dict.fromkeys(Diagnosis(term.label or None, (term.id,)) for term in found))
