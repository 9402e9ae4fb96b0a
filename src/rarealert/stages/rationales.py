"""Project the rationale cache on these cases and this panel (``rarealert rationales``).

A pure function of cache, cases and panel; it asks no teacher. Writes
``build/rationales/answers.parquet`` (all parts, teachers with enough answers) and
``reports/rationales/coverage.json`` (all teachers).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rarealert.errors import BadInputError
from rarealert.files import sha256_of_file, write_json
from rarealert.params import Params
from rarealert.paths import Paths
from rarealert.stages.harness import run_stage
from rarealert.tracking.items import Dataset, Item, Metric, Summary, Table

if TYPE_CHECKING:
    from rarealert.teachers.projection import Coverage

_PARTS = ("train", "valid", "test")


def rationales(params: Params, paths: Paths) -> Iterator[Item]:
    """Write the answers of every teacher with enough of them.

    Raises:
        BadInputError: a part, the panel or a recorded file is missing or damaged, or no teacher
            reaches ``rationales.min_coverage``.
    """
    from rarealert.teachers.cache import RationaleCache
    from rarealert.teachers.panel import load_panel
    from rarealert.teachers.projection import coverage, project
    from rarealert.teachers.roster import assemble
    from rarealert.visits.store import read_cases

    panel = load_panel(params.teach.panel, paths.root)
    parts = {}
    for part in _PARTS:
        path = paths.build("split") / f"{part}.parquet"
        parts[part] = [item.case for item in read_cases(path)]
        yield Dataset(part, path, sha256_of_file(path), len(parts[part]), "projection")
    cases = [case for part in _PARTS for case in parts[part]]
    teachers = assemble(panel, paths.data, frozenset(case.source for case in cases))
    projection = project(teachers, cases, RationaleCache(paths.build("teach") / "cache"))
    deciding = frozenset(case.case_id for part in ("train", "valid") for case in parts[part])
    found = coverage(projection, deciding, params.rationales.min_coverage)
    _write_report(params, paths, found)
    used = frozenset(name for name, entry in found.items() if entry.used)
    if not used:
        raise BadInputError(
            f"No teacher of the panel {params.teach.panel!r} answered "
            f"{params.rationales.min_coverage:.0%} of its cases (rationales.min_coverage). "
            "See reports/rationales/coverage.json."
        )
    answered = projection.write(paths.build("rationales") / "answers.parquet", used)
    yield from _report(found)
    yield Summary(
        f"{answered:,} answers on {len(cases):,} cases, "
        f"{len(used)} of {len(teachers)} teachers used"
    )


def _write_report(params: Params, paths: Paths, found: "dict[str, Coverage]") -> None:
    report = {
        "min_coverage": params.rationales.min_coverage,
        "panel": params.teach.panel,
        "teachers": {
            name: {"share": entry.share, "listened": entry.used, "sources": entry.sources}
            for name, entry in found.items()
        },
    }
    write_json(paths.report("rationales") / "coverage.json", report)


def _report(found: "dict[str, Coverage]") -> Iterator[Item]:
    import pandas as pd

    rows = [
        {
            "teacher": name,
            "coverage": entry.share,
            "listened": entry.used,
            **{
                status: sum(counts[status] for counts in entry.sources.values())
                for status in ("ok", "failed", "missing")
            },
        }
        for name, entry in found.items()
    ]
    yield Table("coverage.json", pd.DataFrame(rows))
    for name, entry in found.items():
        if entry.share is not None:
            yield Metric(f"coverage.{name}", entry.share)


def main() -> None:
    """Run the stage in the current workspace."""
    run_stage("rationales", rationales)
