"""Append-only JSON Lines shards: one a process, a checksum a row, safe against kill -9.

A line is ``{"checksum":"<sha256 of row>","row":{"key":"<sha256>",...}}``. Key and checksum stand
at fixed places, so that a scan reads neither with a JSON parser.

Many shards into one: fewer files to version and to open, and no answer twice.
"""

import errno
import fcntl
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

from rarealert.errors import RareAlertError
from rarealert.teachers.teacher import canonical_json, digest

_HEAD = b'{"checksum":"'
_MIDDLE = b'","row":'
_ROW_HEAD = b'{"key":"'
_HEX = 64
_ROW_AT = len(_HEAD) + _HEX + len(_MIDDLE)
_KEY_AT = _ROW_AT + len(_ROW_HEAD)
_FSYNC_ROWS = 256
_FSYNC_SECONDS = 1.0
_READ_AHEAD = 1 << 20  # bytes; one system call for some 500 rows


class Line(NamedTuple):
    """One line of a shard: ``key`` and ``row`` (JSON bytes), both ``None`` where it is damaged.

    The row's bytes begin ``offset`` bytes into the shard.
    """

    shard: Path
    number: int
    offset: int
    key: str | None
    row: bytes | None


def encode(key: str, row: dict[str, object]) -> bytes:
    """A whole line, newline included, for ``row`` under ``key``."""
    fields = canonical_json({name: value for name, value in row.items() if name != "key"})
    body = _ROW_HEAD + key.encode() + b'",' + fields[1:]
    return _HEAD + digest(body).encode() + _MIDDLE + body + b"}\n"


def decode(line: bytes) -> tuple[str, bytes] | None:
    """Key and row of a line, or ``None`` where it is torn or its checksum does not hold."""
    if not (line.startswith(_HEAD) and line.endswith(b"}\n")):
        return None
    row = line[_ROW_AT:-2]
    if digest(row).encode() != line[len(_HEAD) : len(_HEAD) + _HEX]:
        return None
    return line[_KEY_AT : _KEY_AT + _HEX].decode(), row


def shards(folder: Path, kind: str) -> list[Path]:
    """The shards of ``kind`` in the order in which their writers began."""
    return sorted(folder.glob(f"{kind}-*.jsonl"))


def scan(folder: Path, kind: str) -> Iterator[Line]:
    """Every line of every shard of ``kind``; nothing is changed on disk.

    A shard that a compaction takes away meanwhile is read in what it was merged into.
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


def set_aside_damage(folder: Path, kind: str) -> tuple[int, set[str]]:
    """Move damaged lines of finished shards to ``damaged/`` and keep the good ones.

    A shard whose writer still lives (it holds a lock) is left as it is. Killed in between, it
    leaves the shard as it was. Returns the number of lines moved and the keys of all good lines.
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
            with maintenance(shard.parent), locked(shard) as stream:
                moved += _repair(shard, stream) if stream else 0
    return moved, keys


@contextmanager
def maintenance(folder: Path) -> Iterator[None]:
    """Only one process at a time rewrites shards of ``folder``; writers and readers go on."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        for left in folder.glob("*.partial"):  # of a process that was killed
            left.unlink()
        yield
    finally:
        os.close(descriptor)


@contextmanager
def locked(shard: Path) -> Iterator[BinaryIO | None]:
    """The finished shard, open and locked; ``None`` if it is gone or its writer still lives."""
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(shard.open("rb"))
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (FileNotFoundError, BlockingIOError):
            yield None
        else:
            yield stream


def _repair(shard: Path, stream: BinaryIO) -> int:
    bad = [line for line in stream if decode(line) is None]
    stream.seek(0)
    aside = shard.parent / "damaged"
    with disk_full(shard.parent):
        aside.mkdir(exist_ok=True)
        (aside / f"{shard.stem}-{secrets.token_hex(4)}.txt").write_bytes(b"\n".join(bad))
    replace_shard(shard, (line for line in stream if decode(line)))
    return len(bad)


def replace_shard(shard: Path, lines: Iterable[bytes]) -> None:
    """Write ``shard`` anew, whole or not at all; the caller holds ``maintenance``.

    Raises:
        RareAlertError: the disk is full; the shard is as it was.
    """
    partial = shard.with_suffix(".partial")
    try:
        with disk_full(shard.parent), partial.open("wb") as stream:
            stream.writelines(lines)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(shard)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def disk_full(folder: Path) -> Iterator[None]:
    """Turn the system's "no space left" into a sentence that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise RareAlertError(
            f"The disk that holds {folder} is full; free some space and run the command again, "
            "it goes on where it stopped."
        ) from error


class ShardWriter:
    """The one shard a process appends to; made with its first row.

    A row is handed to the kernel whole with ``append``, so it outlives a kill -9 at once; it is
    forced to disk with others by a thread beside, so that nobody waits for the disk: begun at most
    a second or 256 rows later, and done on ``close``.
    """

    def __init__(self, folder: Path, kind: str):
        self._folder = folder
        self._kind = kind
        self._descriptor: int | None = None
        self._size = 0
        self._unsynced = 0
        self._synced_at = time.monotonic()
        self._syncing: Future[None] | None = None
        self._beside: ThreadPoolExecutor | None = None

    def append(self, key: str, row: dict[str, object]) -> None:
        """Add one row.

        Raises:
            RareAlertError: the disk is full; what was appended before stays whole.
        """
        line = encode(key, row)
        with disk_full(self._folder):
            if self._descriptor is None:
                self._descriptor = self._create()
            self._write(self._descriptor, line)
            self._unsynced += 1
            waited = time.monotonic() - self._synced_at
            if self._unsynced >= _FSYNC_ROWS or waited >= _FSYNC_SECONDS:
                self._sync_beside(self._descriptor)

    def close(self) -> None:
        """Sync and let the shard go; another append would open a new shard."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            try:
                with disk_full(self._folder):
                    if self._beside is not None:
                        self._beside.shutdown()
                    if self._syncing is not None:
                        self._syncing.result()
                    os.fsync(descriptor)
            finally:
                self._syncing = self._beside = None
                self._unsynced = 0
                os.close(descriptor)

    def _sync_beside(self, descriptor: int) -> None:
        if self._syncing is not None:
            if not self._syncing.done():
                return
            self._syncing.result()
        if self._beside is None:
            self._beside = ThreadPoolExecutor(1, thread_name_prefix="fsync")
        self._syncing = self._beside.submit(os.fsync, descriptor)
        self._unsynced = 0
        self._synced_at = time.monotonic()

    def _create(self) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        begun = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        name = f"{self._kind}-{begun}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL
        descriptor = os.open(self._folder / name, flags, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        self._size = 0
        return descriptor

    def _write(self, descriptor: int, line: bytes) -> None:
        """All of ``line`` or, where the disk fills up, none of it: the next row starts clean."""
        view = memoryview(line)
        try:
            while view:
                view = view[os.write(descriptor, view) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(descriptor, self._size)
            raise
        self._size += len(line)


_MERGED = re.compile(r"-m[0-9a-f]{8}$")


@dataclass(frozen=True)
class Compaction:
    """Shards of one kind before and after, and the later answers to the same question dropped."""

    before: int
    after: int
    dropped: int


def compact(folder: Path, kind: str, *, once: bool) -> Compaction:
    """Merge the finished shards of ``kind`` that no living writer's shard precedes.

    With ``once`` a key's first line alone is kept: the one that is read anyway, so no projection
    changes. Writers and readers go on meanwhile. Killed at any moment it leaves the shards as they
    were, or the merged one beside some of them; another compaction then drops what is twice.

    Raises:
        RareAlertError: the disk is full; nothing was changed.
    """
    with maintenance(folder):
        before = shards(folder, kind)
        finished = _finished(before)
        if len(finished) < 2:
            return Compaction(len(before), len(before), 0)
        # sorts just before the first of them, so that the first line of a key stays the first
        stem = _MERGED.sub("", finished[0].stem)
        merged = folder / f"{stem}-m{secrets.token_hex(4)}.jsonl"
        lines = _Lines(finished, once)
        replace_shard(merged, lines)
        for shard in finished:
            shard.unlink()
    return Compaction(len(before), len(before) - len(finished) + 1, lines.dropped)


def _finished(before: list[Path]) -> list[Path]:
    finished = []
    for shard in before:
        with locked(shard) as stream:
            if stream is None:
                break
        finished.append(shard)
    return finished


class _Lines:
    """The lines of ``merged`` in order; damaged ones stay for ``set_aside_damage`` to find."""

    def __init__(self, merged: list[Path], once: bool):
        self._merged = merged
        self._once = once
        self.dropped = 0

    def __iter__(self) -> Iterator[bytes]:
        seen: set[str] = set()
        for shard in self._merged:
            with shard.open("rb") as stream:
                for line in stream:
                    found = decode(line) if self._once else None
                    if found is not None:
                        if found[0] in seen:
                            self.dropped += 1
                            continue
                        seen.add(found[0])
                    yield line if line.endswith(b"\n") else line + b"\n"
