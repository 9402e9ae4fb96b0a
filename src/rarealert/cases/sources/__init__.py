"""Where cases come from: one adapter a kind of source, all with the same signature."""

from collections.abc import Iterator
from pathlib import Path

from rarealert.cases.sources import craftmd, fhir, medrbench, phenopackets, table
from rarealert.cases.sources.files import Tick, no_tick
from rarealert.cases.sources.refused import Read, Reader, Refused
from rarealert.errors import BadInputError

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
