"""A file, a folder or a zip of documents, read one by one and never unpacked to disk."""

import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rarealert.cases.sources import files
from rarealert.cases.sources.files import TOO_LONG, Tick, no_tick
from rarealert.cases.sources.zip_survivors import Survivor, survivors
from rarealert.errors import BadInputError

_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)
EMPTY = "empty"
"""The problem of a document in which nothing stands, so that nothing of it is lost."""

_ENCRYPTED = 0x1  # bit of a zip member's flags


@dataclass(frozen=True)
class Document:
    """One document: its content, or what is wrong with it. ``number`` counts from 1.

    ``rest_lost`` stands at the end of an archive whose further documents nobody knows.
    """

    number: int
    name: str
    content: bytes
    problem: str | None = None
    rest_lost: bool = False


class _RestLostError(OSError):
    """What an archive held beyond its last whole member can't be told."""


def documents(path: Path, suffixes: tuple[str, ...], tick: Tick = no_tick) -> Iterator[Document]:
    """Every document of ``path`` whose name ends in one of ``suffixes``, in the order of names.

    ``path`` is such a file, a zip of them, or a folder that holds such files and zips. Names that
    begin with a dot are passed over, as are macOS's shadows of files. Nothing outside ``path`` is
    read: a link is refused, and a zip's names are labels, not places. Of a zip that is cut or
    whose directory is wrong, every whole member is read, and one more document says what is lost.

    Raises:
        BadInputError: ``path`` is missing, holds no such document, or is a zip without one whole
            member.
    """
    number = 0
    for file, name in walk(path, (*suffixes, ".zip")):
        found = _members(file, suffixes) if name.lower().endswith(".zip") else _alone(file, name)
        for label, size, read in found:
            number += 1
            yield _document(number, label, read)
            tick(size)
    if not number:
        raise BadInputError(f"{path} holds no {' or '.join(suffixes)} file; check the path.")


def walk(path: Path, suffixes: tuple[str, ...]) -> list[tuple[Path, str]]:
    """Files at or below ``path`` with their names relative to it, sorted by these.

    Raises:
        BadInputError: ``path`` is missing.
    """
    if path.is_file():
        return [(path, path.name)]
    if not path.is_dir():
        raise BadInputError(f"{path} is missing; name a file, a folder or a zip.")
    found = []
    for folder, below, names in os.walk(path):
        below[:] = [name for name in below if not name.startswith(".")]
        for name in names:
            if _wanted(name, suffixes):
                file = Path(folder) / name
                found.append((file, file.relative_to(path).as_posix()))
    return sorted(found, key=lambda item: item[1])


def _wanted(name: str, suffixes: tuple[str, ...]) -> bool:
    last = PurePosixPath(name).name
    return last.lower().endswith(suffixes) and not last.startswith(".")


_Found = tuple[str, int, Callable[[int], bytes]]


def _alone(file: Path, name: str) -> Iterator[_Found]:
    def read(limit: int) -> bytes:
        if file.is_symlink():
            raise OSError("a link; put the file itself there")
        with file.open("rb") as stream:
            return stream.read(limit)

    yield name, 0 if file.is_symlink() else file.stat().st_size, read


def _members(file: Path, suffixes: tuple[str, ...]) -> Iterator[_Found]:
    try:
        archive = zipfile.ZipFile(file)
    except _UNREADABLE:
        yield from _surviving(file, suffixes)
        return
    with archive:
        if not _directory_holds(archive, file):
            yield from _surviving(file, suffixes)
            return
        for info in sorted(archive.infolist(), key=lambda info: info.filename):
            if info.is_dir() or not _wanted(info.filename, suffixes):
                continue

            def read(limit: int, info: zipfile.ZipInfo = info) -> bytes:
                if info.flag_bits & _ENCRYPTED:
                    raise OSError("encrypted; unpack it first")
                with archive.open(info) as stream:
                    return stream.read(limit)

            yield info.filename, info.compress_size, read


def _directory_holds(archive: zipfile.ZipFile, file: Path) -> bool:
    """Whether a member begins wherever the directory says: bytes lost before it shift them all."""
    with file.open("rb") as stream:
        for info in archive.infolist():
            try:
                stream.seek(info.header_offset)
            except (OSError, ValueError):
                return False
            if stream.read(4) != b"PK\x03\x04":
                return False
    return True


def _surviving(file: Path, suffixes: tuple[str, ...]) -> Iterator[_Found]:
    """Members found by their own headers, then one that says what can't be found."""
    whole = 0
    found = survivors(file, lambda name: _wanted(name, suffixes)) if file.stat().st_size else ()
    for member in found:
        whole += member.problem is None

        def read(_: int, member: Survivor = member) -> bytes:
            if member.problem:
                raise OSError(member.problem)
            return member.content

        yield member.name, len(member.content), read
    if not whole:
        raise BadInputError(f"{file} is truncated or no zip file; copy it again.")

    def rest(_: int) -> bytes:
        raise _RestLostError("cut or damaged: its list of documents, and those not named, are lost")

    yield file.name, 0, rest


def _document(number: int, name: str, read: Callable[[int], bytes]) -> Document:
    """The document, read up to the limit: a zip's own word for a size is not trusted."""
    limit = files.MAX_RECORD_BYTES
    shown = name.encode("ascii", "backslashreplace").decode()
    label = "".join(char if char.isprintable() else "?" for char in shown)
    try:
        content = read(limit + 1)
    except _RestLostError as error:
        return Document(number, label, b"", str(error), rest_lost=True)
    except _UNREADABLE as error:
        ours = type(error) is OSError and error.errno is None
        problem = str(error) if ours else "can't be read or decompressed"
        return Document(number, label, b"", problem)
    if len(content) > limit:
        return Document(number, label, b"", TOO_LONG)
    return Document(number, label, content, None if content.strip() else EMPTY)
