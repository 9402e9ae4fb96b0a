"""What a data steward asks of the ingested cases, as tables without a word of case text."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rarealert.cases.case import TEXT_FIELDS
from rarealert.cases.sources.diagnosis import names_diagnosis
from rarealert.cases.sources.refused import Refused

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, Any]


def per_case(rows: Sequence[Row]) -> "pd.DataFrame":
    """One row a case of ``cases.parquet``, which may break the contract of ``Case``.

    Columns: ``case_id``; ``visit_characters``; ``names_own_diagnosis``; ``code_agrees`` (a code
    exactly where the label is rare); ``disease_agrees`` (``disease_id`` of the kind that the label
    asks for).
    """
    import pandas as pd

    columns = (
        "case_id",
        "visit_characters",
        "names_own_diagnosis",
        "code_agrees",
        "disease_agrees",
    )
    return pd.DataFrame([_judged(row) for row in rows], columns=list(columns))


def _judged(row: Row) -> dict[str, object]:
    text = "\n".join(row[name] for name in TEXT_FIELDS if row[name])
    rare = row["label"] == "rare"
    prefix = "ORPHA:" if rare else "NAME:"
    return {
        "case_id": row["case_id"],
        "visit_characters": len(text.strip()),
        "names_own_diagnosis": names_diagnosis(text, [row["disease_name"] or ""]),
        "code_agrees": rare == (row["orpha_code"] is not None),
        "disease_agrees": (row["disease_id"] or "").startswith(prefix),
    }


def per_source(
    rows: Sequence[Row], refused: Sequence[Refused], sources: Sequence[str]
) -> "pd.DataFrame":
    """One row a source that was asked for, whether it gave cases or not.

    Columns: ``source``; ``rare`` and ``nonrare`` in cases; ``missing_age_share``, 0-1 of its
    cases; ``invalid_share``, 0-1 of its rows that were broken (not those left out on purpose).
    """
    import pandas as pd

    columns = ("source", "rare", "nonrare", "missing_age_share", "invalid_share")
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
    return {
        "source": source,
        "rare": sum(row["label"] == "rare" for row in rows),
        "nonrare": sum(row["label"] == "nonrare" for row in rows),
        "missing_age_share": missing / max(len(rows), 1),
        "invalid_share": invalid / max(len(rows) + len(refused), 1),
    }
