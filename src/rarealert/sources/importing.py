"""Where cases come from: one adapter a kind of source, all with the same signature.

What an import copies: the files of each kind as they are published, and nothing else.

Bringing published files into ``data/``: all of them or none, and only what can be read.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rarealert.errors import BadInputError
from rarealert.files import write_text
from rarealert.sources import craftmd, fhir, medrbench, phenopackets, rows, table
from rarealert.sources.files import Tick, no_tick, read_text
from rarealert.sources.orphanet import LINEARISATION, load_disorders
from rarealert.visits.refused import Read, Reader, Refused

SOURCES: dict[str, Reader] = {
    "simulated": table.reader("simulated"),
    "craftmd": craftmd.read,
    "medrbench": medrbench.read,
    "phenopackets": phenopackets.read,
    "fhir": fhir.read,
    "table": table.reader("table"),
}
"""Every kind of source by its name, which is also its folder below ``data/``."""


def read_source(kind: str, folder: Path, tick: Tick = no_tick) -> Iterator[Read]:
    """Every row of ``folder`` as a labelled case or refused; of equal case ids the first is kept.

    ``tick`` is told how many bytes were read, from time to time.

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
        beside = path / table.FILE
        column_map = column_map or (beside if beside.is_file() else None)
    if column_map is not None:
        table.load_columns(column_map)
        _copy(column_map, staged / table.FILE)
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


@dataclass(frozen=True)
class ImportReport:
    """What an import brought: cases kept, and rows left out by kind of refusal."""

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
        where = f" ({self.refused_file} says which and why)" if self.refused_file else ""
        return (
            f"{self.folder}: {self.kept:,} cases kept{counts}{where}. "
            "Next: name it under ingest.sources in params.yaml, then dvc add data."
        )


def import_source(kind: str, path: Path, data: Path, columns: Path | None = None) -> ImportReport:
    """Copy the published files of ``kind`` from ``path`` into ``data/<kind>``.

    ``path`` is what was published: a folder, or for ``table``, ``phenopackets`` and ``fhir`` also
    a file or a zip. ``columns`` is the column map of a table. The copy is read through the
    adapter before it takes its place, so a failed import leaves ``data`` as it was. Rows that
    were left out are listed in ``build/import/<kind>/refused.jsonl`` beside ``data``: ``data``
    holds raw inputs only.

    Raises:
        BadInputError: the kind is unknown, a file is missing or corrupt, or no case can be read.
    """
    if kind not in KINDS:
        raise BadInputError(f"Unknown source {kind}; known are {', '.join(sorted(KINDS))}.")
    target, staged = data / kind, data / f".{kind}.partial"
    old = data / f".{kind}.old"
    if old.exists() and not target.exists():
        old.rename(target)  # an earlier import was killed between its two renames
    for left_over in (staged, old):
        shutil.rmtree(left_over, ignore_errors=True)
    copy = staged
    try:
        copy = copy_published(kind, path, staged, columns)
        report = _checked(kind, staged, target, data.parent / "build" / "import" / kind)
    except BaseException as error:
        shutil.rmtree(staged, ignore_errors=True)
        if not isinstance(error, BadInputError):
            raise
        # the user knows the file as it was given, not our copy of it
        raise BadInputError(str(error).replace(str(copy), str(path))) from error
    if target.exists():
        target.rename(old)
    staged.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    return report


def _checked(kind: str, staged: Path, target: Path, reports: Path) -> ImportReport:
    tables = "*.gz" if kind == "orphanet" else "teachers/*.gz"
    for archive in sorted(staged.glob(tables)):
        read_text(archive)
    if kind not in SOURCES:
        load_disorders(staged)
        return ImportReport(kind, target, 0, {}, None)
    kept, refused = _counted(kind, staged)
    if not kept:
        why = ""
        if refused:
            first = refused[0]
            why = f" (row {first.row}, {first.field}: {first.reason})"
        raise BadInputError(f"No case of {kind} could be read{why}; see docs/importing.md.")
    refused_file = reports / "refused.jsonl"
    write_refused(refused_file, refused)
    left_out = Counter[str](item.kind for item in refused)
    return ImportReport(kind, target, kept, left_out, refused_file if refused else None)


def _counted(kind: str, staged: Path) -> tuple[int, list[Refused]]:
    """Cases that can be read, and the refused rows, with a bar of bytes on a terminal."""
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


def write_refused(path: Path, refused: list[Refused]) -> None:
    """Write one JSON object a refused row; the file appears only once it is whole."""
    lines = (json.dumps(item.as_dict(), sort_keys=True) + "\n" for item in refused)
    write_text(path, "".join(lines))


def read_refused(path: Path) -> list[Refused]:
    """The rows that ``write_refused`` wrote.

    Raises:
        BadInputError: the file is missing or not such a file.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [Refused(**json.loads(line)) for line in lines]
    except FileNotFoundError as error:
        raise BadInputError(f"{path} is missing; run dvc repro ingest.") from error
    except (ValueError, TypeError) as error:
        raise BadInputError(f"{path} is damaged; delete it and run dvc repro ingest.") from error
