"""How far a run of screening got, and the files that it grows until all is done."""

import errno
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from rarealert.errors import BadInputError
from rarealert.screening.tables import write_table
from rarealert.sources.files import walk

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system says that knows no locks."""


@dataclass(frozen=True)
class Progress:
    """Rows and bytes of the source read, and bytes of both files written, for the run ``key``."""

    key: str
    rows: int = 0
    source_bytes: int = 0
    out_bytes: int = 0
    refused_bytes: int = 0
    screened: int = 0
    refused: int = 0
    flagged: int = 0
    cut: int = 0
    bands: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Files:
    """The visits, the answers, and what stands beside these while a run is under way."""

    source: Path
    out: Path

    @property
    def refused(self) -> Path:
        """Rows that are no visit, with their reasons."""
        return self.out.with_name(f"{self.out.name}.refused.jsonl")

    @property
    def progress(self) -> Path:
        """How far the run got."""
        return self.out.with_name(f"{self.out.name}.progress.json")

    @property
    def lock(self) -> Path:
        """What a run under way holds."""
        return self.out.with_name(f"{self.out.name}.lock")

    @property
    def source_bytes(self) -> int:
        """Size of all that is read."""
        return sum(file.stat().st_size for file in _parts(self.source))

    def digest(self) -> str:
        """Sha256 of the visits: of a folder, of the names and contents of its files."""
        whole = sha256()
        for file in _parts(self.source):
            whole.update(os.fsencode(file.name) + b"\0")
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    whole.update(block)
        return whole.hexdigest()


def _parts(path: Path) -> list[Path]:
    return [file for file, _ in walk(path, ("",))]


@contextmanager
def alone(files: Files) -> Iterator[None]:
    """Keep other runs away from what is written, for as long as this process lives at most.

    Windows and file systems without locks keep nobody away.

    Raises:
        BadInputError: another run writes the same answers.
    """
    if sys.platform == "win32":
        yield
        return
    while True:
        with files.lock.open("ab") as held:
            if not _take(held):
                raise BadInputError(
                    f"{files.out} is being written by another run; wait for it or name another "
                    "--out."
                )
            if not _is_at(files.lock, held):
                continue  # another run ended and took the file away between our two steps
            try:
                yield
            finally:
                files.lock.unlink(missing_ok=True)  # while it is held, so no one else's
            return


def _take(stream: IO[bytes]) -> bool:
    import fcntl  # Windows has none

    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _is_at(path: Path, stream: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False


def partial(path: Path) -> Path:
    """Where ``path`` grows."""
    return path.with_name(f"{path.name}.partial")


def append(stream: IO[bytes], lines: Sequence[Mapping[str, Any]]) -> int:
    """Write and make durable; the size of the file in bytes."""
    for line in lines:
        stream.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    stream.flush()
    os.fsync(stream.fileno())
    return os.fstat(stream.fileno()).st_size


def resume(files: Files, key: str) -> Progress:
    """Where an earlier run of the same key got to, if its files still hold that much."""
    try:
        held = Progress(**json.loads(files.progress.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return Progress(key)
    sizes = (_size(partial(files.out)), _size(partial(files.refused)))
    whole = sizes[0] >= held.out_bytes and sizes[1] >= held.refused_bytes
    return held if held.key == key and whole else Progress(key)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def save(path: Path, progress: Progress) -> None:
    """Note how far a run got, in one step."""
    growing = partial(path)
    growing.write_text(json.dumps(asdict(progress), sort_keys=True), encoding="utf-8")
    growing.replace(path)


def finish(files: Files, progress: Progress, rationale: bool) -> None:
    """Give the files their names, and take the mark that the run was under way.

    A table is written first, while all that it is made of is there: a run killed in the middle of
    it writes it again, and asks no visit again.
    """
    lines = files.out.suffix.lower() == ".jsonl"
    if not lines:
        write_table(partial(files.out), files.out, rationale)
    if progress.refused:
        partial(files.refused).replace(files.refused)
    else:
        partial(files.refused).unlink()
        files.refused.unlink(missing_ok=True)
    if lines:
        partial(files.out).replace(files.out)
    files.progress.unlink(missing_ok=True)
    partial(files.out).unlink(missing_ok=True)
