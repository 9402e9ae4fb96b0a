"""Project the rationale cache on these cases and this panel (``rarealert rationales``).

A pure function of cache, cases and panel: it asks nobody. Writes
``build/rationales/answers.parquet`` (all parts, the teachers that are listened to) and
``reports/rationales/coverage.json`` (all teachers).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rarealert.errors import BadInputError
from rarealert.files import write_json
from rarealert.params import Params
from rarealert.paths import Paths
from rarealert.stages.harness import run_stage
from rarealert.tracking.items import Dataset, Item, Metric, Summary, Table

if TYPE_CHECKING:
    from rarealert.teachers.projection import Coverage
    from rarealert.visits.case import Case

_PARTS = ("train", "valid", "test")


def rationales(params: Params, paths: Paths) -> Iterator[Item]:
    """Write the answers of every teacher that said enough.

    Raises:
        BadInputError: a part, the panel or a recorded file is missing or damaged, or no teacher
            reaches ``rationales.min_coverage``.
    """
    from rarealert.teachers.cache import RationaleCache
    from rarealert.teachers.panel import load_panel
    from rarealert.teachers.projection import coverage, project
    from rarealert.teachers.roster import assemble

    panel = load_panel(params.teach.panel, paths.root)
    parts = {}
    for part in _PARTS:
        parts[part], dataset = _part(paths, part)
        yield dataset
    cases = [case for part in _PARTS for case in parts[part]]
    teachers = assemble(panel, paths.data, frozenset(case.source for case in cases))
    projection = project(teachers, cases, RationaleCache(paths.build("teach") / "cache"))
    judged = frozenset(case.case_id for part in ("train", "valid") for case in parts[part])
    found = coverage(projection, judged, params.rationales.min_coverage)
    _write_report(params, paths, found)
    listened = [name for name, entry in found.items() if entry.listened]
    if not listened:
        raise BadInputError(
            f"No teacher of the panel {params.teach.panel!r} answered "
            f"{params.rationales.min_coverage:.0%} of its cases (rationales.min_coverage); "
            "see reports/rationales/coverage.json."
        )
    answers = paths.build("rationales") / "answers.parquet"
    answered = projection.write(answers, frozenset(listened))
    yield from _report(found)
    yield Summary(
        f"{answered:,} answers on {len(cases):,} cases, "
        f"{len(listened)} of {len(teachers)} teachers listened to"
    )


def _part(paths: Paths, part: str) -> tuple["list[Case]", Dataset]:
    from rarealert.teachers.teacher import digest
    from rarealert.visits.store import read_cases

    path = paths.build("split") / f"{part}.parquet"
    cases = [item.case for item in read_cases(path)]
    return cases, Dataset(part, path, digest(path.read_bytes()), len(cases), "projection")


def _write_report(params: Params, paths: Paths, found: "dict[str, Coverage]") -> None:
    report = {
        "min_coverage": params.rationales.min_coverage,
        "panel": params.teach.panel,
        "teachers": {name: vars(entry) for name, entry in found.items()},
    }
    write_json(paths.report("rationales") / "coverage.json", report)


def _report(found: "dict[str, Coverage]") -> Iterator[Item]:
    import pandas as pd

    yield Table(
        "coverage.json",
        pd.DataFrame(
            [
                {"teacher": name, "coverage": entry.share, "listened": entry.listened, **counts}
                for name, entry in found.items()
                for counts in (_totals(entry),)
            ]
        ),
    )
    for name, entry in found.items():
        if entry.share is not None:
            yield Metric(f"coverage.{name}", entry.share)


def _totals(entry: "Coverage") -> dict[str, int]:
    return {
        status: sum(counts[status] for counts in entry.sources.values())
        for status in ("ok", "failed", "missing")
    }


def main() -> None:
    """Run the stage in the current workspace."""
    run_stage("rationales", rationales)
