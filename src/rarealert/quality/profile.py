"""Profiles of a corpus as counts, and drift between two of them by the population stability index.

The first profile of a source is pinned and kept: a comparison with the previous corpus would let
the corpora change step by step without a warning.
"""

import hashlib
import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from math import log
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rarealert.errors import BadInputError
from rarealert.visits.case import TEXT_FIELDS
from rarealert.visits.demographics import AGE_EDGES

if TYPE_CHECKING:
    import pandas as pd

Profile = dict[str, dict[str, int]]
"""Cases by quantity and category."""

_WORDS = (25, 50, 100, 200, 400)  # words of a visit
_FINDINGS = (1, 3, 5, 9)  # coded findings of a visit
_CHANCE = 0.999  # quantile of the difference between two samples of one population
_SMOOTHING = 0.5  # cases added to every category, so that an empty one has a logarithm


def profiles(rows: Sequence[Mapping[str, Any]]) -> dict[str, Profile]:
    """The profile of each source: label, head, sex, age, length, filled fields and findings."""
    found: dict[str, dict[str, Counter[str]]] = {}
    for row in rows:
        of_source = found.setdefault(str(row["source"]), {})
        for quantity, category in _categories(row).items():
            of_source.setdefault(quantity, Counter())[category] += 1
    return {
        source: {quantity: dict(sorted(counts.items())) for quantity, counts in profile.items()}
        for source, profile in sorted(found.items())
    }


def _categories(row: Mapping[str, Any]) -> dict[str, str]:
    texts = [row[name] for name in TEXT_FIELDS if row[name]]
    findings = row["findings_present"]
    return {
        "label": str(row["label"]),
        "head": str(row["orphanet_head"] or "none"),
        "sex": str(row["sex"] or "missing"),
        "age": band(row["age_years"], AGE_EDGES),
        "words": band(sum(len(text.split()) for text in texts), _WORDS),
        "filled fields": str(len(texts)),
        "findings": band(None if findings is None else len(findings), _FINDINGS),
    }


def band(value: float | None, edges: Sequence[float]) -> str:
    """The interval of ascending ``edges`` that holds ``value``, as "below 2" or "from 2"."""
    if value is None:
        return "missing"
    at = bisect_right(edges, value)
    return f"from {edges[at - 1]:g}" if at else f"below {edges[0]:g}"


def drift(pinned: Mapping[str, Profile], new: Mapping[str, Profile]) -> "pd.DataFrame":
    """One row for each source and quantity in both profiles.

    Columns: ``source``, ``quantity``, ``pinned`` and ``new`` cases, ``psi`` (population stability
    index; 0.1 to 0.25 is moderate, more is a shift), and ``shift``: the index if it exceeds the
    difference between two samples of one population in 999 of 1,000 draws, else 0.
    """
    import pandas as pd

    columns = ("source", "quantity", "pinned", "new", "psi", "shift")
    rows = []
    for source in sorted(pinned.keys() & new.keys()):
        for quantity in sorted(pinned[source].keys() & new[source].keys()):
            before, after = pinned[source][quantity], new[source][quantity]
            index, chance = stability_index(before, after)
            shift = index if index > chance else 0.0
            sizes = sum(before.values()), sum(after.values())
            rows.append((source, quantity, *sizes, round(index, 6), round(shift, 6)))
    return pd.DataFrame(rows, columns=list(columns))


def stability_index(before: Mapping[str, int], after: Mapping[str, int]) -> tuple[float, float]:
    """The population stability index of two sets of counts, and the index that chance explains.

    Without drift the index times ``n·m / (n + m)`` follows a chi-squared distribution (Yurdakul
    2018, "Statistical properties of population stability index").
    """
    from scipy.stats import chi2

    categories = sorted(before.keys() | after.keys())
    totals = [sum(counts.values()) + _SMOOTHING * len(categories) for counts in (before, after)]
    index = 0.0
    for category in categories:
        old = (before.get(category, 0) + _SMOOTHING) / totals[0]
        now = (after.get(category, 0) + _SMOOTHING) / totals[1]
        index += (now - old) * log(now / old)
    freedom = max(len(categories) - 1, 1)
    chance = float(chi2.ppf(_CHANCE, freedom)) * (1 / totals[0] + 1 / totals[1])
    return index, chance


def digest(profile: Mapping[str, Profile]) -> str:
    """Sha256 that identifies a set of profiles."""
    return hashlib.sha256(json.dumps(profile, sort_keys=True).encode()).hexdigest()


def read_pinned(path: Path) -> dict[str, Profile]:
    """Read the pinned profiles; none if the file does not exist.

    Raises:
        BadInputError: the file is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return dict(content["profiles"])
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise BadInputError(
            f"{path} is damaged. Restore it with git checkout, or delete it to pin again."
        ) from error
