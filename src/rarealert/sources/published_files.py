"""Published files, each read within a limit: a text, or the documents of a file, folder or zip.

Nothing is unpacked to disk, links are refused, and of a zip only its members are read: their names
are labels, never paths.
"""

import gzip
import io
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from rarealert.errors import BadInputError

Tick = Callable[[int], object]
"""Called with the number of bytes read since its last call."""

MAX_RECORD_BYTES = 64 * 1024**2
"""Longest line or document that is read; a longer one could fill the memory."""

MAX_UNPACKED_BYTES = 1024**3
"""Most that a gzip file may decompress to; published files are far smaller."""

TOO_LONG = f"longer than {MAX_RECORD_BYTES // 1024**2} MiB"
EMPTY = "empty"
LINK = "a link; put the file itself there"

_ENCRYPTED = 0x1  # bit of a zip member's flags
_END_RECORD_BYTES = 22
_COUNT_IN_ZIP64 = 0xFFFF
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)


def no_tick(_: int) -> None:
    """Ignore the progress."""


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open ``path`` for reading; an error of the file system becomes one sentence.

    Raises:
        BadInputError: the file is missing or can't be read.
    """
    try:
        with path.open("rb") as stream:
            yield stream
    except OSError as error:
        raise BadInputError(f"{path} can't be read ({error.strerror}); check the path.") from error


def read_text(path: Path) -> str:
    """Read ``path`` as UTF-8; a name that ends in ``.gz`` is decompressed.

    Raises:
        BadInputError: the file is missing, empty, truncated, damaged, or not UTF-8.
    """
    with opened(path) as stream:
        raw = stream.read()
    if path.suffix == ".gz":
        raw = _decompress(path, raw)
    if not raw.strip():
        raise BadInputError(f"{path} is empty; import the source again.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputError(
            f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8 and import it again."
        ) from error


def _decompress(path: Path, raw: bytes) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as stream:
            content = stream.read(MAX_UNPACKED_BYTES + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise BadInputError(
            f"{path} is truncated or no gzip file; copy it again from its publisher."
        ) from error
    if len(content) > MAX_UNPACKED_BYTES:
        limit = MAX_UNPACKED_BYTES // 1024**2
        raise BadInputError(
            f"{path} unpacks to more than {limit} MiB; give the file as its publisher provides it."
        )
    return content


def parse_json(text: str | bytes) -> object:
    """Parse one JSON value.

    Raises:
        ValueError: the text is not UTF-8, not JSON, nested too deeply, or contains an integer of
            thousands of digits.
    """
    try:
        value: object = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return value


def json_object(content: bytes) -> dict[str, object] | str:
    """Parse ``content`` as a JSON object; returns the reason where it is none."""
    try:
        value = parse_json(content.removeprefix(b"\xef\xbb\xbf"))
    except UnicodeDecodeError:
        return "not UTF-8"
    except ValueError:
        return "not valid JSON"
    return value if isinstance(value, dict) else "not a JSON object"


def printable_name(name: str) -> str:
    """Escape a file name that can't be printed or is not UTF-8."""
    if name.isprintable():
        return name
    escaped = name.encode("ascii", "backslashreplace").decode()
    return "".join(char if char.isprintable() else "?" for char in escaped)


def walk(path: Path, suffixes: tuple[str, ...]) -> list[tuple[Path, str]]:
    """List the files at or below ``path`` with their names relative to it, sorted by name.

    Names that begin with a dot are left out, as are macOS's shadows of files.

    Raises:
        BadInputError: ``path`` is missing.
    """
    if path.is_file():
        return [(path, printable_name(path.name))]
    if not path.is_dir():
        raise BadInputError(f"{path} is missing; name a file, a folder or a zip.")
    found = []
    for folder, below, names in os.walk(path):
        below[:] = [name for name in below if not name.startswith(".")]
        for name in names:
            if _is_wanted(name, suffixes):
                file = Path(folder) / name
                found.append((file, printable_name(file.relative_to(path).as_posix())))
    return sorted(found, key=lambda item: item[1])


def _is_wanted(name: str, suffixes: tuple[str, ...]) -> bool:
    last = PurePosixPath(name).name
    return last.lower().endswith(suffixes) and not last.startswith(".")


Content = tuple[str, bytes, str | None]
"""Name of a document, its bytes, and the reason where it can't be used."""


@dataclass(frozen=True)
class Document:
    """One document: its content, or in ``problem`` why it can't be used. ``number`` is from 1."""

    number: int
    name: str
    content: bytes
    problem: str | None = None


def documents(path: Path, suffixes: tuple[str, ...], tick: Tick = no_tick) -> Iterator[Document]:
    """Read every document whose name ends in one of ``suffixes``, in the order of names.

    ``path`` is such a file, a zip of them, or a folder of such files and zips.

    Raises:
        BadInputError: ``path`` is missing, contains no such document, or contains a damaged zip.
    """
    number = 0
    for file, name in walk(path, (*suffixes, ".zip")):
        if file != path and file.is_symlink():
            found: Iterable[Content] = [(name, b"", LINK)]
        elif file.suffix.lower() == ".zip":
            found = members(file, suffixes)
        else:
            found = [_content(file, name)]
        for label, content, problem in found:
            number += 1
            yield Document(number, label, content, problem)
            tick(len(content))
    if not number:
        raise BadInputError(f"{path} contains no {' or '.join(suffixes)} file; check the path.")


def _content(file: Path, name: str) -> Content:
    try:
        with file.open("rb") as stream:
            return name, *_limited(stream)
    except OSError as error:
        return name, b"", f"can't be read ({error.strerror})"


def members(path: Path, suffixes: tuple[str, ...]) -> Iterator[Content]:
    """Read the members of the zip at ``path``, in the order of names.

    Raises:
        BadInputError: the archive is damaged; no member has been read then.
    """
    with _checked_archive(path) as archive:
        for info in sorted(archive.infolist(), key=lambda info: info.filename):
            if not info.is_dir() and _is_wanted(info.filename, suffixes):
                yield printable_name(info.filename), *_member(archive, info)


def _checked_archive(path: Path) -> zipfile.ZipFile:
    """Open a zip whose directory is complete and agrees with the header of each member.

    A damaged directory can hide members from ``zipfile``, but not from the count at the end of the
    archive (PKWARE's APPNOTE 6.3.10, 4.3.16).
    """
    try:
        archive = zipfile.ZipFile(path)
        infos = archive.infolist()
        with path.open("rb") as stream:
            stream.seek(-_END_RECORD_BYTES - len(archive.comment), io.SEEK_END)
            count = int.from_bytes(stream.read(_END_RECORD_BYTES)[10:12], "little")
        if count not in (len(infos), _COUNT_IN_ZIP64):
            raise zipfile.BadZipFile(f"{count} members, and {len(infos)} in the directory")
        for info in infos:
            if not info.flag_bits & _ENCRYPTED:
                archive.open(info).close()
    except (*_ZIP_ERRORS, ValueError) as error:
        raise BadInputError(
            f"{path} is damaged, cut off or no zip file; copy it again from its publisher."
        ) from error
    return archive


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[bytes, str | None]:
    if info.flag_bits & _ENCRYPTED:
        return b"", "encrypted; unpack it first"
    try:
        with archive.open(info) as stream:
            return _limited(stream)
    except _ZIP_ERRORS:
        return b"", "damaged in its archive"


def _limited(stream: IO[bytes]) -> tuple[bytes, str | None]:
    """Content and problem; the size that a zip declares is not trusted."""
    content = stream.read(MAX_RECORD_BYTES + 1)
    if len(content) > MAX_RECORD_BYTES:
        return b"", TOO_LONG
    return content, None if content.strip() else EMPTY
