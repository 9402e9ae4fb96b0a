"""Answers by their place in the shards, so that millions are projected without being held."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rarealert.errors import RareAlertError


@dataclass(frozen=True)
class Located:
    """Places of ``n`` answers; ``shard[i]`` is an index into ``shards``, -1 where there is none.

    ``offset`` and ``length`` are in bytes, all three arrays of shape ``(n,)``.
    """

    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    length: NDArray[np.int32]
    shards: list[Path] = field(default_factory=list)

    @classmethod
    def nowhere(cls, n: int) -> Self:
        """No answer of ``n`` is found yet."""
        return cls(np.full(n, -1, np.int32), np.zeros(n, np.int64), np.zeros(n, np.int32))

    @property
    def found(self) -> NDArray[np.bool_]:
        """Which answers there are, shape ``(n,)``."""
        known: NDArray[np.bool_] = self.shard >= 0
        return known

    def rows(self, wanted: Sequence[int], keys: Sequence[str]) -> list[bytes]:
        """The row of each of ``wanted``, in its order; empty where there is none.

        ``keys[i]`` is the key of answer ``i``.

        Raises:
            RareAlertError: a shard was rewritten since the answers were located.
        """
        rows = [b""] * len(wanted)
        order = sorted(
            (place for place, at in enumerate(wanted) if self.shard[at] >= 0),
            key=lambda place: (self.shard[wanted[place]], self.offset[wanted[place]]),
        )
        stream, opened = None, -1
        try:
            for place in order:
                at = wanted[place]
                if stream is None or self.shard[at] != opened:
                    opened = int(self.shard[at])
                    if stream is not None:
                        stream.close()
                    stream = self.shards[opened].open("rb")
                stream.seek(int(self.offset[at]))
                rows[place] = stream.read(int(self.length[at]))
                if not rows[place].startswith(b'{"key":"' + keys[at].encode()):
                    raise RareAlertError(_REWRITTEN)
        except FileNotFoundError as error:
            raise RareAlertError(_REWRITTEN) from error
        finally:
            if stream is not None:
                stream.close()
        return rows


_REWRITTEN = (
    "The cache was compacted or repaired by another process meanwhile; run the command again."
)
