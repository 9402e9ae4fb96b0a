"""HPO, Orphanet, MONDO, disease profiles, labels, and finding recognition in free text."""

import csv
from importlib.resources import files


def packaged_rows(name: str, package: str = "rarealert.knowledge") -> list[dict[str, str]]:
    """Rows of the tab-separated table ``name`` that ``package`` ships."""
    text = files(package).joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines(), delimiter="\t"))
