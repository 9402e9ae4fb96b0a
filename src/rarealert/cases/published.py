"""What an import copies: the files of each kind as they are published, and nothing else."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rarealert.cases.sources import columns, craftmd, fhir, medrbench, phenopackets, rows, table
from rarealert.cases.sources.orphanet import LINEARISATION
from rarealert.errors import BadInputError


@dataclass(frozen=True)
class _Named:
    """A kind of fixed names: those it needs, and patterns of what else is copied when there."""

    needed: tuple[str, ...]
    optional: tuple[str, ...] = ()


_NAMED: Mapping[str, _Named] = {
    "craftmd": _Named((craftmd.VIGNETTES, craftmd.LABELS), ("teachers/*.jsonl.gz",)),
    "medrbench": _Named((medrbench.FILE,), ("teachers/*.jsonl.gz",)),
    "orphanet": _Named((LINEARISATION,), ("*.csv.gz",)),
}
_LOOSE: Mapping[str, tuple[str, ...]] = {
    "fhir": (*fhir.SUFFIXES, ".zip"),
    "phenopackets": (*phenopackets.SUFFIXES, ".zip"),
}
_TABLES = ("simulated", "table")

KINDS = (*_NAMED, *_LOOSE, *_TABLES)
"""Everything that ``rarealert data import`` takes."""


def copy_published(kind: str, path: Path, staged: Path, column_map: Path | None) -> Path:
    """Copy the files of ``kind`` from ``path`` into the new folder ``staged``.

    Returns the copy of ``path``: a file of ``staged`` where ``path`` is a file, else ``staged``.

    Raises:
        BadInputError: a file is missing, is a link, or is of a kind that is not read.
    """
    if column_map is not None and kind != "table":
        raise BadInputError(f"A column map is for tables; leave --columns out for {kind}.")
    staged.mkdir(parents=True)
    if kind in _TABLES:
        return _copy_table(path, staged, column_map)
    if kind in _LOOSE:
        return _copy_loose(kind, path, staged)
    named = _NAMED[kind]
    for name in named.needed:
        if not (path / name).is_file():
            raise BadInputError(
                f"{path / name} is missing; give the folder that holds {kind}'s published files."
            )
    found = {path / name for name in named.needed}
    found.update(item for pattern in named.optional for item in path.glob(pattern))
    for item in sorted(found):
        _copy(item, staged / item.relative_to(path))
    return staged


def _copy_table(path: Path, staged: Path, column_map: Path | None) -> Path:
    if path.is_file():
        ending = rows.KINDS.get(path.suffix.lower())
        if ending is None:
            raise BadInputError(f"{path} ends in none of {', '.join(rows.KINDS)}; export it so.")
        copy = staged / f"{table.NAME}{ending}"
        _copy(path, copy)
    else:
        copy = staged
        file = table.table_file(path)
        _copy(file, staged / file.name)
        beside = path / columns.FILE
        column_map = column_map or (beside if beside.is_file() else None)
    if column_map is not None:
        columns.load_columns(column_map)
        _copy(column_map, staged / columns.FILE)
    return copy


def _copy_loose(kind: str, path: Path, staged: Path) -> Path:
    endings = _LOOSE[kind]
    if path.is_file():
        if not path.name.lower().endswith(endings):
            raise BadInputError(f"{path} ends in none of {', '.join(endings)}; see the docs.")
        _copy(path, staged / path.name)
        return staged / path.name
    copied = 0
    for folder, below, names in os.walk(path):
        below[:] = [name for name in below if not name.startswith(".")]
        for name in names:
            if name.lower().endswith(endings) and not name.startswith("."):
                if (Path(folder) / name).is_symlink():
                    # a folder from elsewhere must not bring in files of this machine
                    raise BadInputError(
                        f"{Path(folder) / name} is a link; put the file itself there."
                    )
                _copy(Path(folder) / name, staged / (Path(folder) / name).relative_to(path))
                copied += 1
    if not copied:
        raise BadInputError(f"{path} holds no file that ends in {' or '.join(endings)}.")
    return staged


def _copy(item: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(item, copy)
