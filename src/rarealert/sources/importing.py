"""Import published files into ``data/`` and read them: one reader for each kind of source.

An import copies the published files of its kind and nothing else, reads the copy, and replaces an
earlier import only if cases could be read.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rarealert.errors import BadInputError
from rarealert.knowledge.orphanet import LINEARISATION, load_names
from rarealert.sources import craftmd, fhir, medrbench, phenopackets, rows, table
from rarealert.sources.published_files import Tick, no_tick, read_text, walk
from rarealert.visits.case import LabelledCase
from rarealert.visits.refused import Refused, write_refused

Reader = Callable[[Path, Tick], Iterator[LabelledCase | Refused]]
"""Reads a folder of ``data/`` and calls the tick with the bytes read."""

SOURCES: dict[str, Reader] = {
    "simulated": partial(table.read, source="simulated"),
    "craftmd": craftmd.read,
    "medrbench": medrbench.read,
    "phenopackets": phenopackets.read,
    "fhir": fhir.read,
    "table": table.read,
}
"""The reader of each kind of source; the kind is also the name of its folder in ``data/``."""


def read_source(kind: str, folder: Path, tick: Tick = no_tick) -> Iterator[LabelledCase | Refused]:
    """Read every row of ``folder`` as a labelled case or refused; a repeated case id is refused.

    Args:
        kind: a key of ``SOURCES``.
        folder: the imported files.
        tick: called with the number of bytes read since its last call.

    Raises:
        BadInputError: ``kind`` is unknown, or a file can't be read at all.
    """
    if kind not in SOURCES:
        raise BadInputError(f"Unknown source {kind}; known are {', '.join(sorted(SOURCES))}.")
    if not folder.is_dir():
        raise BadInputError(f"{folder} is missing; {_how_to_get(kind)}.")
    seen: set[str] = set()
    for number, item in enumerate(SOURCES[kind](folder, tick), 1):
        if isinstance(item, Refused):
            yield item
        elif item.case.case_id in seen:
            yield Refused(kind, kind, number, "case_id", "duplicate case_id")
        else:
            seen.add(item.case.case_id)
            yield item


def _how_to_get(kind: str) -> str:
    if kind == "simulated":
        return "run rarealert data materialise (or dvc pull)"
    return f"run rarealert data import {kind} PATH"


_NAMED: Mapping[str, tuple[tuple[str, ...], str]] = {
    "craftmd": ((craftmd.VIGNETTES, craftmd.LABELS), "teachers/*.jsonl.gz"),
    "medrbench": ((medrbench.FILE,), "teachers/*.jsonl.gz"),
    "orphanet": ((LINEARISATION,), "*.csv.gz"),
}
"""Files that a kind must have, and a pattern of files that are copied where they exist."""

_BY_ENDING: Mapping[str, tuple[str, ...]] = {
    "fhir": (*fhir.SUFFIXES, ".zip"),
    "phenopackets": (*phenopackets.SUFFIXES, ".zip"),
}
_TABLES = ("simulated", "table")

KINDS = (*_NAMED, *_BY_ENDING, *_TABLES)
"""The kinds that ``rarealert data import`` accepts."""


def _copy_published(kind: str, path: Path, staged: Path, column_map: Path | None) -> Path:
    """Copy the files of ``kind`` from ``path`` into the new folder ``staged``.

    Returns the copy of ``path``: a file of ``staged`` where ``path`` is a file, else ``staged``.
    """
    if column_map is not None and kind != "table":
        raise BadInputError(f"A column map is for tables; leave --columns out for {kind}.")
    staged.mkdir(parents=True)
    if kind in _TABLES:
        return _copy_table(path, staged, column_map)
    if kind in _NAMED:
        _copy_named(kind, path, staged)
        return staged
    endings = _BY_ENDING[kind]
    if not path.is_file():
        _copy_tree(path, staged, endings)
        return staged
    if not path.name.lower().endswith(endings):
        raise BadInputError(f"{path} ends in none of {', '.join(endings)}; see docs/importing.md.")
    return _copy(path, staged / path.name)


def _copy_named(kind: str, path: Path, staged: Path) -> None:
    needed, optional = _NAMED[kind]
    for name in needed:
        if not (path / name).is_file():
            raise BadInputError(
                f"{path / name} is missing; give the folder with {kind}'s published files."
            )
    for item in sorted({*(path / name for name in needed), *path.glob(optional)}):
        _copy(item, staged / item.relative_to(path))


def _copy_table(path: Path, staged: Path, column_map: Path | None) -> Path:
    if path.is_file():
        ending = rows.KINDS.get(path.suffix.lower())
        if ending is None:
            raise BadInputError(f"{path} ends in none of {', '.join(rows.KINDS)}; export it so.")
        copy = _copy(path, staged / f"{table.NAME}{ending}")
    else:
        copy = staged
        file = table.table_file(path)
        _copy(file, staged / file.name)
        beside = path / table.FILE
        column_map = column_map or (beside if beside.is_file() else None)
    if column_map is not None:
        table.load_columns(column_map)
        _copy(column_map, staged / table.FILE)
    return copy


def _copy_tree(path: Path, staged: Path, endings: tuple[str, ...]) -> None:
    found = walk(path, endings)
    for item, _ in found:
        if item.is_symlink():
            # a folder from elsewhere must not bring in files of this machine
            raise BadInputError(f"{item} is a link; put the file itself there.")
        _copy(item, staged / item.relative_to(path))
    if not found:
        raise BadInputError(f"{path} contains no file that ends in {' or '.join(endings)}.")


def _copy(item: Path, copy: Path) -> Path:
    copy.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(item, copy))


@dataclass(frozen=True)
class ImportReport:
    """Outcome of an import: cases kept, and rows left out by kind of refusal."""

    kind: str
    folder: Path
    kept: int
    left_out: Mapping[str, int]
    refused_file: Path | None

    def sentence(self) -> str:
        """One line for the terminal, with what to do next."""
        if self.kind == "orphanet":
            return f"{self.folder}: Orphanet's tables. Next: dvc add data."
        counts = "".join(
            f", {count:,} {name.replace('_', ' ')}" for name, count in sorted(self.left_out.items())
        )
        where = f" (listed with reasons in {self.refused_file})" if self.refused_file else ""
        return (
            f"{self.folder}: {self.kept:,} cases kept{counts}{where}. "
            "Next: name it under ingest.sources in params.yaml, then dvc add data."
        )


def import_source(kind: str, path: Path, data: Path, columns: Path | None = None) -> ImportReport:
    """Copy the published files of ``kind`` into ``data/<kind>`` and count what can be read.

    The copy is read before it replaces an earlier import, so a failed import leaves ``data``
    unchanged. Rows left out are listed in ``build/import/<kind>/refused.jsonl`` beside ``data``,
    which contains raw inputs only.

    Args:
        kind: one of ``KINDS``.
        path: what was published: a folder, or for ``table``, ``phenopackets`` and ``fhir`` also a
            file or a zip.
        data: the folder of imported sources.
        columns: the column map of a table.

    Raises:
        BadInputError: the kind is unknown, a file is missing or corrupt, or no case can be read.
    """
    if kind not in KINDS:
        raise BadInputError(f"Unknown source {kind}; known are {', '.join(sorted(KINDS))}.")
    target, staged = data / kind, data / f".{kind}.partial"
    old = data / f".{kind}.old"
    if old.exists() and not target.exists():
        old.rename(target)  # an import was killed between its two renames
    for left_over in (staged, old):
        shutil.rmtree(left_over, ignore_errors=True)
    copy = staged
    try:
        copy = _copy_published(kind, path, staged, columns)
        report = _checked(kind, path, staged, target, data.parent / "build" / "import" / kind)
    except BaseException as error:
        shutil.rmtree(staged, ignore_errors=True)
        if not isinstance(error, BadInputError):
            raise
        # the user knows the given file, not our copy
        raise BadInputError(str(error).replace(str(copy), str(path))) from error
    if target.exists():
        target.rename(old)
    staged.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    return report


def _checked(kind: str, path: Path, staged: Path, target: Path, reports: Path) -> ImportReport:
    tables = "*.gz" if kind == "orphanet" else "teachers/*.gz"
    for archive in sorted(staged.glob(tables)):
        read_text(archive)
    if kind not in SOURCES:
        load_names(staged)
        return ImportReport(kind, target, 0, {}, None)
    kept, refused = _counted(kind, staged)
    if not kept:
        first = next((f" (row {x.row}, {x.field}: {x.reason})" for x in refused), "")
        raise BadInputError(
            f"{path}: no case of {kind} could be read{first}; see docs/importing.md."
        )
    refused_file = reports / "refused.jsonl"
    write_refused(refused_file, refused)
    left_out = Counter[str](item.kind for item in refused)
    return ImportReport(kind, target, kept, left_out, refused_file if refused else None)


def _counted(kind: str, staged: Path) -> tuple[int, list[Refused]]:
    """Count the cases and list the refused rows, with a progress bar on a terminal."""
    from tqdm import tqdm

    kept, refused = 0, list[Refused]()
    size = sum(file.stat().st_size for file in staged.rglob("*") if file.is_file())
    with tqdm(total=size, unit="B", unit_scale=True, desc=kind, disable=None) as bar:
        for item in read_source(kind, staged, bar.update):
            if isinstance(item, Refused):
                refused.append(item)
            else:
                kept += 1
            bar.set_postfix(kept=kept, refused=len(refused), refresh=False)
    return kept, refused
