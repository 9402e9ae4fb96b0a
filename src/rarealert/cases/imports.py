"""Bringing published files into ``data/``: all of them or none, and only what can be read."""

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rarealert.cases.sources import SOURCES, craftmd, medrbench, read_source, table
from rarealert.cases.sources.files import read_text
from rarealert.cases.sources.orphanet import LINEARISATION, load_disorders
from rarealert.cases.sources.refused import Refused
from rarealert.errors import BadInputError

_TABLE_KINDS = ("simulated", "table")


@dataclass(frozen=True)
class _Published:
    """The files of a kind: names it needs, and patterns of what else is copied when there."""

    needed: tuple[str, ...]
    optional: tuple[str, ...] = ()


_FILES: Mapping[str, _Published] = {
    "craftmd": _Published((craftmd.VIGNETTES, craftmd.LABELS), ("teachers/*.jsonl.gz",)),
    "medrbench": _Published((medrbench.FILE,), ("teachers/*.jsonl.gz",)),
    "orphanet": _Published((LINEARISATION,), ("*.csv.gz",)),
    "simulated": _Published((table.FILE,)),
    "table": _Published((table.FILE,)),
}


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


def import_source(kind: str, path: Path, data: Path) -> ImportReport:
    """Copy the published files of ``kind`` from ``path`` into ``data/<kind>``.

    ``path`` is the folder as published; for ``table`` it may be the JSONL file itself. The copy is
    read through the adapter before it takes its place, so a failed import leaves ``data`` as it
    was. Rows that were left out are listed in ``build/import/<kind>/refused.jsonl`` beside
    ``data``: ``data`` holds raw inputs only.

    Raises:
        BadInputError: the kind is unknown, a file is missing or corrupt, or no case can be read.
    """
    if kind not in _FILES:
        raise BadInputError(f"Unknown source {kind}; known are {', '.join(sorted(_FILES))}.")
    target, staged = data / kind, data / f".{kind}.partial"
    old = data / f".{kind}.old"
    if old.exists() and not target.exists():
        old.rename(target)  # an earlier import was killed between its two renames
    for left_over in (staged, old):
        shutil.rmtree(left_over, ignore_errors=True)
    try:
        _copy(kind, path, staged)
        report = _checked(kind, staged, target, data.parent / "build" / "import" / kind)
    except BaseException as error:
        shutil.rmtree(staged, ignore_errors=True)
        if not isinstance(error, BadInputError):
            raise
        # the user knows the file as it was given, not our copy of it
        copy = staged / table.FILE if path.is_file() else staged
        raise BadInputError(str(error).replace(str(copy), str(path))) from error
    if target.exists():
        target.rename(old)
    staged.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    return report


def _copy(kind: str, path: Path, staged: Path) -> None:
    published = _FILES[kind]
    staged.mkdir(parents=True)
    if kind in _TABLE_KINDS and path.is_file():
        shutil.copyfile(path, staged / table.FILE)
        return
    for name in published.needed:
        if not (path / name).is_file():
            raise BadInputError(
                f"{path / name} is missing; give the folder that holds {kind}'s published files."
            )
    found = {path / name for name in published.needed}
    found.update(item for pattern in published.optional for item in path.glob(pattern))
    for item in sorted(found):
        copy = staged / item.relative_to(path)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(item, copy)


def _checked(kind: str, staged: Path, target: Path, reports: Path) -> ImportReport:
    for archive in sorted(staged.glob("teachers/*.gz")):
        read_text(archive)
    if kind not in SOURCES:
        load_disorders(staged)
        return ImportReport(kind, target, 0, {}, None)
    kept, refused = 0, []
    for item in read_source(kind, staged):
        if isinstance(item, Refused):
            refused.append(item)
        else:
            kept += 1
    if not kept:
        why = f" (row {refused[0].row}: {refused[0].reason})" if refused else ""
        raise BadInputError(f"No case of {kind} could be read{why}; give its published files.")
    refused_file = reports / "refused.jsonl"
    write_refused(refused_file, refused)
    left_out = Counter[str](item.kind for item in refused)
    return ImportReport(kind, target, kept, left_out, refused_file if refused else None)


def write_refused(path: Path, refused: list[Refused]) -> None:
    """Write one JSON object a refused row; the file appears only once it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    lines = (json.dumps(item.as_dict(), sort_keys=True) + "\n" for item in refused)
    partial.write_text("".join(lines), encoding="utf-8")
    partial.replace(path)


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
