"""Orphadata's tables, as published and gzipped: the one source of prevalence classes."""

import csv
import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rarealert.errors import BadInputError
from rarealert.knowledge.heads import HEADS

_LINEARISATION = "linearisation_of_rare_diseases.csv.gz"
_EPIDEMIOLOGY = "epidemiology_of_rare_diseases.csv.gz"
_HISTORY = "natural_history_of_rare_diseases.csv.gz"
_COMMON_CLASSES = frozenset((">1 / 1000", "6-9 / 10 000"))
_POPULATION_MEASURES = frozenset(("Point prevalence", "Prevalence at birth"))
_GROUP = "Group of disorders"


@dataclass(frozen=True, slots=True)
class Disorder:
    """An active Orphanet disorder; ``head`` is ``None`` where neither table nor rule says it.

    ``head_derived`` marks a head that a rule gave (``derived_heads``), not Orphanet. ``common``
    marks a disorder whose prevalence is above Europe's bound for a rare disease, 5 in 10,000: it
    is in Orphanet, but not rare.
    """

    orpha_code: str
    name: str
    head: str | None = None
    common: bool = False
    head_derived: bool = False


@dataclass(frozen=True, slots=True)
class Nomenclature:
    """Disorders, the codes of groups of them, and the codes whose kind nothing states.

    ``complete`` where every active disorder is among them: another code has been withdrawn.
    """

    disorders: tuple[Disorder, ...]
    groups: frozenset[str]
    doubtful: frozenset[str]
    complete: bool


def read_tables(folder: Path) -> Nomenclature:
    """What the three tables of ``folder`` say.

    The linearisation table mixes groups in; those that the other tables name are told apart.

    Raises:
        BadInputError: a table is missing or is not what Orphadata publishes.
    """
    disorders: dict[str, Disorder] = {}
    for row in _rows(folder / _LINEARISATION, ("orpha_code", "name", "target_disorder_code")):
        if row["target_disorder_code"] and not row["name"].startswith("Rare "):
            head = HEADS.get(f"ORPHA:{row['target_disorder_code']}")
            code = f"ORPHA:{row['orpha_code']}"
            disorders.setdefault(code, Disorder(code, row["name"], head))
    kinds: dict[str, str] = {}
    for row in _rows(folder / _HISTORY, ("orpha_code", "disorder_group")):
        kinds[f"ORPHA:{row['orpha_code']}"] = row["disorder_group"]
    wanted = ("orpha_code", "disorder_group", "prevalence_type", "prevalence_class")
    for row in _rows(folder / _EPIDEMIOLOGY, wanted):
        code = f"ORPHA:{row['orpha_code']}"
        kinds[code] = row["disorder_group"]
        if code in disorders and _is_common(row):
            disorders[code] = replace(disorders[code], common=True)
    kept = tuple(d for d in disorders.values() if kinds.get(d.orpha_code) != _GROUP)
    return Nomenclature(
        kept,
        groups=frozenset(code for code, kind in kinds.items() if kind == _GROUP),
        doubtful=frozenset(d.orpha_code for d in kept if d.orpha_code not in kinds),
        complete=True,
    )


def _is_common(row: Mapping[str, str]) -> bool:
    return (
        row["prevalence_class"] in _COMMON_CLASSES
        and row["prevalence_type"] in _POPULATION_MEASURES
    )


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise BadInputError(
                    f"{path}: column {missing[0]} is missing; export the table again."
                )
            yield from reader
    except FileNotFoundError as error:
        raise BadInputError(f"{path} is missing; put Orphadata's tables there.") from error
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise BadInputError(
            f"{path} is not a readable gzip CSV; export the table from Orphadata again."
        ) from error
