"""Whose records may stand in a part of a file that is lost.

A visit is the first of its patient, and its label comes of all diagnoses, so a record of which a
part is lost can be wrong where it looks whole.

FHIR resources out of bundles and NDJSON, one at a time, each checked by ``fhir.resources``.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rarealert.errors import BadInputError
from rarealert.sources.fhir_resources import CATEGORIES, HPO, NARRATIVES, TYPES, raw_codes
from rarealert.sources.files import (
    EMPTY,
    TOO_LONG,
    Document,
    Tick,
    documents,
    json_object,
    raw_lines,
    walk,
)
from rarealert.sources.json_survivors import Element, decoded, survivors
from rarealert.visits.refused import Place, Refused, harmless

DECISIVE = ("Patient", "Encounter", "Condition")
"""The types of which one that is missing changes what the first visit or the label is."""

_TYPE = re.compile(r'"resourceType"\s*:\s*"(\w+)"')
_NAMES = re.compile(r'"(?:reference|fullUrl)"\s*:\s*"([^"]+)"')
_IDS = re.compile(r'"id"\s*:\s*"([^"]+)"')


@dataclass(frozen=True)
class Loss:
    """Ids that a lost part names; ``tail`` where it may name more, being cut off."""

    names: frozenset[str] = frozenset()
    tail: bool = True


def loss_in(text: str, tail: bool, identify: Callable[[object], str | None]) -> Loss | None:
    """What is lost with ``text``; ``None`` if it is one resource that costs nobody's record."""
    types = _TYPE.findall(text)
    if len(types) == 1 and types[0] not in DECISIVE and not tail:
        return None
    named = {identify(name) for name in _NAMES.findall(text)}
    named.update(_IDS.findall(text) if "Patient" in types else ())
    return Loss(frozenset(name for name in named if name), tail)


@dataclass
class Doubts:
    """Follows whose resources stand where, and says whom a loss may concern."""

    _runs: list[tuple[str, str]] = field(default_factory=list)
    _losses: list[tuple[int, str, Loss]] = field(default_factory=list)

    def saw(self, patient: str, file: str) -> None:
        """A resource of ``patient`` in ``file``, in the order in which they are read."""
        if not self._runs or self._runs[-1] != (file, patient):
            self._runs.append((file, patient))

    def lost(self, loss: Loss, file: str) -> None:
        """A part of ``file`` that is lost, behind what was seen last."""
        self._losses.append((len(self._runs), file, loss))

    def patients(self) -> frozenset[str]:
        """Whoever a loss names. Else, and at a cut, its neighbours in the file.

        Where the resources of one patient do not stand together, anybody's may be lost.
        """
        runs = Counter(patient for _, patient in self._runs)
        scattered = any(count > 1 for count in runs.values())
        doubted: set[str] = set()
        for at, file, loss in self._losses:
            named = loss.names & runs.keys()
            doubted |= named
            if named and not loss.tail:
                continue
            if scattered:
                return frozenset(runs)
            beside = self._runs[max(at - 1, 0) : at + 1]
            doubted.update(patient for where, patient in beside if where == file)
        return frozenset(doubted)


SUFFIXES = (".json", ".ndjson", ".jsonl")
_LINES = (".ndjson", ".jsonl")
_BUNDLE = re.compile(r'"resourceType"\s*:\s*"Bundle"')
_ENTRIES = re.compile(r'"entry"\s*:\s*\[')
_ENTRY = re.compile(r'(?=\{\s*"(?:fullUrl|resource|id|link|search|request|response)"\s*:)')
_TYPED = re.compile(r"(?:^|/)([A-Z][A-Za-z]+)/[^/]+$")  # a Group or a Device is no patient
Raw = dict[str, Any]


@dataclass(frozen=True)
class Resource:
    """A checked resource, or why it is refused, and the id of its patient where it says one.

    ``loss`` where it stands for a part of the file that can't be read.
    """

    place: Place
    kind: str
    patient: str | None
    checked: Any
    refused: Refused | None
    name: Callable[[Any], str | None]
    loss: Loss | None = None


@dataclass(frozen=True)
class _Entry:
    place: Place
    raw: Raw | str
    aliases: Mapping[str, str]
    loss: Loss | None = None


def resources(path: Path, tick: Tick) -> Iterator[Resource]:
    """Every resource of the kinds that are read, from a file, a folder or a zip.

    A bundle is read entry by entry, because one bad entry is no reason to lose the others; of a
    bundle that is no JSON, the entries before the damage and behind it.

    Raises:
        BadInputError: ``path`` holds no such file, or a zip without one whole member.
    """
    yield from _resources(_entries(path, tick))


def bundled(bundle: Raw) -> Iterator[Resource]:
    """Every resource of the kinds that are read, from a bundle in memory."""
    yield from _resources(_of_bundle("bundle", bundle))


def _resources(entries: Iterable[_Entry]) -> Iterator[Resource]:
    for entry in entries:
        if isinstance(entry.raw, str):
            refusal = entry.place.refuse("entry", entry.raw)
            yield replace(_refused(entry.place, "resource", None, refusal), loss=entry.loss)
        elif _is_wanted(entry.raw):
            yield _checked(entry, entry.raw)


def _entries(path: Path, tick: Tick) -> Iterator[_Entry]:
    found = walk(path, (*SUFFIXES, ".zip"))
    if not found:
        raise BadInputError(f"{path} holds no {' or '.join(SUFFIXES)} file; check the path.")
    for file, name in found:
        if name.lower().endswith(_LINES) and file.stat().st_size and not file.is_symlink():
            yield from _of_lines(name, raw_lines(file, tick))
        else:
            for document in documents(file, SUFFIXES, tick):
                label = name if document.name == file.name else document.name
                yield from _unpacked(label, document)


def _unpacked(name: str, document: Document) -> Iterator[_Entry]:
    """The entries of a bundle, the lines of NDJSON in a zip, or the one resource."""
    if document.problem:
        loss = None if document.problem == EMPTY else Loss()
        yield _Entry(Place("fhir", name, document.number), document.problem, {}, loss)
    elif name.lower().endswith(_LINES):
        lines = enumerate(document.content.split(b"\n"), 1)
        yield from _of_lines(name, ((number, line, True) for number, line in lines if line.strip()))
    else:
        content = json_object(document.content)
        if isinstance(content, str):
            yield from _of_damaged(name, document.content, content)
        elif content.get("resourceType") != "Bundle":
            yield _Entry(Place("fhir", name, 1), content, {})
        else:
            yield from _of_bundle(name, content)


def _of_lines(name: str, lines: Iterable[tuple[int, bytes, bool]]) -> Iterator[_Entry]:
    """A resource a line, or whom the line that is none may concern."""
    number = 0
    for number, line, whole in lines:
        place = Place("fhir", name, number)
        content = json_object(line) if whole else TOO_LONG
        if isinstance(content, str):
            yield _Entry(place, content, {}, _loss(decoded(line), tail=False, aliases={}))
        else:
            yield _Entry(place, content, {})
    if not number:
        yield _Entry(Place("fhir", name, 1), EMPTY, {})


def _of_bundle(name: str, bundle: Raw) -> Iterator[_Entry]:
    listed = bundle.get("entry")
    entries = listed if isinstance(listed, list) else []
    if not entries:
        yield _Entry(Place("fhir", name, 1), "a bundle without entries", {})
    aliases = _aliases(entries)
    for number, entry in enumerate(entries, 1):
        yield _Entry(Place("fhir", name, number), _resource(entry), aliases)


def _aliases(entries: Iterable[object]) -> Mapping[str, str]:
    return {
        entry["fullUrl"]: entry["resource"]["id"]
        for entry in entries
        if isinstance(entry, dict)
        and isinstance(entry.get("fullUrl"), str)
        and isinstance(entry.get("resource"), dict)
        and isinstance(entry["resource"].get("id"), str)
    }


def _of_damaged(name: str, content: bytes, problem: str) -> Iterator[_Entry]:
    """The whole entries of a bundle that is no JSON, and one problem for each part that is not."""
    text = decoded(content)
    start = _ENTRIES.search(text)
    found = list(survivors(text, start.end(), _ENTRY, "]", _has_resource)) if start else []
    if not any(element.value for element in found):
        # a bundle may be cut, a single resource that is cut still is but one
        tail = _BUNDLE.search(text) is not None
        yield _Entry(Place("fhir", name, 1), problem, {}, _loss(text, tail, {}))
        return
    aliases = _aliases(element.value for element in found)
    for number, element in enumerate(found, 1):
        place = Place("fhir", name, number)
        if element.value is None:
            loss = _loss(element.lost or "", element.tail, aliases)
            yield _Entry(place, _lost(element), aliases, loss)
        else:
            yield _Entry(place, _resource(element.value), aliases)
    if not any(element.lost for element in found):
        yield _Entry(Place("fhir", name, len(found) + 1), f"{problem} beside its entries", aliases)


def _resource(entry: object) -> Raw | str:
    resource = entry.get("resource") if isinstance(entry, dict) else None
    return resource if isinstance(resource, dict) else "no resource in the entry"


def _has_resource(entry: Raw) -> bool:
    return isinstance(entry.get("resource"), dict)


def _lost(element: Element) -> str:
    if element.tail:
        return "cut or damaged from here on; the rest of the bundle is lost"
    return "damaged; what stands here, before the next whole entry, is lost"


def _loss(text: str, tail: bool, aliases: Mapping[str, str]) -> Loss | None:
    return loss_in(text, tail, lambda name: _id(name, aliases))


def _is_wanted(raw: Raw) -> bool:
    """Whether the resource may say something of a visit: laboratory and imaging are skipped."""
    kind = raw.get("resourceType")
    if kind != "Observation":
        return kind in TYPES or not isinstance(kind, str)
    if any(code in CATEGORIES for code in raw_codes(raw.get("category"))):
        return True
    return any(code in NARRATIVES or HPO.fullmatch(code) for code in raw_codes(raw.get("code")))


@cache
def _models() -> Mapping[str, Any]:
    """The models of R4B, which for these five types are those of R4."""
    from fhir.resources.R4B.condition import Condition
    from fhir.resources.R4B.encounter import Encounter
    from fhir.resources.R4B.familymemberhistory import FamilyMemberHistory
    from fhir.resources.R4B.observation import Observation
    from fhir.resources.R4B.patient import Patient

    found = (Patient, Encounter, Condition, Observation, FamilyMemberHistory)
    return {model.__name__: model for model in found}


def _checked(entry: _Entry, raw: Raw) -> Resource:
    kind = raw.get("resourceType")
    place = entry.place
    if not isinstance(kind, str):
        return _refused(place, "resource", None, place.refuse("resourceType", "missing"))
    patient = _patient(raw, kind, entry.aliases)
    if patient is None:
        field = "id" if kind == "Patient" else "subject"
        return _refused(place, kind, None, place.refuse(f"{kind}.{field}", "no patient"))
    try:
        checked = _models()[kind].model_validate(raw)
    except ValidationError as error:
        # the messages can quote what they found, so only the field's name is told
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join((kind, *(harmless(part) for part in first["loc"])))
        refusal = place.refuse(where, "not as FHIR R4 defines it")
        return _refused(place, kind, patient, refusal)
    except (ValueError, TypeError, ArithmeticError, AttributeError, RecursionError):
        return _refused(place, kind, patient, place.refuse(kind, "not as FHIR R4 defines it"))
    if kind == "Encounter" and not checked.id:
        return _refused(place, kind, patient, place.refuse("Encounter.id", "missing"))

    def name(reference: Any) -> str | None:
        return _id(reference.reference if reference else None, entry.aliases)

    return Resource(place, kind, patient, checked, None, name)


def _refused(place: Place, kind: str, patient: str | None, refused: Refused) -> Resource:
    return Resource(place, kind, patient, None, refused, lambda _: None)


def _patient(raw: Raw, kind: str, aliases: Mapping[str, str]) -> str | None:
    if kind == "Patient":
        said = raw.get("id")
        return said if isinstance(said, str) and said else None
    subject = raw.get("patient" if kind == "FamilyMemberHistory" else "subject")
    reference = subject.get("reference") if isinstance(subject, dict) else None
    if not isinstance(reference, str):
        return None
    other = _TYPED.search(reference.split("/_history/")[0])
    return None if other and other[1] != "Patient" else _id(reference, aliases)


def _id(reference: object, aliases: Mapping[str, str]) -> str | None:
    """``Patient/1``, ``https://…/Patient/1/_history/2`` or ``urn:uuid:1`` as the plain id.

    A contained resource (``#p``) is nobody that other resources could refer to.
    """
    if not isinstance(reference, str) or reference.startswith("#"):
        return None
    known = aliases.get(reference)
    return known or reference.split("/_history/")[0].replace(":", "/").rsplit("/", 1)[-1] or None
