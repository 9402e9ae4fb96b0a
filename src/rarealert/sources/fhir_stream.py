"""FHIR bundles and NDJSON of any size as a stream of resources, gathered by patient.

The resources of one patient may be anywhere: bulk data has a file for each type, and a bundle may
contain a part of a record. So each resource is validated by ``fhir.resources`` as it is read, and
what a visit may need of it goes into a table on disk, which SQLite sorts by patient. Memory holds
one patient and one line or entry; the disk (``SQLITE_TMPDIR`` or ``TMPDIR``) needs about as much
room as the export. The table has no name, so a killed run leaves no patient data behind.

A label is made from all diagnoses of a patient, and a visit is the first one, so a record is
refused if a part of it may be missing: where a Patient, Encounter or Condition is refused, and
where a line or document that can't be read may belong to the patient.
"""

import codecs
import io
import json
import pickle
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from rarealert.errors import BadInputError
from rarealert.sources import published_files as files
from rarealert.sources.fhir_resources import (
    CATEGORIES,
    HPO,
    NARRATIVES,
    TYPES,
    Part,
    PatientRecord,
    extract,
    raw_codes,
)
from rarealert.sources.published_files import Tick, members, no_tick, opened, walk
from rarealert.sources.rows import json_lines
from rarealert.visits.refused import Place, Refused, safe_name

SUFFIXES = (".json", ".ndjson", ".jsonl")
_UNKNOWN = "resource"  # of a type that FHIR does not have
_DECISIVE = ("Patient", "Encounter", "Condition", _UNKNOWN)
_MAX_DEPTH = 200  # brackets; FHIR's own resources need a dozen
_CHUNK = 1024**2
_LONGEST_MATCH = 1024  # bytes of a reference in a damaged document
_ENTRY_DEPTH = 2  # brackets around an entry of a bundle
_TABLES = """
PRAGMA journal_mode=OFF;
PRAGMA cache_size=-8192;  -- KiB of the table that are held in memory
CREATE TABLE patient (id BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE known (kind TEXT, id TEXT, digest BLOB, PRIMARY KEY (kind, id)) WITHOUT ROWID;
CREATE TABLE resource (number INTEGER PRIMARY KEY, patient BLOB, content BLOB);
"""
_TYPE = re.compile(r'"resourceType"\s*:\s*"(\w+)"')
_REFERENCE = re.compile(r'"(?:reference|fullUrl)"\s*:\s*"([^"]+)"')
_ID = re.compile(r'"id"\s*:\s*"([^"]+)"')
_TYPED = re.compile(r"(?:^|/)([A-Z][A-Za-z]+)/[^/]+$")  # a Group or a Device is no patient


@dataclass
class _Loss:
    """A part of ``file`` that can't be read.

    ``ids`` are named in it, and with ``is_more_lost`` others may have been. ``beside`` are the
    patients before and after it in its file.
    """

    file: str
    ids: frozenset[str] = frozenset()
    is_more_lost: bool = True
    beside: set[bytes] = field(default_factory=set)


@dataclass(frozen=True)
class _Entry:
    """A resource in JSON, or the reason why it can't be read."""

    place: Place
    content: object
    aliases: Mapping[str, str] = field(default_factory=dict)
    loss: _Loss | None = None


@dataclass(frozen=True)
class _Resource:
    """A resource of a patient: its parts, or why it is refused."""

    place: Place
    kind: str
    patient: str | None
    parts: tuple[Part, ...] = ()
    id: str | None = None
    digest: bytes = b""
    refused: Refused | None = None
    loss: _Loss | None = None


def read_patients(path: Path, tick: Tick = no_tick) -> Iterator[PatientRecord | Refused]:
    """Read every patient of a file, a folder or a zip, in the order of their ids.

    What belongs to no patient is refused first; other refusals come before their patient.

    Args:
        path: a bundle, a resource, NDJSON, or a folder or zip of them.
        tick: called with a number of bytes as patients come out.

    Raises:
        BadInputError: ``path`` contains no JSON or NDJSON, or a damaged zip.
    """
    found = walk(path, (*SUFFIXES, ".zip"))
    if not found:
        raise BadInputError(f"{path} contains no {' or '.join(SUFFIXES)} file; check the path.")
    size = sum(file.lstat().st_size for file, _ in found)
    entries = (entry for file, name in found for entry in _file_entries(file, name, file != path))
    yield from _gathered(entries, size, tick)


def bundle_patients(bundle: Mapping[str, Any]) -> Iterator[PatientRecord | Refused]:
    """Read every patient of a bundle in memory, as ``read_patients`` does."""
    listed = bundle.get("entry")
    entries = listed if isinstance(listed, list) else []
    aliases = dict(filter(None, map(_alias, entries)))
    yield from _gathered(_bundle_entries("bundle", entries, aliases), 0, no_tick)


def _file_entries(file: Path, name: str, is_found: bool) -> Iterator[_Entry]:
    """The entries of one file; links are followed only where the user names them."""
    if is_found and file.is_symlink():
        yield _Entry(Place("fhir", name, 1), files.LINK, loss=_Loss(name))
    elif file.suffix.lower() == ".zip":
        for member, content, problem in members(file, SUFFIXES):
            if problem is None:
                yield from _stream_entries(member, io.BytesIO(content))
            else:
                loss = None if problem == files.EMPTY else _Loss(member)
                yield _Entry(Place("fhir", member, 1), problem, loss=loss)
    else:
        with opened(file) as stream:
            yield from _stream_entries(name, stream)


def _stream_entries(name: str, stream: IO[bytes]) -> Iterator[_Entry]:
    if not any(chunk.strip() for chunk in _chunks(stream)):
        yield _Entry(Place("fhir", name, 1), files.EMPTY)
    elif name.lower().endswith(".json"):
        yield from _document_entries(name, stream)
    else:
        stream.seek(0)
        for line in json_lines(stream, no_tick):
            loss = _loss(name, [line.text]) if isinstance(line.content, str) else None
            yield _Entry(Place("fhir", name, line.number), line.content, loss=loss)


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    stream.seek(0)
    return iter(lambda: stream.read(_CHUNK), b"")


def _document_entries(name: str, stream: IO[bytes]) -> Iterator[_Entry]:
    """The entries of a bundle, or the one resource; nothing of a damaged document is used."""
    import ijson

    place = Place("fhir", name, 1)
    try:
        kind = _resource_type(stream)
    except (ijson.JSONError, ValueError) as error:
        reason = str(error) if isinstance(error, _LimitError) else "not valid JSON in UTF-8"
        yield _Entry(place, reason, loss=_loss(name, _overlapping_chunks(stream)))
        return
    if kind == "Bundle":
        aliases = dict(filter(None, map(_alias, _items(stream, "entry.item"))))
        yield from _bundle_entries(name, _items(stream, "entry.item"), aliases)
        return
    size = stream.seek(0, io.SEEK_END)
    if size <= files.MAX_RECORD_BYTES and _is_type(kind):
        (content,) = _items(stream, "")
        yield _Entry(place, content)
    else:
        reason = "no resource of FHIR R4" if size <= files.MAX_RECORD_BYTES else files.TOO_LONG
        yield _Entry(place, reason, loss=_loss(name, _overlapping_chunks(stream)))


def _bundle_entries(
    name: str, entries: Iterable[object], aliases: Mapping[str, str]
) -> Iterator[_Entry]:
    number = 0
    for number, entry in enumerate(entries, 1):
        resource = entry.get("resource") if isinstance(entry, dict) else None
        content = resource if isinstance(resource, dict) else "no resource in the entry"
        yield _Entry(Place("fhir", name, number), content, aliases)
    if not number:
        yield _Entry(Place("fhir", name, 1), "a bundle without entries")


class _LimitError(ValueError):
    """A document exceeds a limit; the message is the reason of its refusal."""


class _Limited:
    """A stream that raises an error once an entry is longer than a record may be."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._length = 0

    def read(self, size: int) -> bytes:
        chunk = self._stream.read(size)
        self._length += len(chunk)
        if self._length > files.MAX_RECORD_BYTES:
            raise _LimitError(files.TOO_LONG)
        return chunk

    def start_entry(self) -> None:
        self._length = 0


def _resource_type(stream: IO[bytes]) -> str | None:
    """Check a whole document of any size, and return its ``resourceType``.

    Raises:
        ijson.JSONError, ValueError: it is no JSON in UTF-8, is nested too deeply (the library
            would need memory by the square of the depth), or an entry is too long.
    """
    import ijson

    limited = _Limited(_rewound(stream))
    depth, key, kind = 0, None, None
    for event, value in ijson.basic_parse(limited):
        depth += event.startswith("start_") - event.startswith("end_")
        if depth > _MAX_DEPTH:
            raise _LimitError(f"nested deeper than {_MAX_DEPTH} levels")
        if depth <= _ENTRY_DEPTH:
            limited.start_entry()
        if depth == 1 and event == "map_key":
            key = value
        elif depth == 1 and event == "string" and key == "resourceType":
            kind = value
    return kind


def _items(stream: IO[bytes], prefix: str) -> Iterator[Any]:
    import ijson

    found: Iterator[Any] = ijson.items(_rewound(stream), prefix)
    return found


def _rewound(stream: IO[bytes]) -> IO[bytes]:
    """The stream at its beginning, behind a byte order mark."""
    stream.seek(0)
    if stream.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
        stream.seek(0)
    return stream


def _alias(entry: object) -> tuple[str, str] | None:
    """``fullUrl`` and id of an entry whose URL does not end in its id."""
    resource = entry.get("resource") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(resource, dict):
        return None
    url, own = entry.get("fullUrl"), resource.get("id")
    if not isinstance(url, str) or not isinstance(own, str) or _plain_id(url) == own:
        return None
    return url, own


def _overlapping_chunks(stream: IO[bytes]) -> Iterator[bytes]:
    end = b""
    for chunk in _chunks(stream):
        yield end + chunk
        end = chunk[-_LONGEST_MATCH:]


def _loss(file: str, texts: Iterable[bytes]) -> _Loss | None:
    """Find the ids in a damaged text; ``None`` if it is one resource that decides nothing."""
    types, ids, own_ids = list[str](), set[str](), set[str]()
    for text in texts:
        decoded = text.decode("utf-8", "surrogateescape")
        types += _TYPE.findall(decoded)
        ids.update(filter(None, (_id(name, {}) for name in _REFERENCE.findall(decoded))))
        own_ids.update(_ID.findall(decoded))
    if len(types) == 1 and _is_type(types[0]) and types[0] not in (*_DECISIVE, "Bundle"):
        return None
    if "Patient" in types:
        ids |= own_ids
    return _Loss(file, frozenset(ids), is_more_lost="Bundle" in types)


def _resources(entries: Iterable[_Entry]) -> Iterator[_Resource]:
    for entry in entries:
        if not isinstance(entry.content, dict):
            refused = entry.place.refuse("entry", str(entry.content))
            yield _Resource(entry.place, _UNKNOWN, None, refused=refused, loss=entry.loss)
        elif _is_wanted(entry.content):
            yield _checked(entry.place, entry.content, entry.aliases)


def _is_wanted(raw: Mapping[str, Any]) -> bool:
    """Whether a resource may belong to a visit: laboratory and imaging do not."""
    kind = raw.get("resourceType")
    if kind != "Observation":
        return kind in TYPES or not _is_type(kind)
    if any(code in CATEGORIES for code in raw_codes(raw.get("category"))):
        return True
    return any(code in NARRATIVES or HPO.fullmatch(code) for code in raw_codes(raw.get("code")))


def _is_type(kind: object) -> bool:
    """Whether ``kind`` is a type of FHIR: a Condition with a damaged type must not be ignored."""
    from fhir.resources.R4B import fhirtypes

    return isinstance(kind, str) and hasattr(fhirtypes, f"{kind}Type")


def _checked(place: Place, raw: Mapping[str, Any], aliases: Mapping[str, str]) -> _Resource:
    from fhir.resources.R4B import get_fhir_model_class  # for the types read, the models of R4

    kind = raw["resourceType"] if raw.get("resourceType") in TYPES else _UNKNOWN
    patient = _patient(raw, kind, aliases)

    def refuse(field: str, reason: str) -> _Resource:
        return _Resource(place, kind, patient, refused=place.refuse(field, reason))

    def identify(reference: Any) -> str | None:
        return _id(reference.reference if reference else None, aliases)

    if kind == _UNKNOWN:
        return refuse("resourceType", "no type of FHIR R4")
    if patient is None:
        return refuse(f"{kind}.{'id' if kind == 'Patient' else 'subject'}", "no patient")
    try:
        # as floats, decimals of a streamed bundle are written like those of any other file
        plain = json.loads(json.dumps(raw, default=float))
        checked: Any = get_fhir_model_class(kind).model_validate(plain)
    except ValidationError as error:
        # the messages may quote a value, so only the field is reported
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        field = ".".join((kind, *(safe_name(part) for part in first["loc"])))
        return refuse(field, "not as FHIR R4 defines it")
    except (ValueError, TypeError, ArithmeticError, AttributeError, RecursionError):
        return refuse(kind, "not as FHIR R4 defines it")
    if kind == "Encounter" and not checked.id:
        return refuse("Encounter.id", "missing")
    content = checked.model_dump_json(exclude={"meta", "text"})
    digest = blake2b(content.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return _Resource(place, kind, patient, extract(checked, identify), checked.id, digest)


def _patient(raw: Mapping[str, Any], kind: str, aliases: Mapping[str, str]) -> str | None:
    if kind == "Patient":
        own = raw.get("id")
        return own if isinstance(own, str) and own else None
    subject = raw.get("patient" if kind == "FamilyMemberHistory" else "subject")
    reference = subject.get("reference") if isinstance(subject, dict) else None
    if not isinstance(reference, str):
        return None
    typed = _TYPED.search(reference.split("/_history/")[0])
    return None if typed and typed[1] != "Patient" else _id(reference, aliases)


def _id(reference: object, aliases: Mapping[str, str]) -> str | None:
    """``Patient/1``, ``https://…/Patient/1/_history/2`` or ``urn:uuid:1`` as the plain id.

    No other resource can refer to a contained resource (``#p``).
    """
    if not isinstance(reference, str) or reference.startswith("#"):
        return None
    return aliases.get(reference) or _plain_id(reference) or None


def _plain_id(reference: str) -> str:
    return reference.split("/_history/")[0].replace(":", "/").rsplit("/", 1)[-1]


def _gathered(
    entries: Iterable[_Entry], size: int, tick: Tick
) -> Iterator[PatientRecord | Refused]:
    """Gather the resources by patient in a table on disk that has no name."""
    with closing(sqlite3.connect("")) as database:
        table = _Table(database)
        for resource in _resources(entries):
            refused = table.add(resource)
            if refused is not None:
                yield refused
        yield from table.patients(size, tick)


class _Table:
    """Resources on disk, and which records may be incomplete."""

    def __init__(self, database: sqlite3.Connection) -> None:
        database.executescript(_TABLES)
        self._database = database
        self._count = 0
        self._last = ("", b"")  # file and patient of the resource before
        self._are_scattered = False  # whether resources of a patient are apart from each other
        self._losses: list[_Loss] = []
        self._losses_at_end: list[_Loss] = []

    def add(self, resource: _Resource) -> Refused | None:
        """Add a resource; returns its refusal where it belongs to no patient."""
        file = resource.place.file
        if resource.loss is not None:
            if self._last[0] == file:
                resource.loss.beside.add(self._last[1])
            self._losses.append(resource.loss)
            self._losses_at_end.append(resource.loss)
        if resource.patient is None:
            return resource.refused
        patient = _key(resource.patient)
        self._follow(file, patient)
        refused = resource.refused
        if refused is None and resource.id:
            digest = self._known_digest(resource)
            if digest == resource.digest:
                return None  # the same resource again
            if digest is not None:
                reason = "an id given twice with other content"
                refused = resource.place.refuse(f"{resource.kind}.id", reason)
        parts = () if refused else resource.parts
        content = pickle.dumps((resource.place, resource.kind, parts, refused))
        self._database.execute(
            "INSERT INTO resource (patient, content) VALUES (?, ?)", (patient, content)
        )
        self._count += 1
        return None

    def _follow(self, file: str, patient: bytes) -> None:
        """Note whose resource comes next, and in which file."""
        for loss in self._losses_at_end:
            if loss.file == file:
                loss.beside.add(patient)
        self._losses_at_end.clear()
        if self._last != (file, patient):
            added = self._database.execute("INSERT OR IGNORE INTO patient VALUES (?)", (patient,))
            self._are_scattered |= not added.rowcount
            self._last = (file, patient)

    def _known_digest(self, resource: _Resource) -> bytes | None:
        """The digest of an earlier resource of the same type and id."""
        key = (resource.kind, resource.id)
        found = self._database.execute(
            "SELECT digest FROM known WHERE kind = ? AND id = ?", key
        ).fetchone()
        if found is None:
            self._database.execute("INSERT INTO known VALUES (?, ?, ?)", (*key, resource.digest))
            return None
        digest: bytes = found[0]
        return digest

    def patients(self, size: int, tick: Tick) -> Iterator[PatientRecord | Refused]:
        """Every patient in the order of ids, after the refusals of its resources."""
        doubtful = self._doubtful()
        found = self._database.execute(
            "SELECT patient, content FROM resource ORDER BY patient, number"
        )
        done = ticked = 0
        for key, group in groupby(found, key=itemgetter(0)):
            contents = [pickle.loads(content) for _, content in group]  # noqa: S301 - our own table
            done += len(contents)
            tick(size * done // self._count - ticked)
            ticked = size * done // self._count
            yield from _record(key, contents, is_doubtful=doubtful is None or key in doubtful)

    def _doubtful(self) -> set[bytes] | None:
        """Patients to whom a lost part may belong; ``None`` means that it may be any patient.

        These are the patients that the part names. If it names none, or more may be lost with it,
        they are also the patients before and after it in its file; and where the resources of a
        patient are apart from each other, every patient.
        """
        doubtful = set[bytes]()
        for loss in self._losses:
            named = {key for key in map(_key, loss.ids) if self._is_patient(key)}
            doubtful |= named
            if named and not loss.is_more_lost:
                continue
            if self._are_scattered:
                return None
            doubtful |= loss.beside
        return doubtful

    def _is_patient(self, key: bytes) -> bool:
        found = self._database.execute("SELECT 1 FROM patient WHERE id = ?", (key,))
        return found.fetchone() is not None


def _key(patient: str) -> bytes:
    return patient.encode("utf-8", "surrogatepass")


def _record(
    key: bytes,
    contents: Iterable[tuple[Place, str, tuple[Part, ...], Refused | None]],
    *,
    is_doubtful: bool,
) -> Iterator[PatientRecord | Refused]:
    first: Place | None = None
    parts: list[Part] = []
    doubt = ""
    for place, kind, its_parts, refused in contents:
        if refused is None:
            first = first or place
            parts += its_parts
            continue
        yield refused
        if kind in _DECISIVE:
            doubt = f"a {kind} of this patient is refused"
    if is_doubtful:
        doubt = "a part of this record may be in what is lost of its file"
    if first is not None and doubt:
        yield first.refuse("patient", doubt)
    elif first is not None:
        yield PatientRecord(key.decode("utf-8", "surrogatepass"), first, tuple(parts))
