"""Check the ingested cases with Great Expectations and stop the graph if they fail.

Command: ``rarealert validate``. Writes ``reports/validate/index.html`` for a reader and
``reports/validate/report.json`` for a machine, both without case text, time or machine paths, so
that they change in git only when the outcome does; and ``reports/validate/reference.json``, the
profile that a later corpus of the same source is compared with.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rarealert.errors import BadInputError
from rarealert.files import write_json, write_text
from rarealert.params import Params
from rarealert.paths import Paths
from rarealert.quality.expectations import CASES, DRIFT, PER_CASE, PER_SOURCE, suites
from rarealert.quality.page import Check, render_page
from rarealert.quality.profile import digest, drift, per_case, per_source, profiles, read_pinned
from rarealert.sources.importing import read_refused
from rarealert.stages.harness import run_stage
from rarealert.tracking.items import Artifact, Item, Metric, Summary
from rarealert.visits.store import SCHEMA

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# counts without a single value: the page must hold no case text
_COUNTS_ONLY = {"result_format": "BASIC", "partial_unexpected_count": 0}


def validate(params: Params, paths: Paths) -> Iterator[Item]:
    """Run the checkpoint on ``cases.parquet``; the page is written whatever the outcome.

    Raises:
        BadInputError: an expectation failed; the sentence names every one that did.
    """
    checks, tables = check_cases(params, paths)
    folder = paths.report("validate")
    failed = [check for check in checks if not check.success]
    write_text(folder / "index.html", render_page(checks, tables.sources, tables.drift))
    write_json(
        folder / "report.json",
        {
            "checks": [asdict(check) for check in checks],
            "drift": tables.drift,
            "profile": tables.profile,
            "sources": tables.sources,
            "success": not failed,
        },
    )
    yield Metric("expectations", len(checks))
    yield Metric("failed_expectations", len(failed))
    yield Artifact(folder / "index.html")
    if failed:
        names = "; ".join(check.title for check in failed)
        raise BadInputError(
            f"The cases fail {len(failed)} of {len(checks)} expectations: {names}. "
            f"See {folder / 'index.html'}, then mend the source or the thresholds in params.yaml"
            f"{_how_to_accept(failed, tables.profile)}."
        )
    yield Summary(f"{len(checks)} expectations met")


def _how_to_accept(failed: Sequence[Check], profile: str) -> str:
    drifted = any(check.table == DRIFT for check in failed)
    return f", or set validate.accept_profile to {profile} to pin this corpus" if drifted else ""


@dataclass(frozen=True)
class Tables:
    """What the page shows beside the checks: counts by source, drift, and the profile's digest."""

    sources: list[dict[str, object]]
    drift: list[dict[str, object]]
    profile: str


def check_cases(params: Params, paths: Paths) -> tuple[list[Check], Tables]:
    """Outcome of every expectation, and the tables behind them.

    The profile of a source seen for the first time is pinned once all expectations are met, and
    so are all of them where ``validate.accept_profile`` names the new ones.

    Raises:
        BadInputError: the files of ingest, or the pinned profiles, are missing or damaged.
    """
    found = read_inputs(params, paths)
    order = list(found.suites)
    checks = [
        _check(table, result)
        for table, outcome in run_checkpoints(quiet_context(), found)
        for result in outcome.results
    ]
    checks.sort(key=lambda check: (order.index(check.table), check.title))
    if all(check.success for check in checks):
        accepted = found.new if found.accepted else {}
        kept = {**found.new, **found.pinned, **accepted}
        write_json(paths.report("validate") / "reference.json", {"profiles": kept})
    sources, moved = (_records(found.frames[table]) for table in (PER_SOURCE, DRIFT))
    return checks, Tables(sources, moved, found.profile)


@dataclass(frozen=True)
class Inputs:
    """What the checkpoint runs on: a frame and a suite for each table, and the profiles."""

    frames: Mapping[str, "pd.DataFrame"]
    suites: Mapping[str, Sequence[Any]]
    pinned: Mapping[str, Any]
    new: Mapping[str, Any]
    profile: str
    accepted: bool


def read_inputs(params: Params, paths: Paths) -> Inputs:
    """The ingested cases as the tables that the expectations are about; nothing is written.

    Raises:
        BadInputError: the files of ingest, or the pinned profiles, are missing or damaged.
    """
    table = _raw_table(paths.build("ingest") / "cases.parquet")
    rows = table.to_pylist()
    refused = read_refused(paths.build("ingest") / "refused.jsonl")
    named = list(dict.fromkeys(params.ingest.sources))
    pinned, new = read_pinned(paths.report("validate") / "reference.json"), profiles(rows)
    name = digest(new)
    accepted = params.validate_.accept_profile == name
    frames = {
        CASES: table.to_pandas(),
        PER_CASE: per_case(rows),
        PER_SOURCE: per_source(rows, refused, named),
        DRIFT: drift({} if accepted else pinned, new),
    }
    return Inputs(frames, suites(params.validate_, named), pinned, new, name, accepted)


def _records(frame: "pd.DataFrame") -> list[dict[str, object]]:
    rows = frame.astype(object).where(frame.notna(), None).to_dict(orient="records")
    return [{str(name): value for name, value in row.items()} for row in rows]


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


def quiet_context() -> Any:
    """A context of Great Expectations that lives in memory and calls nobody."""
    os.environ["GX_ANALYTICS_ENABLED"] = "False"
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context


def run_checkpoints(context: Any, inputs: Inputs) -> Iterator[tuple[str, Any]]:
    """Every table with its suite's validation result: one checkpoint each, counts and no values."""
    import great_expectations as gx

    pandas_source = context.data_sources.add_pandas("ingest")
    for table, expectations in inputs.suites.items():
        batch = pandas_source.add_dataframe_asset(table).add_batch_definition_whole_dataframe("all")
        suite = context.suites.add(gx.ExpectationSuite(name=table, expectations=list(expectations)))
        definition = gx.ValidationDefinition(name=table, data=batch, suite=suite)
        context.validation_definitions.add(definition)
        checkpoint = gx.Checkpoint(
            name=table, validation_definitions=[definition], result_format=_COUNTS_ONLY
        )
        outcome = context.checkpoints.add(checkpoint).run(
            batch_parameters={"dataframe": inputs.frames[table]}
        )
        yield table, next(iter(outcome.run_results.values()))


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


def main() -> None:
    """Run the stage in the current workspace."""
    run_stage("validate", validate)


if __name__ == "__main__":
    main()
