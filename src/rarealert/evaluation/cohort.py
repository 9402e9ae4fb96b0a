"""The cohort: how rows became cases and parts, and the characteristics of the cases (table one)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rarealert.errors import BadInputError
from rarealert.evaluation.controls import MISSING_PREFIX
from rarealert.visits.case import TEXT_FIELDS, LabelledCase
from rarealert.visits.reading import render

if TYPE_CHECKING:
    import pandas as pd

LABELS = {True: "rare", False: "nonrare"}


def cohort(cases: Mapping[str, Sequence[LabelledCase]], ingest: Path) -> dict[str, Any]:
    """The participant flow (``flow``) and ``table_one`` of the cases of all parts.

    ``ingest`` is ``reports/ingest/summary.json``.

    Raises:
        BadInputError: ``ingest`` is missing or damaged.
    """
    import pandas as pd

    rows = [
        {
            "part": part,
            "rare": item.label.label == "rare",
            "disease": item.label.disease_id,
            "source": item.case.source,
            "age_years": item.case.age_years,
            "sex": item.case.sex,
            "words": len(render(item.case).split()),
            **{f"{MISSING_PREFIX}{name}": getattr(item.case, name) is None for name in TEXT_FIELDS},
        }
        for part, of_part in cases.items()
        for item in of_part
    ]
    frame = pd.DataFrame(rows).astype({"age_years": float, "words": float})
    try:
        read = json.loads(ingest.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInputError(f"{ingest} can't be read; run dvc repro ingest.") from error
    return {"flow": _flow(read, frame), "table_one": _table_one(frame)}


def _flow(ingest: Mapping[str, Any], frame: "pd.DataFrame") -> dict[str, Any]:
    """Rows read, rows left out by reason, cases, and the labels of each part by source."""
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


def _table_one(frame: "pd.DataFrame") -> dict[str, dict[str, Any]]:
    """Characteristics of the cases by part and label."""
    return {
        str(part): {
            name: _characteristics(of_part[of_part["rare"] == rare])
            for rare, name in LABELS.items()
        }
        for part, of_part in frame.groupby("part", sort=False)
    }


def _characteristics(cases: "pd.DataFrame") -> dict[str, Any]:
    """Quartiles of age (years) and length (words), counts of sexes and of missing fields."""
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
