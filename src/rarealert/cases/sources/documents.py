"""A file, a folder or a zip of documents, read one by one and never unpacked to disk."""

import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rarealert.cases.sources import files
from rarealert.cases.sources.files import TOO_LONG, Tick, no_tick
from rarealert.errors import BadInputError

_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)
_ENCRYPTED = 0x1  # bit of a zip member's flags


@dataclass(frozen=True)
class Document:
    """One document: its content, or what is wrong with it. ``number`` counts from 1."""

    number: int
    name: str
    content: bytes
    problem: str | None = None


def documents(path: Path, suffixes: tuple[str, ...], tick: Tick = no_tick) -> Iterator[Document]:
    """Every document of ``path`` whose name ends in one of ``suffixes``, in the order of names.

    ``path`` is such a file, a zip of them, or a folder that holds such files and zips. Names that
    begin with a dot are passed over, as are macOS's shadows of files. Nothing outside ``path`` is
    read: a link is refused, and a zip's names are labels, not places.

    Raises:
        BadInputError: ``path`` is missing, holds no such document, or is a damaged zip.
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
    except _UNREADABLE as error:
        raise BadInputError(f"{file} is truncated or no zip file; copy it again.") from error
    with archive:
        for info in sorted(archive.infolist(), key=lambda info: info.filename):
            if info.is_dir() or not _wanted(info.filename, suffixes):
                continue

            def read(limit: int, info: zipfile.ZipInfo = info) -> bytes:
                if info.flag_bits & _ENCRYPTED:
                    raise OSError("encrypted; unpack it first")
                with archive.open(info) as stream:
                    return stream.read(limit)

            yield info.filename, info.compress_size, read


def _document(number: int, name: str, read: Callable[[int], bytes]) -> Document:
    """The document, read up to the limit: a zip's own word for a size is not trusted."""
    limit = files.MAX_RECORD_BYTES
    shown = name.encode("ascii", "backslashreplace").decode()
    label = "".join(char if char.isprintable() else "?" for char in shown)
    try:
        content = read(limit + 1)
    except _UNREADABLE as error:
        ours = type(error) is OSError and error.errno is None
        problem = str(error) if ours else "can't be read or decompressed"
        return Document(number, label, b"", problem)
    if len(content) > limit:
        return Document(number, label, b"", TOO_LONG)
    return Document(number, label, content, None if content.strip() else "empty")
