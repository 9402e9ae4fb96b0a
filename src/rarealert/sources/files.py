"""Reading published files: whole, decoded, or one sentence that says what is wrong with them.

Members of a zip whose directory is cut off or wrong, found by the headers before them.

PKWARE's APPNOTE 6.3.10, 4.3.7 (local header), 4.3.9 (data descriptor) and 4.5.3 (Zip64). The
directory stands at an archive's end, so a download that broke off has lost it, and ``zipfile``
then reads nothing. A member counts as whole if its checksum (CRC-32) holds.

A file, a folder or a zip of documents, read one by one and never unpacked to disk.
"""

import gzip
import io
import json
import mmap
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO
from zipfile import BadZipFile

from rarealert.errors import BadInputError

Tick = Callable[[int], object]
"""Told how many bytes of the source were read since it was last told."""

MAX_RECORD_BYTES = 64 * 1024**2
"""A longer line or document is no visit; reading it could take all memory."""

MAX_UNPACKED_BYTES = 1024**3
"""A published archive is smaller by far; a larger one would fill memory."""

TOO_LONG = f"longer than {MAX_RECORD_BYTES // 1024**2} MiB"


def no_tick(_: int) -> None:
    """For whoever reads without showing how far it got."""


def read_text(path: Path) -> str:
    """The UTF-8 text of ``path``; a name that ends in ``.gz`` is decompressed.

    Raises:
        BadInputError: the file is missing, empty, truncated, or not UTF-8.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BadInputError(
            f"{path} can't be read ({error.strerror}); import the source again."
        ) from error
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
        raise BadInputError(f"{path} unpacks to more than {limit} MiB; it is no published file.")
    return content


def read_until_cut(path: Path) -> bytes:
    """What a gzip file unpacks to, up to where it is cut short; nothing if it is damaged within.

    A cut leaves what stands before it whole. Other damage is noticed too late, by the checksum at
    the end, and then no word can be trusted.
    """
    inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        return inflate.decompress(path.read_bytes(), MAX_UNPACKED_BYTES)
    except (OSError, zlib.error):
        return b""


def parse_json(text: str | bytes) -> object:
    """The JSON value of ``text``.

    Raises:
        ValueError: it is not UTF-8, not JSON, nested too deeply, or holds a number of absurd
            length.
    """
    try:
        value: object = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return value


def json_lines(path: Path, tick: Tick = no_tick) -> Iterator[tuple[int, dict[str, object] | str]]:
    """Number (from 1) of every line that is not blank, with its object or what is wrong with it.

    Raises:
        BadInputError: the file can't be read or holds no line at all.
    """
    found = False
    for number, line, whole in raw_lines(path, tick):
        found = True
        yield number, json_object(line) if whole else TOO_LONG
    if not found:
        raise BadInputError(f"{path} is empty; import the source again.")


def raw_lines(path: Path, tick: Tick = no_tick) -> Iterator[tuple[int, bytes, bool]]:
    """Number (from 1) of every line that is not blank, the line, and whether that is all of it.

    Raises:
        BadInputError: the file can't be read.
    """
    try:
        with path.open("rb") as stream:
            for number, (line, whole) in enumerate(_bounded_lines(stream, tick), 1):
                if not whole or line.strip():
                    yield number, line, whole
    except OSError as error:
        raise BadInputError(
            f"{path} can't be read ({error.strerror}); import the source again."
        ) from error


def _bounded_lines(stream: IO[bytes], tick: Tick) -> Iterator[tuple[bytes, bool]]:
    """Every line, of one that is too long the beginning, never holding more than the limit."""
    while line := stream.readline(MAX_RECORD_BYTES):
        tick(len(line))
        whole = len(line) < MAX_RECORD_BYTES or line.endswith(b"\n")
        yield line, whole
        while not whole and (rest := stream.readline(MAX_RECORD_BYTES)):
            tick(len(rest))
            whole = rest.endswith(b"\n")


def json_object(content: bytes) -> dict[str, object] | str:
    """The JSON object that ``content`` is, or what is wrong with it."""
    try:
        value = parse_json(content.removeprefix(b"\xef\xbb\xbf"))
    except UnicodeDecodeError:
        return "not UTF-8"
    except ValueError:
        return "not valid JSON"
    return value if isinstance(value, dict) else "not a JSON object"


_LOCAL, _DESCRIPTOR = b"PK\x03\x04", b"PK\x07\x08"
_HEADER = struct.Struct("<4s5H3I2H")
_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _SIZES_FOLLOW, _UTF8 = 0x1, 0x8, 0x800
_IN_ZIP64 = 0xFFFFFFFF
_CHUNK = 65_536


@dataclass(frozen=True)
class Survivor:
    """A member by its own header: its name, its content, or what is wrong with it."""

    name: str
    content: bytes = b""
    problem: str | None = None


@dataclass(frozen=True)
class _Header:
    name: str
    start: int
    end: int | None  # of the packed data; None where only a descriptor behind them says it
    crc: int | None
    method: int
    encrypted: bool


def survivors(file: Path, wanted: Callable[[str], bool]) -> Iterator[Survivor]:
    """Every member that ``wanted`` takes by its name, in the order in which they stand.

    Content is cut one byte above the limit of a record, and then not checked. Members can't
    overlap, and what damaged ones may unpack to is bounded in all, so a hostile archive costs no
    more than a large one.
    """
    left = MAX_UNPACKED_BYTES
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as raw:
        at = raw.find(_LOCAL)
        while at >= 0 and left > 0:
            header, end = _header(raw, at), at + len(_LOCAL)
            if header is not None:
                found, end, wasted = _unpacked(raw, header, wanted(header.name))
                left -= wasted
                if found is not None:
                    yield found
            at = raw.find(_LOCAL, end)


def _header(raw: mmap.mmap, at: int) -> _Header | None:
    """The local header at ``at``; ``None`` where it is cut, or those four bytes are none."""
    if at + _HEADER.size > len(raw):
        return None
    _, _, flags, method, _, _, crc, size, plain, named, extra = _HEADER.unpack_from(raw, at)
    start = at + _HEADER.size + named + extra
    said = raw[at + _HEADER.size : start - extra]
    if start > len(raw) or not said or b"\x00" in said:
        return None
    if size == _IN_ZIP64:
        size = _zip64_size(raw[start - extra : start], plain == _IN_ZIP64)
    follows = bool(flags & _SIZES_FOLLOW)
    return _Header(
        said.decode("utf-8" if flags & _UTF8 else "cp437", "replace"),
        start,
        None if follows or size is None else start + size,
        None if follows else crc,
        method,
        bool(flags & _ENCRYPTED),
    )


def _zip64_size(extra: bytes, after_plain: bool) -> int | None:
    """The packed size in the Zip64 field, which stands there after the plain size."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        place = at + 4 + (8 if after_plain else 0)
        if kind == 1 and place + 8 <= min(at + 4 + length, len(extra)):
            return int(struct.unpack_from("<Q", extra, place)[0])
        at += 4 + length
    return None


def _unpacked(raw: mmap.mmap, header: _Header, wanted: bool) -> tuple[Survivor | None, int, int]:
    """The member, if it is wanted, where to look for the next, and how many bytes were in vain."""
    if header.end is not None and header.end <= len(raw) and not wanted:
        return None, header.end, 0
    if header.encrypted:
        locked = Survivor(header.name, problem="encrypted; unpack it first")
        return locked if wanted else None, header.start, 0
    limit = MAX_RECORD_BYTES + 1
    content, end, problem = b"", header.start, None
    try:
        content, end = _content(raw, header, limit)
        if len(content) < limit:
            _check(raw, header, content, end)
    except (BadZipFile, zlib.error):
        # its data may hold the next header where its own end is wrong
        end, problem = header.start, "cut off or damaged in the archive"
    wasted = max(len(content), _CHUNK) if problem or len(content) == limit else 0
    found = Survivor(header.name, b"" if problem else content, problem)
    return found if wanted else None, end, wasted


def _content(raw: mmap.mmap, header: _Header, limit: int) -> tuple[bytes, int]:
    if header.method == _STORED and header.end is not None:
        return raw[header.start : min(header.end, header.start + limit)], header.end
    if header.method != _DEFLATED:
        raise BadZipFile("packed in a way that is not read")
    inflate, parts, size, at = zlib.decompressobj(-zlib.MAX_WBITS), [], 0, header.start
    while not inflate.eof and size < limit:
        packed = inflate.unconsumed_tail
        if not packed:
            packed, at = raw[at : at + _CHUNK], min(at + _CHUNK, len(raw))
        part = inflate.decompress(packed, limit - size)
        if not packed and not part:
            raise BadZipFile("cut off")
        parts.append(part)
        size += len(part)
    return b"".join(parts), at - len(inflate.unused_data) - len(inflate.unconsumed_tail)


def _check(raw: mmap.mmap, header: _Header, content: bytes, end: int) -> None:
    crc = header.crc
    if crc is None:
        behind = raw[end : end + 8].removeprefix(_DESCRIPTOR)
        crc = int.from_bytes(behind[:4], "little") if len(behind) >= 4 else None
    if crc is None or zlib.crc32(content) != crc:
        raise BadZipFile("the checksum does not hold")


_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)
EMPTY = "empty"
"""The problem of a document in which nothing stands, so that nothing of it is lost."""

_ENCRYPTED_DOCUMENTS = 0x1  # bit of a zip member's flags


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
                if info.flag_bits & _ENCRYPTED_DOCUMENTS:
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
    limit = MAX_RECORD_BYTES
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
