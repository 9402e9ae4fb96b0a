"""Read the sources in ``data/`` into typed, labelled cases (``rarealert ingest``).

Writes ``build/ingest/cases.parquet``, ``build/ingest/refused.jsonl`` with each row left out and the
reason, and ``reports/ingest/summary.json`` with the counts.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rarealert.errors import BadInputError
from rarealert.files import sha256_of_file, write_json
from rarealert.params import Params
from rarealert.paths import Paths
from rarealert.sources.importing import read_source
from rarealert.stages.harness import run_stage
from rarealert.tracking.items import Dataset, Item, Metric, Summary
from rarealert.visits.case import LabelledCase
from rarealert.visits.refused import Refused, write_refused
from rarealert.visits.store import write_cases


def ingest(params: Params, paths: Paths) -> Iterator[Item]:
    """Read every source of ``params.ingest``; a case id of an earlier source is refused.

    Raises:
        BadInputError: a source is unknown or missing, or a file of it can't be read at all.
    """
    cases: list[LabelledCase] = []
    refused: list[Refused] = []
    sources = params.ingest.sources
    for source in dict.fromkeys(sources):
        before = len(cases)
        _read(paths.data / source, source, cases, refused)
        digest = _folder_digest(paths.data / source)
        yield Dataset(source, paths.data / source, digest, len(cases) - before, "ingest")
    if not cases:
        raise BadInputError(
            f"No case of {', '.join(sources)} could be read; "
            "import a source with rarealert data import."
        )
    write_cases(paths.build("ingest") / "cases.parquet", cases)
    write_refused(paths.build("ingest") / "refused.jsonl", refused)
    summary = _summary(cases, refused)
    write_json(paths.report("ingest") / "summary.json", summary)
    yield Metric("cases", len(cases))
    yield Metric("rare_cases", sum(item.label.label == "rare" for item in cases))
    yield Metric("refused_rows", len(refused))
    yield Summary(f"{len(cases):,} cases, {len(refused):,} rows left out")


def _read(folder: Path, source: str, cases: list[LabelledCase], refused: list[Refused]) -> None:
    seen = {item.case.case_id: item.case.source for item in cases}
    for number, item in enumerate(read_source(source, folder), 1):
        if isinstance(item, Refused):
            refused.append(item)
        elif item.case.case_id in seen:
            reason = f"case_id is taken by source {seen[item.case.case_id]}"
            refused.append(Refused(source, source, number, "case_id", reason))
        else:
            cases.append(item)


def _folder_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of all files below ``folder``."""
    digest = hashlib.sha256()
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()} {sha256_of_file(path)}\n".encode())
    return digest.hexdigest()


def _summary(cases: Sequence[LabelledCase], refused: Sequence[Refused]) -> dict[str, object]:
    sources = sorted({item.case.source for item in cases} | {item.source for item in refused})
    return {
        "cases": len(cases),
        "left_out": len(refused),
        "sources": {
            source: _source_summary(
                [item for item in cases if item.case.source == source],
                [item for item in refused if item.source == source],
            )
            for source in sources
        },
    }


def _source_summary(cases: Sequence[LabelledCase], refused: Sequence[Refused]) -> dict[str, object]:
    reasons: dict[str, Counter[str]] = {}
    for row in refused:
        reasons.setdefault(row.kind, Counter())[f"{row.field}: {row.reason}"] += 1
    return {
        "cases": len(cases),
        "labels": Counter(item.label.label for item in cases),
        "diseases": len({item.label.disease_id for item in cases}),
        "heads": Counter(
            item.label.orphanet_head or "no head known"
            for item in cases
            if item.label.label == "rare"
        ),
        "missing_age": sum(item.case.age_years is None for item in cases),
        "missing_sex": sum(item.case.sex is None for item in cases),
        "left_out": reasons,
    }


def main() -> None:
    """Run the stage in the current workspace."""
    run_stage("ingest", ingest)


if __name__ == "__main__":
    main()
