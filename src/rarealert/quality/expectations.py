"""The expectations that a data steward has of the ingested cases, by the table they are about."""

import importlib
from collections.abc import Sequence
from typing import Any

from rarealert.knowledge.heads import HEADS
from rarealert.params import ValidateParams
from rarealert.visits.store import SCHEMA

CASES, PER_CASE, PER_SOURCE = "Columns of every case", "Each case", "Each source"
DRIFT = "Drift against the pinned corpus"
_MAX_AGE_YEARS = 120


def suites(settings: ValidateParams, sources: Sequence[str]) -> dict[str, list[Any]]:
    """Expectations by table, each with a ``title`` in its ``meta``."""
    return {
        CASES: _of_columns(sources),
        PER_CASE: _of_cases(),
        PER_SOURCE: _of_sources(settings),
        DRIFT: _of_drift(settings),
    }


def _gx_expectations() -> Any:
    # imported by name: Great Expectations re-exports its classes without declaring it
    return importlib.import_module("great_expectations.expectations")


def _of_columns(sources: Sequence[str]) -> list[Any]:
    """Schema, identity, ranges and vocabularies of the file itself."""
    gxe = _gx_expectations()
    filled = ("case_id", "source", "label", "disease_id", "disease_name", "reason")
    return [
        gxe.ExpectTableColumnsToMatchOrderedList(
            column_list=SCHEMA.names, meta=_titled("the columns are those of the case schema")
        ),
        *(
            gxe.ExpectColumnValuesToNotBeNull(column=name, meta=_titled(f"{name} is never missing"))
            for name in filled
        ),
        gxe.ExpectColumnValuesToBeUnique(column="case_id", meta=_titled("case_id is unique")),
        gxe.ExpectColumnValuesToBeInSet(
            column="source",
            value_set=list(sources),
            meta=_titled("source is one of ingest.sources"),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="age_years",
            min_value=0,
            max_value=_MAX_AGE_YEARS,
            meta=_titled(f"age_years lies between 0 and {_MAX_AGE_YEARS} years"),
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="sex", value_set=["female", "male"], meta=_titled("sex is female or male")
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="label", value_set=["rare", "nonrare"], meta=_titled("label is rare or nonrare")
        ),
        gxe.ExpectColumnValuesToMatchRegex(
            column="orpha_code",
            regex=r"^ORPHA:\d+$",
            meta=_titled("orpha_code looks like ORPHA:<number>"),
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="orphanet_head",
            value_set=sorted(HEADS.values()),
            meta=_titled("orphanet_head is one of Orphanet's 33"),
        ),
    ]


def _of_cases() -> list[Any]:
    """What ties the fields of one case together."""
    gxe = _gx_expectations()
    return [
        gxe.ExpectColumnValuesToBeBetween(
            column="visit_characters", min_value=1, meta=_titled("every visit has text")
        ),
        *(
            gxe.ExpectColumnValuesToBeInSet(column=column, value_set=[wanted], meta=_titled(title))
            for column, wanted, title in (
                ("names_own_diagnosis", False, "no visit names its own diagnosis"),
                ("code_agrees", True, "orpha_code is given exactly where the label is rare"),
                ("disease_agrees", True, "disease_id is an ORPHA code exactly where it is rare"),
                ("head_agrees", True, "no case that is not rare has an orphanet_head"),
                ("findings_agree", True, "findings are HPO ids, none both present and excluded"),
                ("text_has_both_labels", False, "no text stands with both labels"),
            )
        ),
    ]


def _of_sources(settings: ValidateParams) -> list[Any]:
    """What a source must bring to be worth learning from."""
    gxe = _gx_expectations()
    least = settings.min_cases_per_label
    return [
        *(
            gxe.ExpectColumnValuesToBeBetween(
                column=label,
                min_value=least,
                meta=_titled(f"every source has at least {least} {label} cases"),
            )
            for label in ("rare", "nonrare")
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="smaller_class_share",
            min_value=settings.min_class_share,
            meta=_titled(f"each label is at least {settings.min_class_share:g} of every source"),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="head_share",
            min_value=settings.min_head_share,
            meta=_titled(
                f"a source that names heads does so for {settings.min_head_share:g} of rare cases"
            ),
        ),
        *(
            gxe.ExpectColumnValuesToBeBetween(
                column=column, min_value=0, max_value=most, meta=_titled(title)
            )
            for column, most, title in (
                (
                    "repeated_share",
                    settings.max_repeated_share,
                    f"at most {settings.max_repeated_share:g} of a source's texts are repeated",
                ),
                (
                    "missing_age_share",
                    settings.max_missing_age_share,
                    f"age is missing in at most {settings.max_missing_age_share:g} of a source",
                ),
                (
                    "invalid_share",
                    settings.max_refused_share,
                    f"at most {settings.max_refused_share:g} of a source's rows are broken",
                ),
            )
        ),
    ]


def _of_drift(settings: ValidateParams) -> list[Any]:
    """What a new corpus may differ by from the pinned one; a first corpus differs by nothing."""
    gxe = _gx_expectations()
    return [
        gxe.ExpectColumnValuesToBeBetween(
            column="shift",
            min_value=0,
            max_value=settings.max_psi,
            meta=_titled(f"no quantity drifts by a stability index above {settings.max_psi:g}"),
        )
    ]


def _titled(title: str) -> dict[str, str]:
    return {"title": title}
