"""Lay diseases into train, valid and test (``rarealert split``).

Writes ``build/split/{train,valid,test}.parquet``, ``reports/split/leakage.json`` (what was
checked, and how much had to be kept together) and ``reports/split/lock.json`` (the test part's
digest, which ``split.test_lock`` pins).
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from rarealert.cases.case import LabelledCase
from rarealert.cases.leakage import (
    Duplicate,
    count_leaks,
    disease_keys,
    near_duplicates,
    rendered,
    tied_groups,
)
from rarealert.cases.splits import (
    PARTS,
    Shares,
    assign,
    check_labels,
    check_lock,
    counts_by_part,
    lock_digest,
)
from rarealert.cases.store import read_cases, write_cases, write_json
from rarealert.errors import BadInputError
from rarealert.params import Params, SplitParams
from rarealert.paths import Paths
from rarealert.stages.harness import run_stage
from rarealert.tracking.items import Dataset, Item, Metric, Summary, Tags

_MIN_PERMUTATIONS = 2


def split(params: Params, paths: Paths) -> Iterator[Item]:
    """Split the ingested cases; nothing is written unless the whole split holds.

    Raises:
        BadInputError: a part would hold one label only, the shares leave a part empty, or the
            test part is not the locked one.
    """
    settings = params.split
    if settings.minhash_permutations < _MIN_PERMUTATIONS:
        raise BadInputError("split.minhash_permutations must be at least 2; mend params.yaml.")
    path = paths.build("ingest") / "cases.parquet"
    cases = sorted(read_cases(path), key=lambda item: item.case.case_id)
    yield Dataset("cases", path, _file_digest(path), len(cases), "split")
    duplicates = near_duplicates(
        rendered(cases),
        settings.near_duplicate_jaccard,
        settings.minhash_permutations,
        settings.seed,
    )
    groups = tied_groups(cases, duplicates)
    parts = assign(cases, groups, _shares(settings), settings.seed)
    check_labels(cases, parts)
    chosen = {
        name: [item for item, part in zip(cases, parts, strict=True) if part == name]
        for name in PARTS
    }
    digest = lock_digest(item.case.case_id for item in chosen["test"])
    check_lock(digest, settings.test_lock)
    for name, members in chosen.items():
        write_cases(paths.build("split") / f"{name}.parquet", members)
        yield Metric(f"{name}_cases", len(members))
    report = leakage_report(cases, parts, groups, duplicates, settings)
    write_json(paths.report("split") / "leakage.json", report)
    lock = {"cases": len(chosen["test"]), "test_lock": digest}
    write_json(paths.report("split") / "lock.json", lock)
    yield Tags({"split.test_lock": digest})
    yield Metric("near_duplicate_pairs", len(duplicates))
    sizes = ", ".join(f"{len(members):,} {name}" for name, members in chosen.items())
    yield Summary(f"{sizes}; {len(groups):,} groups, no disease on two sides")


def _shares(settings: SplitParams) -> Shares:
    return Shares(valid=settings.valid_share, test=settings.test_share)


def leakage_report(
    cases: Sequence[LabelledCase],
    parts: Sequence[str],
    groups: Sequence[Sequence[int]],
    duplicates: Sequence[Duplicate],
    settings: SplitParams,
) -> dict[str, object]:
    """What was checked on the finished split, and what tying near-duplicates changed."""
    untied = assign(cases, tied_groups(cases, []), _shares(settings), settings.seed)
    return {
        **count_leaks(cases, parts, duplicates),
        "near_duplicate_jaccard": settings.near_duplicate_jaccard,
        "near_duplicate_pairs": len(duplicates),
        "near_duplicate_pairs_cut_if_not_tied": count_leaks(cases, untied, duplicates)[
            "near_duplicate_pairs_on_two_sides"
        ],
        "near_duplicate_pairs_of_two_diseases": sum(
            not set(disease_keys(cases[pair.first])) & set(disease_keys(cases[pair.second]))
            for pair in duplicates
        ),
        "diseases": len({item.label.disease_id for item in cases}),
        "groups": len(groups),
        "largest_group": max(len(group) for group in groups),
        "cases": counts_by_part(cases, parts),
    }


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    """Run the stage in the current workspace."""
    run_stage("split", split)


if __name__ == "__main__":
    main()
