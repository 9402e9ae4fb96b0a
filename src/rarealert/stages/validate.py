"""Check the ingested cases with Great Expectations and stop the graph if they fail.

Command: ``rarealert validate``. Writes ``reports/validate/index.html`` for a reader and
``reports/validate/report.json`` for a machine, both without case text, time or machine paths, so
that they change in git only when the outcome does.
"""

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rarealert.cases.imports import read_refused
from rarealert.cases.quality import per_case, per_source
from rarealert.cases.quality_page import Check, render_page
from rarealert.cases.store import SCHEMA, write_json
from rarealert.errors import BadInputError
from rarealert.params import Params, ValidateParams
from rarealert.paths import Paths
from rarealert.stages.harness import run_stage
from rarealert.tracking.items import Artifact, Item, Metric, Summary

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# counts without a single value: the page must hold no case text
_COUNTS_ONLY = {"result_format": "BASIC", "partial_unexpected_count": 0}
_MAX_AGE_YEARS = 120
_CASES, _PER_CASE, _PER_SOURCE = "Columns of every case", "Each case", "Each source"


def validate(params: Params, paths: Paths) -> Iterator[Item]:
    """Run the checkpoint on ``cases.parquet``; the page is written whatever the outcome.

    Raises:
        BadInputError: an expectation failed; the sentence names every one that did.
    """
    checks, sources = check_cases(params, paths)
    folder = paths.report("validate")
    _write_page(folder / "index.html", render_page(checks, sources))
    failed = [check for check in checks if not check.success]
    write_json(
        folder / "report.json",
        {"checks": [asdict(check) for check in checks], "sources": sources, "success": not failed},
    )
    yield Metric("expectations", len(checks))
    yield Metric("failed_expectations", len(failed))
    yield Artifact(folder / "index.html")
    if failed:
        names = "; ".join(check.title for check in failed)
        raise BadInputError(
            f"The cases fail {len(failed)} of {len(checks)} expectations: {names}. "
            f"See {folder / 'index.html'}, then mend the source or the thresholds in params.yaml."
        )
    yield Summary(f"{len(checks)} expectations met")


def check_cases(params: Params, paths: Paths) -> tuple[list[Check], list[dict[str, object]]]:
    """Outcome of every expectation, and the counts of each source.

    Raises:
        BadInputError: the files of ingest are missing or damaged.
    """
    table = _raw_table(paths.build("ingest") / "cases.parquet")
    rows = table.to_pylist()
    refused = read_refused(paths.build("ingest") / "refused.jsonl")
    named = list(dict.fromkeys(params.ingest.sources))
    sources = per_source(rows, refused, named)
    frames = {_CASES: table.to_pandas(), _PER_CASE: per_case(rows), _PER_SOURCE: sources}
    checks = _run_checkpoints(frames, params.validate_, named)
    records = sources.to_dict(orient="records")
    return checks, [{str(name): value for name, value in row.items()} for row in records]


def _raw_table(path: Path) -> "pa.Table":
    """Rows as they stand, even where they break the contract that ``read_cases`` enforces."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise BadInputError(f"{path} is missing; run dvc repro ingest.")
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInputError(f"{path} is no Parquet file; delete it and run dvc repro.") from error
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing:
        raise BadInputError(f"{path} has no column {missing[0]}; run dvc repro ingest.")
    return table


def _run_checkpoints(
    frames: Mapping[str, "pd.DataFrame"], settings: ValidateParams, sources: Sequence[str]
) -> list[Check]:
    """One checkpoint a table, in a context that lives in memory and calls nobody."""
    os.environ["GX_ANALYTICS_ENABLED"] = "False"
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    pandas_source = context.data_sources.add_pandas("ingest")
    suites = {
        _CASES: _case_expectations(sources),
        _PER_CASE: _per_case_expectations(),
        _PER_SOURCE: _per_source_expectations(settings),
    }
    checks: list[Check] = []
    for table, expectations in suites.items():
        batch = pandas_source.add_dataframe_asset(table).add_batch_definition_whole_dataframe("all")
        suite = context.suites.add(gx.ExpectationSuite(name=table, expectations=expectations))
        definition = gx.ValidationDefinition(name=table, data=batch, suite=suite)
        context.validation_definitions.add(definition)
        checkpoint = gx.Checkpoint(
            name=table, validation_definitions=[definition], result_format=_COUNTS_ONLY
        )
        outcome = context.checkpoints.add(checkpoint).run(
            batch_parameters={"dataframe": frames[table]}
        )
        results = next(iter(outcome.run_results.values())).results
        checks.extend(_check(table, result) for result in results)
    return sorted(checks, key=lambda check: (list(suites).index(check.table), check.title))


def _check(table: str, result: Any) -> Check:
    config = result.expectation_config
    counts = result.result or {}
    return Check(
        table=table,
        column=config.kwargs.get("column"),
        title=config.meta["title"],
        expectation=config.type,
        success=bool(result.success),
        checked=counts.get("element_count"),
        unexpected=counts.get("unexpected_count"),
    )


def _gx_expectations() -> Any:
    # imported by name: Great Expectations re-exports its classes without declaring it
    return importlib.import_module("great_expectations.expectations")


def _case_expectations(sources: Sequence[str]) -> list[Any]:
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
    ]


def _per_case_expectations() -> list[Any]:
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
            )
        ),
    ]


def _per_source_expectations(settings: ValidateParams) -> list[Any]:
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
        *(
            gxe.ExpectColumnValuesToBeBetween(
                column=column, min_value=0, max_value=most, meta=_titled(title)
            )
            for column, most, title in (
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


def _titled(title: str) -> dict[str, str]:
    return {"title": title}


def _write_page(path: Path, page: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)


def main() -> None:
    """Run the stage in the current workspace."""
    run_stage("validate", validate)


if __name__ == "__main__":
    main()
