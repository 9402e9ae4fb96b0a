"""The Great Expectations checkpoint on the ingested cases, its outcomes as counts, and its page."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rarealert.errors import BadInputError
from rarealert.params import Params
from rarealert.paths import Paths
from rarealert.quality.expectations import (
    CASES,
    DRIFT,
    PER_CASE,
    PER_SOURCE,
    per_case,
    per_source,
    suites,
)
from rarealert.quality.profile import Profile, digest, drift, profiles, read_pinned
from rarealert.templates import render_template
from rarealert.visits.refused import read_refused
from rarealert.visits.store import SCHEMA

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# counts without a single value: the page must hold no case text
_COUNTS_ONLY = {"result_format": "BASIC", "partial_unexpected_count": 0}


@dataclass(frozen=True)
class Inputs:
    """A frame and a suite for each table, and the profiles behind the table of drift.

    ``profile`` is the digest of ``new``; ``accepted`` marks that ``validate.accept_profile``
    names it.
    """

    frames: Mapping[str, "pd.DataFrame"]
    suites: Mapping[str, Sequence[Any]]
    pinned: Mapping[str, Profile]
    new: Mapping[str, Profile]
    profile: str
    accepted: bool

    @property
    def to_pin(self) -> dict[str, Profile]:
        """The profiles to pin once all expectations are met: earlier ones stay unless accepted."""
        return {**self.new, **self.pinned, **(self.new if self.accepted else {})}


@dataclass(frozen=True)
class Check:
    """One expectation and its outcome, in counts only: no value of a case is kept.

    ``checked`` and ``unexpected`` are rows; ``None`` where the expectation is about the table.
    """

    table: str
    column: str | None
    title: str
    expectation: str
    success: bool
    checked: int | None
    unexpected: int | None


def read_inputs(params: Params, paths: Paths) -> Inputs:
    """Read the ingested cases and make the tables that the expectations are about.

    Raises:
        BadInputError: a file of ingest, or the file of pinned profiles, is missing or damaged.
    """
    table = _raw_table(paths.build("ingest") / "cases.parquet")
    rows = table.to_pylist()
    refused = read_refused(paths.build("ingest") / "refused.jsonl")
    sources = list(dict.fromkeys(params.ingest.sources))
    pinned, new = read_pinned(paths.report("validate") / "reference.json"), profiles(rows)
    name = digest(new)
    accepted = params.validate_.accept_profile == name
    frames = {
        CASES: table.to_pandas(),
        PER_CASE: per_case(rows),
        PER_SOURCE: per_source(rows, refused, sources),
        DRIFT: drift({} if accepted else pinned, new),
    }
    return Inputs(frames, suites(params.validate_, sources), pinned, new, name, accepted)


def _raw_table(path: Path) -> "pa.Table":
    """The rows unchecked, because ``read_cases`` would refuse those that break the contract."""
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
    """A Great Expectations context in memory, without analytics and progress bars."""
    os.environ["GX_ANALYTICS_ENABLED"] = "False"
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context


def run_checkpoints(context: Any, inputs: Inputs) -> Iterator[tuple[str, Any]]:
    """Run one checkpoint a table; each table comes with its validation result, counts only."""
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


def check(inputs: Inputs) -> list[Check]:
    """The outcome of every expectation, by table and title."""
    order = list(inputs.suites)
    checks = [
        _check(table, result)
        for table, outcome in run_checkpoints(quiet_context(), inputs)
        for result in outcome.results
    ]
    return sorted(checks, key=lambda item: (order.index(item.table), item.title))


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


def records(frame: "pd.DataFrame") -> list[dict[str, object]]:
    """The rows of ``frame`` with ``None`` for what is missing, as JSON requires."""
    rows = frame.astype(object).where(frame.notna(), None).to_dict(orient="records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def render_page(checks: Sequence[Check], inputs: Inputs) -> str:
    """Render the outcomes as one self-contained HTML page."""
    tables = dict.fromkeys(item.table for item in checks)
    return render_template(
        Path(__file__).parent / "quality_page.html.j2",
        tables={name: [item for item in checks if item.table == name] for name in tables},
        failed=[item for item in checks if not item.success],
        sources=records(inputs.frames[PER_SOURCE]),
        drift=records(inputs.frames[DRIFT]),
    )
