"""What a data steward asks of the ingested cases, as tables without a word of case text.

Drift of a corpus against the one pinned before it, by the population stability index.

A profile holds counts only. The first profile of a source is pinned and stays: comparing each
corpus with the last one would let it creep.
"""

import hashlib
import json
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rarealert.errors import BadInputError
from rarealert.visits.case import TEXT_FIELDS
from rarealert.visits.diagnosis import names_diagnosis
from rarealert.visits.refused import Refused

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, Any]

_HPO_ID = re.compile(r"HP:\d{7}")


def per_case(rows: Sequence[Row]) -> "pd.DataFrame":
    """One row a case of ``cases.parquet``, which may break the contract of ``Case``.

    Columns: ``case_id``; ``visit_characters``; ``names_own_diagnosis``; ``code_agrees`` (a code
    exactly where the label is rare); ``disease_agrees`` (``disease_id`` of the kind that the label
    asks for); ``head_agrees`` (no head without the label rare); ``findings_agree`` (HPO ids, none
    both present and excluded); ``text_has_both_labels`` (the same text stands elsewhere with the
    other label).
    """
    import pandas as pd

    columns = (
        "case_id",
        "visit_characters",
        "names_own_diagnosis",
        "code_agrees",
        "disease_agrees",
        "head_agrees",
        "findings_agree",
        "text_has_both_labels",
    )
    labels: dict[bytes, set[str]] = {}
    for row in rows:
        labels.setdefault(text_key(row), set()).add(str(row["label"]))
    table = [
        {**_judged(row), "text_has_both_labels": len(labels[text_key(row)]) > 1} for row in rows
    ]
    return pd.DataFrame(table, columns=list(columns))


def text_key(row: Row) -> bytes:
    """What two visits of the same wording share: case and white space do not count."""
    words = " ".join(row[name] for name in TEXT_FIELDS if row[name]).casefold().split()
    return hashlib.sha256(" ".join(words).encode()).digest()


def _judged(row: Row) -> dict[str, object]:
    text = "\n".join(row[name] for name in TEXT_FIELDS if row[name])
    rare = row["label"] == "rare"
    prefix = "ORPHA:" if rare else "NAME:"
    present, excluded = (set(row[f"findings_{kind}"] or ()) for kind in ("present", "excluded"))
    coded = all(_HPO_ID.fullmatch(str(finding)) for finding in present | excluded)
    return {
        "case_id": row["case_id"],
        "visit_characters": len(text.strip()),
        "names_own_diagnosis": names_diagnosis(text, [row["disease_name"] or ""]),
        "code_agrees": rare == (row["orpha_code"] is not None),
        "disease_agrees": (row["disease_id"] or "").startswith(prefix),
        "head_agrees": rare or row["orphanet_head"] is None,
        "findings_agree": coded and not present & excluded,
    }


def per_source(
    rows: Sequence[Row], refused: Sequence[Refused], sources: Sequence[str]
) -> "pd.DataFrame":
    """One row a source that was asked for, whether it gave cases or not.

    Columns: ``source``; ``rare`` and ``nonrare`` in cases; ``smaller_class_share``, 0-1 of its
    cases with the rarer label; ``head_share``, 0-1 of its rare cases with an Orphanet head, missing
    where the source names none; ``repeated_share``, 0-1 of its cases whose text an earlier one of
    it holds; ``missing_age_share``, 0-1 of its cases; ``invalid_share``, 0-1 of its rows that were
    broken (not those left out on purpose).
    """
    import pandas as pd

    columns = (
        "source",
        "rare",
        "nonrare",
        "smaller_class_share",
        "head_share",
        "repeated_share",
        "missing_age_share",
        "invalid_share",
    )
    table = [
        _summed(
            source,
            [row for row in rows if row["source"] == source],
            [item for item in refused if item.source == source],
        )
        for source in sources
    ]
    return pd.DataFrame(table, columns=list(columns))


def _summed(source: str, rows: Sequence[Row], refused: Sequence[Refused]) -> dict[str, object]:
    invalid = sum(item.kind == "invalid" for item in refused)
    missing = sum(row["age_years"] is None for row in rows)
    rare = sum(row["label"] == "rare" for row in rows)
    nonrare = sum(row["label"] == "nonrare" for row in rows)
    heads = sum(row["label"] == "rare" and row["orphanet_head"] is not None for row in rows)
    cases = max(len(rows), 1)
    return {
        "source": source,
        "rare": rare,
        "nonrare": nonrare,
        "smaller_class_share": min(rare, nonrare) / cases,
        "head_share": heads / rare if heads else None,
        "repeated_share": (len(rows) - len({text_key(row) for row in rows})) / cases,
        "missing_age_share": missing / cases,
        "invalid_share": invalid / max(len(rows) + len(refused), 1),
    }


Row_quality_drift = Mapping[str, Any]
Profile = dict[str, dict[str, int]]
"""Cases by quantity and category."""

_AGES = (2, 18, 40, 65)  # years; the bands that results are reported in
_WORDS = (25, 50, 100, 200, 400)  # words of a visit
_FINDINGS = (1, 3, 5, 9)  # coded findings of a visit
_CHANCE = 0.999  # quantile of what two samples of one population differ by
_SMOOTHING = 0.5  # cases added to every category, so that an empty one has a logarithm


def profiles(rows: Sequence[Row_quality_drift]) -> dict[str, Profile]:
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


def _categories(row: Row_quality_drift) -> dict[str, str]:
    texts = [row[name] for name in TEXT_FIELDS if row[name]]
    findings = row["findings_present"]
    return {
        "label": str(row["label"]),
        "head": str(row["orphanet_head"] or "none"),
        "sex": str(row["sex"] or "missing"),
        "age": _band(row["age_years"], _AGES),
        "words": _band(sum(len(text.split()) for text in texts), _WORDS),
        "filled fields": str(len(texts)),
        "findings": _band(None if findings is None else len(findings), _FINDINGS),
    }


def _band(value: float | None, edges: Sequence[int]) -> str:
    if value is None:
        return "missing"
    at = bisect_right(edges, value)
    return f"from {edges[at - 1]}" if at else f"below {edges[0]}"


def drift(pinned: Mapping[str, Profile], new: Mapping[str, Profile]) -> "pd.DataFrame":
    """One row a source and quantity that both profiles know.

    Columns: ``source``, ``quantity``, ``pinned`` and ``new`` cases, ``psi`` (population stability
    index; 0.1 to 0.25 is moderate, more is a shift), and ``shift``: the index where it is more
    than two samples of one population differ by in 999 of 1,000 draws, else 0.
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
    """The population stability index of two sets of counts, and what chance alone explains.

    Without drift the index times ``n·m / (n + m)`` follows a chi-squared distribution (Yurdakul
    2018, "Statistical properties of population stability index").
    """
    from math import log

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
    """Sha256 that names a set of profiles."""
    return hashlib.sha256(json.dumps(profile, sort_keys=True).encode()).hexdigest()


def read_pinned(path: Path) -> dict[str, Profile]:
    """The profiles pinned at ``path``; none where nothing is pinned yet.

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
            f"{path} is damaged; restore it with git checkout, or delete it to pin anew."
        ) from error
