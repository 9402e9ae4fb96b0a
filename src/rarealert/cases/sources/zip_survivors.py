"""Members of a zip whose directory is cut off or wrong, found by the headers before them.

PKWARE's APPNOTE 6.3.10, 4.3.7 (local header), 4.3.9 (data descriptor) and 4.5.3 (Zip64). The
directory stands at an archive's end, so a download that broke off has lost it, and ``zipfile``
then reads nothing. A member counts as whole if its checksum (CRC-32) holds.
"""

import mmap
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

from rarealert.cases.sources import files

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
    left = files.MAX_UNPACKED_BYTES
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
    limit = files.MAX_RECORD_BYTES + 1
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
