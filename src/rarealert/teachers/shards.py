"""Append-only shards of JSON Lines: one a writer, a checksum a row, safe against kill -9.

A line is ``{"checksum":"<sha256 of row>","row":{"key":"<sha256>",...}}``. Key and checksum are at
fixed places, so a scan needs no JSON parser.
"""

import errno
import fcntl
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

from rarealert.errors import RareAlertError
from rarealert.files import canonical_json, digest

_HEAD = b'{"checksum":"'
_MIDDLE = b'","row":'
_ROW_HEAD = b'{"key":"'
_HEX = 64
_ROW_AT = len(_HEAD) + _HEX + len(_MIDDLE)
_KEY_AT = _ROW_AT + len(_ROW_HEAD)
_SYNC_S = 1.0
_READ_AHEAD = 1 << 20  # bytes; one system call for some 500 rows
_MERGED = re.compile(r"-m[0-9a-f]{8}$")


class Line(NamedTuple):
    """One line of a shard; ``key`` and ``row`` (JSON bytes) are ``None`` if it is damaged.

    ``offset`` is the position of the row's first byte in the shard.
    """

    shard: Path
    number: int
    offset: int
    key: str | None
    row: bytes | None


def encode(key: str, row: dict[str, object]) -> bytes:
    """The line for ``row`` under ``key``, with its newline."""
    fields = canonical_json({name: value for name, value in row.items() if name != "key"})
    body = _ROW_HEAD + key.encode() + b'",' + fields[1:]
    return _HEAD + digest(body).encode() + _MIDDLE + body + b"}\n"


def decode(line: bytes) -> tuple[str, bytes] | None:
    """Key and row of a line, ``None`` if it is torn or its checksum is wrong."""
    if not (line.startswith(_HEAD) and line.endswith(b"}\n")):
        return None
    row = line[_ROW_AT:-2]
    if digest(row).encode() != line[len(_HEAD) : len(_HEAD) + _HEX]:
        return None
    return line[_KEY_AT : _KEY_AT + _HEX].decode(), row


def shards(folder: Path, kind: str) -> list[Path]:
    """The shards of ``kind`` by the time at which they were begun."""
    return sorted(folder.glob(f"{kind}-*.jsonl"))


def scan(folder: Path, kind: str) -> Iterator[Line]:
    """Every line of every shard of ``kind``; changes nothing.

    If a compaction removes a shard meanwhile, the merged shard is read instead.
    """
    done: set[Path] = set()
    while fresh := [shard for shard in shards(folder, kind) if shard not in done]:
        for shard in fresh:
            done.add(shard)
            yield from _lines(shard)


def _lines(shard: Path) -> Iterator[Line]:
    try:
        stream = shard.open("rb", buffering=_READ_AHEAD)
    except FileNotFoundError:
        return
    with stream:
        at = 0
        for number, raw in enumerate(stream, start=1):
            key, row = decode(raw) or (None, None)
            yield Line(shard, number, at + _ROW_AT, key, row)
            at += len(raw)


@contextmanager
def disk_full(folder: Path) -> Iterator[None]:
    """Turn the system's "no space left" into a sentence for the user."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise RareAlertError(
            f"The disk with {folder} is full. Free some space and run the command again: it "
            "continues where it stopped."
        ) from error


class ShardWriter:
    """Appends to one shard of ``folder``, created with the first row.

    ``append`` gives each whole row to the kernel, so it survives a kill -9 from then on. Rows are
    forced to disk at most once a second, and on ``close``.
    """

    def __init__(self, folder: Path, kind: str):
        self._folder = folder
        self._kind = kind
        self._descriptor: int | None = None
        self._size = 0
        self._synced_at = time.monotonic()

    def append(self, key: str, row: dict[str, object]) -> None:
        """Add one row.

        Raises:
            RareAlertError: the disk is full; rows appended before are intact.
        """
        line = encode(key, row)
        with disk_full(self._folder):
            if self._descriptor is None:
                self._descriptor = self._create()
            self._write(self._descriptor, line)
            if time.monotonic() - self._synced_at >= _SYNC_S:
                os.fsync(self._descriptor)
                self._synced_at = time.monotonic()

    def close(self) -> None:
        """Force the shard to disk and release it; a later row begins another shard."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        try:
            with disk_full(self._folder):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _create(self) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        begun = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        name = f"{self._kind}-{begun}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL
        descriptor = os.open(self._folder / name, flags, 0o644)
        # a living writer's mark; filelock would truncate the file that it locks
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        self._size = 0
        return descriptor

    def _write(self, descriptor: int, line: bytes) -> None:
        """Write all of ``line``, or none of it if the disk is full."""
        view = memoryview(line)
        try:
            while view:
                view = view[os.write(descriptor, view) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(descriptor, self._size)
            raise
        self._size += len(line)


def set_aside_damage(folder: Path, kind: str) -> tuple[int, set[str]]:
    """Move damaged lines of finished shards to ``damaged/``.

    A shard with a living writer is not changed; a kill leaves a shard either changed or not.
    Returns the number of lines moved and the keys of all good lines.
    """
    moved, keys = 0, set()
    for shard in shards(folder, kind):
        bad = 0
        for line in _lines(shard):
            if line.key is None:
                bad += 1
            else:
                keys.add(line.key)
        if bad:
            with _maintenance(folder), _finished(shard) as stream:
                moved += _repair(shard, stream) if stream else 0
    return moved, keys


def _repair(shard: Path, stream: BinaryIO) -> int:
    bad = [line for line in stream if decode(line) is None]
    stream.seek(0)
    damaged = shard.parent / "damaged"
    with disk_full(shard.parent):
        damaged.mkdir(exist_ok=True)
        (damaged / f"{shard.stem}-{secrets.token_hex(4)}.txt").write_bytes(b"\n".join(bad))
    _replace(shard, (line for line in stream if decode(line)))
    return len(bad)


@dataclass(frozen=True)
class Compaction:
    """Numbers of shards of one kind before and after, and of repeated answers dropped."""

    before: int
    after: int
    dropped: int


def compact(folder: Path, kind: str, *, once: bool) -> Compaction:
    """Merge the finished shards of ``kind`` that are older than every living writer's.

    With ``once`` only a key's first line is kept: the one that readers use, so no projection
    changes. Writers and readers may run meanwhile. A kill leaves the old shards, or the merged one
    beside some of them; the next compaction drops what is then twice.

    Raises:
        RareAlertError: the disk is full; nothing was changed.
    """
    with _maintenance(folder):
        before = shards(folder, kind)
        merged: list[Path] = []
        for shard in before:
            with _finished(shard) as stream:
                if stream is None:
                    break
            merged.append(shard)
        if len(merged) < 2:
            return Compaction(len(before), len(before), 0)
        # sorts just before the first of them, so that the first line of a key stays the first
        stem = _MERGED.sub("", merged[0].stem)
        dropped: list[str] = []
        _replace(folder / f"{stem}-m{secrets.token_hex(4)}.jsonl", _kept(merged, once, dropped))
        for shard in merged:
            shard.unlink()
    return Compaction(len(before), len(before) - len(merged) + 1, len(dropped))


def _kept(merged: list[Path], once: bool, dropped: list[str]) -> Iterator[bytes]:
    """The lines of ``merged`` in order, damaged ones included; adds dropped keys to ``dropped``."""
    seen: set[str] = set()
    for shard in merged:
        with shard.open("rb") as stream:
            for line in stream:
                found = decode(line) if once else None
                if found is not None and found[0] in seen:
                    dropped.append(found[0])
                    continue
                if found is not None:
                    seen.add(found[0])
                yield line if line.endswith(b"\n") else line + b"\n"


@contextmanager
def _maintenance(folder: Path) -> Iterator[None]:
    """Let one process at a time rewrite shards of ``folder``; writers and readers continue."""
    from filelock import FileLock

    with FileLock(folder.with_name(f"{folder.name}.lock")):  # beside it, so that DVC skips it
        for left in folder.glob("*.partial"):  # of a killed process
            left.unlink()
        yield


@contextmanager
def _finished(shard: Path) -> Iterator[BinaryIO | None]:
    """The shard, open and locked; ``None`` if it is gone or its writer is alive."""
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(shard.open("rb"))
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (FileNotFoundError, BlockingIOError):
            yield None
        else:
            yield stream


def _replace(shard: Path, lines: Iterable[bytes]) -> None:
    """Write ``shard`` whole or not at all; the caller holds ``_maintenance``."""
    partial = shard.with_suffix(".partial")
    try:
        with disk_full(shard.parent), partial.open("wb") as stream:
            stream.writelines(lines)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(shard)
    finally:
        partial.unlink(missing_ok=True)
