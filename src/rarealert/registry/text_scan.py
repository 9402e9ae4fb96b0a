"""Search tracked artifacts for text of cases: eight words in a row are taken as a quotation.

The same length is customary where a test set is searched for in training text (GPT-2's 8-grams:
Radford et al., 2019, section 4).
"""

import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path

from rarealert.registry.judged import TextScan
from rarealert.splits.leakage import shingles

WORDS = 8
_WORD = re.compile(r"[^\W_]+")


def runs_of_words(texts: Iterable[str]) -> frozenset[int]:
    """Hashes of all runs of eight words, without regard to case and punctuation."""
    return frozenset(value for text in texts for value in _runs(text))


def scan(folders: Mapping[str, Path], wanted: frozenset[int], known: Iterable[Path]) -> TextScan:
    """Search every file below ``folders`` (shown name → folder).

    ``known`` are folders whose files may hold such runs by right: the package's own sources
    and tables are public, and simulated cases are made of their words. A file counts as theirs
    only if its bytes are the same.
    """
    public = {_digest(path) for folder in known for path in _files(folder)}
    hits: dict[str, int] = {}
    files = 0
    for shown, folder in sorted(folders.items()):
        for path in _files(folder):
            files += 1
            found = 0 if _digest(path) in public else _count(path, wanted)
            if found:
                hits[f"{shown}/{path.relative_to(folder).as_posix()}"] = found
    return TextScan(files, hits)


def _count(path: Path, wanted: frozenset[int]) -> int:
    return len({value for text in _texts(path) for value in _runs(text) if value in wanted})


def _runs(text: str) -> Iterator[int]:
    words = _WORD.findall(text.lower())
    if len(words) >= WORDS:
        yield from shingles(words, WORDS).tolist()


def _texts(path: Path) -> Iterator[str]:
    """What a file says: Parquet by its columns, archives by their members, others as they are."""
    if path.suffix == ".parquet":
        yield from _columns(path)
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                yield archive.read(name).decode("utf-8", errors="replace")
    else:
        text = path.read_bytes().decode("utf-8", errors="replace")
        yield text
        if "\\" in text:  # JSON hides line breaks and letters behind escapes that join words
            yield re.sub(r"\\[ntr]", " ", text)


def _columns(path: Path) -> Iterator[str]:
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(path).iter_batches():
        yield "\n".join(str(value) for row in batch.to_pylist() for value in row.values())


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()
