"""HPO, Orphanet, MONDO, disease profiles, labels, and finding recognition in free text."""

import csv
from importlib.resources import files


def packaged_rows(name: str, package: str = "rarealert.knowledge") -> list[dict[str, str]]:
    """Rows of the tab-separated table ``name`` that ``package`` ships.

    A folder is one table in several files with the same columns, in the order of their names.
    """
    table = files(package).joinpath(name)
    parts = sorted(table.iterdir(), key=lambda part: part.name) if table.is_dir() else [table]
    return [
        row
        for part in parts
        for row in csv.DictReader(part.read_text(encoding="utf-8").splitlines(), delimiter="\t")
    ]
