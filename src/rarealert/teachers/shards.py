"""Append-only JSON Lines shards: one a process, a checksum a row, safe against kill -9.

A line is ``{"checksum":"<sha256 of row>","row":{"key":"<sha256>",...}}``. Key and checksum stand
at fixed places, so that a scan reads neither with a JSON parser.
"""

import errno
import fcntl
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

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


@dataclass(frozen=True)
class Line:
    """One line of a shard: ``key`` and ``row`` (JSON bytes), both ``None`` where it is damaged."""

    shard: Path
    number: int
    raw: bytes
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
    """Every line of every shard of ``kind``; nothing is changed on disk."""
    for shard in shards(folder, kind):
        with shard.open("rb") as stream:
            for number, raw in enumerate(stream, start=1):
                key, row = decode(raw) or (None, None)
                yield Line(shard, number, raw, key, row)


def set_aside_damage(folder: Path, kind: str) -> int:
    """Move damaged lines of finished shards to ``damaged/`` and keep the good ones.

    A shard whose writer still lives (it holds a lock) is left alone. Returns the number of lines
    moved. Killed in between, it leaves the shard as it was.
    """
    moved = 0
    for shard in shards(folder, kind):
        with shard.open("rb") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            bad = [line for line in stream if decode(line) is None]
            if bad:
                stream.seek(0)
                _keep_good(shard, (line for line in stream if decode(line)), bad)
                moved += len(bad)
    return moved


def _keep_good(shard: Path, good: Iterable[bytes], bad: list[bytes]) -> None:
    aside = shard.parent / "damaged"
    aside.mkdir(exist_ok=True)
    (aside / f"{shard.stem}-{secrets.token_hex(4)}.txt").write_bytes(b"\n".join(bad))
    partial = shard.with_suffix(".partial")
    with partial.open("wb") as stream:
        stream.writelines(good)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(shard)


class ShardWriter:
    """The one shard a process appends to; made with its first row.

    A row is handed to the kernel whole with ``append``, so it outlives a kill -9 at once; it is
    forced to disk with the batch, at most a second or 256 rows later, and on ``close``.
    """

    def __init__(self, folder: Path, kind: str):
        self._folder = folder
        self._kind = kind
        self._descriptor: int | None = None
        self._unsynced = 0
        self._synced_at = time.monotonic()

    def append(self, key: str, row: dict[str, object]) -> None:
        """Add one row.

        Raises:
            RareAlertError: the disk is full; what was appended before stays whole.
        """
        if self._descriptor is None:
            self._descriptor = self._create()
        try:
            _write_all(self._descriptor, encode(key, row))
            self._unsynced += 1
            waited = time.monotonic() - self._synced_at
            if self._unsynced >= _FSYNC_ROWS or waited >= _FSYNC_SECONDS:
                self.sync()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise RareAlertError(
                    f"The disk that holds {self._folder} is full; free some space and run the "
                    "command again, it goes on where it stopped."
                ) from error
            raise

    def sync(self) -> None:
        """Force what was appended to disk."""
        if self._descriptor is not None and self._unsynced:
            os.fsync(self._descriptor)
        self._unsynced = 0
        self._synced_at = time.monotonic()

    def close(self) -> None:
        """Sync and let the shard go; another append would open a new shard."""
        if self._descriptor is not None:
            self.sync()
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _create(self) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        begun = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        name = f"{self._kind}-{begun}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL
        descriptor = os.open(self._folder / name, flags, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        return descriptor


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
