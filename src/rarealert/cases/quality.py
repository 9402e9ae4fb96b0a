"""What a data steward asks of the ingested cases, as tables without a word of case text."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rarealert.cases.case import TEXT_FIELDS
from rarealert.cases.sources.diagnosis import names_diagnosis
from rarealert.cases.sources.refused import Refused

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
