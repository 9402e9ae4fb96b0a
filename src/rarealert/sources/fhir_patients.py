"""The patients of a FHIR export of any size, one at a time.

FHIR lets the resources of one patient stand anywhere: bulk data has a file a type, and a bundle
may hold a part of a record. So resources are read line by line (NDJSON) or entry by entry (a large
bundle), and those that a visit may need go into a table on disk, from which SQLite sorts them by
patient outside memory. What is held is one patient, one line or one document of at most
``_HELD_BYTES``; the disk (``SQLITE_TMPDIR`` or ``TMPDIR``) needs about as much room as the export.
The table has no name, so a killed run leaves no patient data behind.
"""

import codecs
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

from rarealert.screening.visit_files import tellable
from rarealert.sources import fhir
from rarealert.sources.fhir_stream import SUFFIXES, Loss, Raw, Resource, bundled, resources
from rarealert.sources.files import Tick, no_tick, walk
from rarealert.sources.records import Visit
from rarealert.visits.refused import Place, Refused

_HELD_BYTES = 4 * 1024**2  # a larger bundle is read by entry; parsed, JSON takes ten times as much
_IN_ENTRY = 2  # open brackets around an item of the bundle's list
_DEEPEST = 200  # brackets; FHIR's own resources need a dozen
_CACHE_KIB = 8 * 1024  # of the table on disk, in memory
_REFERRING = ("subject", "patient", "encounter")  # fields whose reference a visit is made by

_TABLES = """
CREATE TABLE resource (patient BLOB, number INTEGER PRIMARY KEY, file TEXT, line INTEGER, kind TEXT,
                       encounter TEXT, content TEXT, field TEXT, reason TEXT, refusal TEXT);
CREATE TABLE owner (kind TEXT, id TEXT, patient BLOB, PRIMARY KEY (kind, id)) WITHOUT ROWID;
"""
_KNOWN = "SELECT 1 FROM resource WHERE patient = ? LIMIT 1"
_SCATTERED = """
SELECT 1 FROM (SELECT patient, file, lag(patient) OVER w AS before, lag(file) OVER w AS other
               FROM resource WINDOW w AS (ORDER BY number))
WHERE before IS NOT patient OR other IS NOT file GROUP BY patient HAVING count(*) > 1 LIMIT 1
"""
_BESIDE = (
    "SELECT patient FROM (SELECT * FROM resource WHERE number < ?1 ORDER BY number DESC LIMIT 1)"
    " WHERE file = ?2",
    "SELECT patient FROM (SELECT * FROM resource WHERE number > ?1 ORDER BY number LIMIT 1)"
    " WHERE file = ?2",
)

Losses = list[tuple[int, str, Loss]]
"""What is lost: behind how many resources, in which file, and whom it names."""


def read_patients(path: Path, tick: Tick = no_tick) -> Iterator[Visit | Refused]:
    """The first visit of every patient, as ``fhir.read_visits`` gives them, in flat memory.

    What belongs to no patient is refused first; then come the patients, in the order of their ids,
    each after what is refused of it. ``tick`` is told bytes as patients come out.

    Raises:
        BadInputError: ``path`` holds no JSON or NDJSON, or a damaged zip.
    """
    files = [(file, tellable(name)) for file, name in walk(path, (*SUFFIXES, ".zip"))]
    size = sum(file.lstat().st_size for file, _ in files)
    with closing(sqlite3.connect("")) as held:  # no name: on disk, and gone with the process
        held.executescript(f"PRAGMA journal_mode=OFF; PRAGMA cache_size=-{_CACHE_KIB}; {_TABLES}")
        count, losses = 0, []
        for count, resource in enumerate(_resources(path, files), 1):
            if resource.loss is not None:
                losses.append((count, resource.place.file, resource.loss))
            if resource.patient is not None:
                _hold(held, count, resource)
            elif resource.refused is not None:
                yield resource.refused
        doubted = _doubted(held, losses)
        yield from _patients(held, doubted, size / max(count, 1), tick)


def _resources(path: Path, files: list[tuple[Path, str]]) -> Iterator[Resource]:
    if not any(_is_large(file) for file, _ in files):
        for each in resources(path, no_tick):
            yield _moved(each, Place("fhir", tellable(each.place.file), each.place.row))
        return
    for file, name in files:
        if file.is_symlink():
            yield _broken(Place("fhir", name, 1), "a link; put the file itself there")
        elif _is_large(file):
            yield from _entries(file, name)
        else:
            for each in resources(file, no_tick):
                own = each.place.file == file.name  # a member of a zip keeps its name
                label = name if own else tellable(each.place.file)
                yield _moved(each, Place("fhir", label, each.place.row))


def _is_large(file: Path) -> bool:
    plain = file.suffix.lower() == ".json" and not file.is_symlink()
    return plain and file.stat().st_size > _HELD_BYTES


def _moved(resource: Resource, place: Place) -> Resource:
    if resource.place == place:
        return resource
    refused = resource.refused
    if refused is not None:
        refused = replace(refused, file=place.file, row=place.row)
    return replace(resource, place=place, refused=refused)


def _entries(file: Path, name: str) -> Iterator[Resource]:
    """The resources of one large bundle; an entry at a time is in memory."""
    import ijson

    number = 0
    with file.open("rb") as stream:
        try:
            aliases = _aliases(stream)
            for entry in _items(stream):
                number += 1
                for each in bundled({"entry": [_resolved(entry, aliases)]}):
                    yield _moved(each, Place("fhir", name, number))
        except (ijson.JSONError, ValueError):
            place = Place("fhir", name, number + 1)
            reason = "cut or damaged from here on; the rest of the bundle is lost"
            yield _broken(place, reason, Loss())
            return
    if not number:
        yield _broken(Place("fhir", name, 1), "a bundle without entries")


def _items(stream: IO[bytes]) -> Iterator[Any]:
    """The items of the bundle's ``entry``, parsed one by one.

    Raises:
        ijson.JSONError, ValueError: the text is no JSON in UTF-8, or nested too deeply, from here.
    """
    import ijson
    from ijson.common import ObjectBuilder

    stream.seek(0)
    if stream.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
        stream.seek(0)
    depth, field, builder = 0, None, ObjectBuilder()
    for event, value in ijson.basic_parse(stream, use_float=True):
        depth -= event in ("end_map", "end_array")
        if depth == 1 and event == "map_key":
            field = value
        inside = field == "entry" and depth >= _IN_ENTRY
        depth += event in ("start_map", "start_array")
        if depth > _DEEPEST:
            raise ValueError("nested too deeply")
        if inside:
            builder.event(event, value)
            if depth == _IN_ENTRY:
                yield builder.value
                builder = ObjectBuilder()


def _broken(place: Place, reason: str, loss: Loss | None = None) -> Resource:
    refused = place.refuse("entry", reason)
    return Resource(place, "resource", None, None, refused, lambda _: None, loss)


def _aliases(stream: IO[bytes]) -> dict[str, str]:
    """What only the bundle explains of its URLs, as far as it can be read."""
    import ijson

    found: dict[str, str] = {}
    with suppress(ijson.JSONError, ValueError):
        found.update(filter(None, map(_alias, _items(stream))))
    return found


def _alias(entry: Any) -> tuple[str, str] | None:
    """``fullUrl`` and id of an entry whose URL does not end in its id; most exports have none."""
    resource = entry.get("resource") if isinstance(entry, dict) else None
    if not isinstance(resource, dict):
        return None
    url, own = entry.get("fullUrl"), resource.get("id")
    if not isinstance(url, str) or not isinstance(own, str):
        return None
    return None if url.replace(":", "/").rsplit("/", 1)[-1] == own else (url, own)


def _resolved(entry: Any, aliases: Mapping[str, str]) -> Any:
    """The entry with ids in the place of the URLs that only the bundle explains."""
    resource = entry.get("resource") if isinstance(entry, dict) else None
    if not aliases or not isinstance(resource, dict):
        return entry
    told: Raw = dict(resource)
    for field in _REFERRING:
        reference = told.get(field)
        if isinstance(reference, dict) and reference.get("reference") in aliases:
            told[field] = {**reference, "reference": aliases[reference["reference"]]}
    return {"resource": told}


def _hold(held: sqlite3.Connection, number: int, resource: Resource) -> None:
    assert resource.patient is not None
    patient = _key(resource.patient)
    refused = resource.refused or _taken(held, patient, resource)
    content = encounter = None
    if refused is None:
        content = resource.checked.model_dump_json()
        encounter = resource.name(getattr(resource.checked, "encounter", None))
    told = (refused.field, refused.reason, refused.kind) if refused else (None, None, None)
    place = (resource.place.file, resource.place.row, resource.kind)
    row = (patient, number, *place, encounter, content, *told)
    held.execute(f"INSERT INTO resource VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608


def _key(patient: str) -> bytes:
    return patient.encode("utf-8", "surrogatepass")


def _taken(held: sqlite3.Connection, patient: bytes, resource: Resource) -> Refused | None:
    """The refusal of a resource whose id another patient's resource of its kind has."""
    if not resource.checked.id:
        return None
    key = (resource.kind, resource.checked.id)
    if held.execute("INSERT OR IGNORE INTO owner VALUES (?, ?, ?)", (*key, patient)).rowcount:
        return None
    owner = held.execute("SELECT patient FROM owner WHERE kind = ? AND id = ?", key).fetchone()
    if owner[0] == patient:
        return None  # the same again, or a contradiction: told when the patient is put together
    return resource.place.refuse(f"{resource.kind}.id", "an id given twice with other content")


def _doubted(held: sqlite3.Connection, losses: Losses) -> Callable[[bytes], bool]:
    """Says of whose record a part may be lost, by the rule of ``fhir_doubt.Doubts``."""
    doubted: set[bytes] = set()
    for at, file, loss in losses:
        names = [_key(name) for name in loss.names]
        named = {name for name in names if held.execute(_KNOWN, (name,)).fetchone()}
        doubted |= named
        if named and not loss.tail:
            continue
        if held.execute(_SCATTERED).fetchone():
            return lambda _: True
        beside = (held.execute(query, (at, file)).fetchone() for query in _BESIDE)
        doubted.update(row[0] for row in beside if row)
    return doubted.__contains__


def _patients(
    held: sqlite3.Connection, doubted: Callable[[bytes], bool], share: float, tick: Tick
) -> Iterator[Visit | Refused]:
    done = told = 0
    rows = held.execute("SELECT * FROM resource ORDER BY patient, number")
    for patient, group in groupby(rows, key=itemgetter(0)):
        parts = [_resource(patient, row) for row in group]
        if doubted(patient):
            lost = Loss(frozenset((patient.decode("utf-8", "surrogatepass"),)), tail=False)
            parts[0] = replace(parts[0], loss=lost)
        done += len(parts)
        tick(round(done * share) - told)
        told = round(done * share)
        yield from fhir.first_visits(parts)


def _resource(patient: bytes, row: tuple[Any, ...]) -> Resource:
    from fhir.resources.R4B import get_fhir_model_class

    _, _, file, line, kind, encounter, content, field, reason, refusal = row
    place = Place("fhir", file, line)
    checked = refused = None
    if content is None:
        refused = place.refuse(field, reason, refusal)
    else:
        checked = get_fhir_model_class(kind).model_validate_json(content)
    name = patient.decode("utf-8", "surrogatepass")
    return Resource(place, kind, name, checked, refused, lambda _: encounter)
