"""Who was studied: how rows became cases and parts, and what the cases look like (table one)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

LABELS = {True: "rare", False: "nonrare"}
COLUMNS = ("part", "rare", "disease", "source", "age_years", "sex", "words")
"""What ``table_one`` needs of each case, beside ``missing_<field>`` flags."""

MISSING_PREFIX = "missing_"


def table_one(frame: "pd.DataFrame") -> dict[str, dict[str, Any]]:
    """Characteristics of the cases by part and label: ``{part: {"rare" | "nonrare": {...}}}``.

    Medians with quartiles of age (years) and length (words), counts of sex, and how many cases
    lack each field. ``frame`` has the columns ``COLUMNS`` and ``missing_<field>``.
    """
    return {
        str(part): {
            name: _described(of_part[of_part["rare"] == rare]) for rare, name in LABELS.items()
        }
        for part, of_part in frame.groupby("part", sort=False)
    }


def flow(ingest: Mapping[str, Any], frame: "pd.DataFrame") -> dict[str, Any]:
    """The participant flow: rows read, left out by reason, cases, and their parts by source.

    ``ingest`` is ``reports/ingest/summary.json``; ``frame`` is that of ``table_one``.
    """
    left_out: dict[str, int] = {}
    for of_source in ingest["sources"].values():
        for reasons in of_source["left_out"].values():
            for reason, count in reasons.items():
                named = reason.partition(": ")[2] or reason
                left_out[named] = left_out.get(named, 0) + int(count)
    parts = {
        str(part): {
            str(source): {
                name: int((of_source["rare"] == rare).sum()) for rare, name in LABELS.items()
            }
            for source, of_source in of_part.groupby("source")
        }
        for part, of_part in frame.groupby("part", sort=False)
    }
    return {
        "read": int(ingest["cases"]) + int(ingest["left_out"]),
        "left_out": dict(sorted(left_out.items(), key=lambda item: (-item[1], item[0]))),
        "cases": int(ingest["cases"]),
        "parts": parts,
    }


def _described(cases: "pd.DataFrame") -> dict[str, Any]:
    flags = sorted(name for name in cases.columns if name.startswith(MISSING_PREFIX))
    return {
        "n": len(cases),
        "diseases": int(cases["disease"].nunique()),
        "sources": {str(name): int(n) for name, n in cases["source"].value_counts().items()},
        "age_years": _quartiles(cases["age_years"]),
        "sex": {
            "female": int((cases["sex"] == "female").sum()),
            "male": int((cases["sex"] == "male").sum()),
            "unknown": int(cases["sex"].isna().sum()),
        },
        "words": _quartiles(cases["words"]),
        "missing": {name.removeprefix(MISSING_PREFIX): int(cases[name].sum()) for name in flags},
    }


def _quartiles(values: "pd.Series[float]") -> dict[str, float | int | None]:
    known = values.dropna()
    if known.empty:
        return {"q1": None, "median": None, "q3": None, "unknown": len(values)}
    q1, median, q3 = (round(float(value), 2) for value in known.quantile([0.25, 0.5, 0.75]))
    return {"q1": q1, "median": median, "q3": q3, "unknown": len(values) - len(known)}
