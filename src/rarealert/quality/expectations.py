"""Expectations on the ingested cases, and the tables of counts and flags that they are checked on.

No table holds case text except ``CASES``, the ingested file itself.
"""

import hashlib
import importlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rarealert.knowledge.heads import HEADS
from rarealert.params import ValidateParams
from rarealert.visits.case import TEXT_FIELDS
from rarealert.visits.diagnosis import names_diagnosis
from rarealert.visits.refused import Refused
from rarealert.visits.store import SCHEMA

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, Any]

CASES, PER_CASE, PER_SOURCE = "Columns of every case", "Each case", "Each source"
DRIFT = "Drift against the pinned corpus"
_HPO_ID = re.compile(r"HP:\d{7}")


def suites(settings: ValidateParams, sources: Sequence[str]) -> dict[str, list[Any]]:
    """Expectations by table, each with a ``title`` in its ``meta``."""
    return {
        CASES: _of_columns(sources),
        PER_CASE: _of_cases(),
        PER_SOURCE: _of_sources(settings),
        DRIFT: [
            _between(
                "shift",
                f"no quantity drifts by a stability index above {settings.max_psi:g}",
                0,
                settings.max_psi,
            )
        ],
    }


def _expectation(kind: str, title: str, **arguments: object) -> Any:
    # imported by name: Great Expectations re-exports its classes without declaring it
    gxe = importlib.import_module("great_expectations.expectations")
    return getattr(gxe, f"Expect{kind}")(**arguments, meta={"title": title})


def _between(column: str, title: str, low: float, high: float | None = None) -> Any:
    return _expectation(
        "ColumnValuesToBeBetween", title, column=column, min_value=low, max_value=high
    )


def _in_set(column: str, title: str, *values: object) -> Any:
    return _expectation("ColumnValuesToBeInSet", title, column=column, value_set=list(values))


def _of_columns(sources: Sequence[str]) -> list[Any]:
    """Schema, identity, ranges and vocabularies of the ingested file."""
    filled = ("case_id", "source", "label", "disease_id", "disease_name", "reason")
    return [
        _expectation(
            "TableColumnsToMatchOrderedList",
            "the columns are those of the case schema",
            column_list=SCHEMA.names,
        ),
        *(
            _expectation("ColumnValuesToNotBeNull", f"{name} is never missing", column=name)
            for name in filled
        ),
        _expectation("ColumnValuesToBeUnique", "case_id is unique", column="case_id"),
        _in_set("source", "source is one of ingest.sources", *sources),
        _between("age_years", "age_years is between 0 and 120 years", 0, 120),
        _in_set("sex", "sex is female or male", "female", "male"),
        _in_set("label", "label is rare or nonrare", "rare", "nonrare"),
        _expectation(
            "ColumnValuesToMatchRegex",
            "orpha_code looks like ORPHA:<number>",
            column="orpha_code",
            regex=r"^ORPHA:\d+$",
        ),
        _in_set("orphanet_head", "orphanet_head is one of Orphanet's 33", *sorted(HEADS.values())),
    ]


def _of_cases() -> list[Any]:
    """Agreement between the fields of one case."""
    return [
        _between("visit_characters", "every visit has text", 1),
        _in_set("names_own_diagnosis", "no visit names its own diagnosis", False),
        _in_set("code_agrees", "orpha_code is given exactly where the label is rare", True),
        _in_set("disease_agrees", "disease_id is an ORPHA code exactly where it is rare", True),
        _in_set("head_agrees", "no case that is not rare has an orphanet_head", True),
        _in_set("findings_agree", "findings are HPO ids, none both present and excluded", True),
        _in_set("text_has_both_labels", "no text has both labels", False),
    ]


def _of_sources(settings: ValidateParams) -> list[Any]:
    """What a source needs to be worth learning from."""
    least, share = settings.min_cases_per_label, settings.min_class_share
    head, repeated = settings.min_head_share, settings.max_repeated_share
    no_age, broken = settings.max_missing_age_share, settings.max_refused_share
    return [
        *(
            _between(label, f"every source has at least {least} {label} cases", least)
            for label in ("rare", "nonrare")
        ),
        _between("smaller_class_share", f"each label is at least {share:g} of every source", share),
        _between(
            "head_share", f"a source that names heads does so for {head:g} of rare cases", head
        ),
        _between(
            "repeated_share",
            f"at most {repeated:g} of a source's texts are repeated",
            0,
            repeated,
        ),
        _between(
            "missing_age_share", f"age is missing in at most {no_age:g} of a source", 0, no_age
        ),
        _between("invalid_share", f"at most {broken:g} of a source's rows are broken", 0, broken),
    ]


def per_case(rows: Sequence[Row]) -> "pd.DataFrame":
    """One row for each row of ``cases.parquet``, which may break the contract of ``Case``.

    Columns: ``case_id``; ``visit_characters``; ``names_own_diagnosis``; ``code_agrees`` (a code
    exactly where the label is rare); ``disease_agrees`` (``disease_id`` of the kind that the label
    requires); ``head_agrees`` (no head unless the label is rare); ``findings_agree`` (HPO ids, none
    both present and excluded); ``text_has_both_labels`` (another row has the same text and the
    other label).
    """
    import pandas as pd

    labels: dict[bytes, set[str]] = {}
    for row in rows:
        labels.setdefault(_text_key(row), set()).add(str(row["label"]))
    return pd.DataFrame([_case_flags(row, len(labels[_text_key(row)]) > 1) for row in rows])


def _case_flags(row: Row, text_has_both_labels: bool) -> dict[str, object]:
    text = "\n".join(row[name] for name in TEXT_FIELDS if row[name])
    rare = row["label"] == "rare"
    present, excluded = (set(row[f"findings_{kind}"] or ()) for kind in ("present", "excluded"))
    coded = all(_HPO_ID.fullmatch(str(finding)) for finding in present | excluded)
    return {
        "case_id": row["case_id"],
        "visit_characters": len(text.strip()),
        "names_own_diagnosis": names_diagnosis(text, [row["disease_name"] or ""]),
        "code_agrees": rare == (row["orpha_code"] is not None),
        "disease_agrees": (row["disease_id"] or "").startswith("ORPHA:" if rare else "NAME:"),
        "head_agrees": rare or row["orphanet_head"] is None,
        "findings_agree": coded and not present & excluded,
        "text_has_both_labels": text_has_both_labels,
    }


def _text_key(row: Row) -> bytes:
    """The same for visits whose texts differ in case and white space only."""
    words = " ".join(row[name] for name in TEXT_FIELDS if row[name]).casefold().split()
    return hashlib.sha256(" ".join(words).encode()).digest()


def per_source(
    rows: Sequence[Row], refused: Sequence[Refused], sources: Sequence[str]
) -> "pd.DataFrame":
    """One row for each of ``sources``, with or without cases.

    Columns: ``source``; ``rare`` and ``nonrare`` in cases; ``smaller_class_share``, 0-1 of its
    cases with the rarer label; ``head_share``, 0-1 of its rare cases with an Orphanet head, missing
    if none has one; ``repeated_share``, 0-1 of its cases that repeat the text of an earlier one;
    ``missing_age_share``, 0-1 of its cases; ``invalid_share``, 0-1 of its rows that were broken
    (not those left out on purpose).
    """
    import pandas as pd

    table = []
    for source in sources:
        of_source = [row for row in rows if row["source"] == source]
        left_out = [item.kind for item in refused if item.source == source]
        table.append({"source": source, **_source_shares(of_source, left_out)})
    return pd.DataFrame(table)


def _source_shares(rows: Sequence[Row], left_out: Sequence[str]) -> dict[str, object]:
    rare = sum(row["label"] == "rare" for row in rows)
    nonrare = sum(row["label"] == "nonrare" for row in rows)
    heads = sum(row["label"] == "rare" and row["orphanet_head"] is not None for row in rows)
    cases = max(len(rows), 1)
    return {
        "rare": rare,
        "nonrare": nonrare,
        "smaller_class_share": min(rare, nonrare) / cases,
        "head_share": heads / rare if heads else None,
        "repeated_share": (len(rows) - len({_text_key(row) for row in rows})) / cases,
        "missing_age_share": sum(row["age_years"] is None for row in rows) / cases,
        "invalid_share": left_out.count("invalid") / max(len(rows) + len(left_out), 1),
    }
