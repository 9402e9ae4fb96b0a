"""Check the ingested cases with Great Expectations and stop the pipeline if they fail.

Command: ``rarealert validate``. Writes ``reports/validate/index.html`` for a reader,
``reports/validate/report.json`` for a machine, and ``reports/validate/reference.json``, the
profile that a later corpus of the same source is compared with. None holds case text, a time or a
machine path, so they change in git only when the outcome does.
"""

from collections.abc import Iterator
from dataclasses import asdict

from rarealert.errors import BadInputError
from rarealert.files import write_json, write_text
from rarealert.params import Params
from rarealert.paths import Paths
from rarealert.quality.checkpoint import check, read_inputs, records, render_page
from rarealert.quality.expectations import DRIFT, PER_SOURCE
from rarealert.stages.harness import run_stage
from rarealert.tracking.items import Artifact, Item, Metric, Summary


def validate(params: Params, paths: Paths) -> Iterator[Item]:
    """Run the checkpoint on ``cases.parquet``; the page is written whatever the outcome.

    The profile of a new source is pinned once all expectations are met, and so are all profiles
    if ``validate.accept_profile`` names the new ones.

    Raises:
        BadInputError: an expectation failed, or a file of ingest or the file of pinned profiles
            is missing or damaged.
    """
    inputs = read_inputs(params, paths)
    checks = check(inputs)
    folder = paths.report("validate")
    page = folder / "index.html"
    failed = [item for item in checks if not item.success]
    if not failed:
        write_json(folder / "reference.json", {"profiles": inputs.to_pin})
    write_text(page, render_page(checks, inputs))
    write_json(
        folder / "report.json",
        {
            "checks": [asdict(item) for item in checks],
            "drift": records(inputs.frames[DRIFT]),
            "profile": inputs.profile,
            "sources": records(inputs.frames[PER_SOURCE]),
            "success": not failed,
        },
    )
    yield Metric("expectations", len(checks))
    yield Metric("failed_expectations", len(failed))
    yield Artifact(page)
    if failed:
        names = "; ".join(item.title for item in failed)
        accept = (
            f", or set validate.accept_profile to {inputs.profile} to pin this corpus"
            if any(item.table == DRIFT for item in failed)
            else ""
        )
        raise BadInputError(
            f"The cases fail {len(failed)} of {len(checks)} expectations: {names}. "
            f"See {page}, then fix the source or the thresholds in params.yaml{accept}."
        )
    yield Summary(f"{len(checks)} expectations met")


def main() -> None:
    """Run the stage in the current workspace."""
    run_stage("validate", validate)


if __name__ == "__main__":
    main()
