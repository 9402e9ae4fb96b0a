"""Search tracked artifacts for case text: eight consecutive words count as a quotation.

The same length is customary in searches for test data in training text (GPT-2's 8-grams: Radford
et al., 2019, section 4). Words are compared without case and punctuation.
"""

import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from rarealert.files import sha256_of_file
from rarealert.registry.identity import files_below
from rarealert.registry.judged import TextScan
from rarealert.splits.leakage import hashed_runs

WORDS = 8
_WORD = re.compile(r"[^\W_]+")


def runs_of_words(texts: Iterable[str]) -> frozenset[int]:
    """Return hashes of all runs of eight words."""
    return frozenset(value for text in texts for value in _runs(text))


def scan(folders: Mapping[str, Path], wanted: frozenset[int], known: Iterable[Path]) -> TextScan:
    """Search every file below ``folders`` (name in the report → folder) for the hashes ``wanted``.

    Files that are byte for byte the same as one below ``known`` are not searched: the package's
    own sources and tables are public, and simulated cases are made of their words.
    """
    public = {sha256_of_file(path) for folder in known for path in files_below(folder)}
    hits: dict[str, int] = {}
    files = 0
    for shown, folder in sorted(folders.items()):
        for path in sorted(files_below(folder)):
            files += 1
            found = 0 if sha256_of_file(path) in public else _count(path, wanted)
            if found:
                hits[f"{shown}/{path.relative_to(folder).as_posix()}"] = found
    return TextScan(files, hits)


def _count(path: Path, wanted: frozenset[int]) -> int:
    return len({value for text in _texts(path) for value in _runs(text) if value in wanted})


def _runs(text: str) -> Iterator[int]:
    words = _WORD.findall(text.lower())
    if len(words) >= WORDS:
        yield from hashed_runs(words, WORDS, hash).tolist()


def _texts(path: Path) -> Iterator[str]:
    """Yield a file's text: Parquet by its columns, archives by their members, others whole."""
    if path.suffix == ".parquet":
        yield from _columns(path)
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                yield archive.read(name).decode("utf-8", errors="replace")
    else:
        text = path.read_bytes().decode("utf-8", errors="replace")
        yield text
        if "\\" in text:  # escapes of line breaks in JSON join words
            yield re.sub(r"\\[ntr]", " ", text)


def _columns(path: Path) -> Iterator[str]:
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(path).iter_batches():
        yield "\n".join(str(value) for row in batch.to_pylist() for value in row.values())
