"""Many shards into one: fewer files to version and to open, and no answer twice."""

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rarealert.teachers.shards import decode, locked, maintenance, replace_shard, shards

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
