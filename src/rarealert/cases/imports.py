"""Bringing published files into ``data/``: all of them or none, and only what can be read."""

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rarealert.cases.published import KINDS, copy_published
from rarealert.cases.sources import SOURCES, read_source
from rarealert.cases.sources.files import read_text
from rarealert.cases.sources.orphanet import load_disorders
from rarealert.cases.sources.refused import Refused
from rarealert.errors import BadInputError
from rarealert.files import write_text


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
