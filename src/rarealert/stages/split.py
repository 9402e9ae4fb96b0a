"""Divide the ingested cases into train, valid and test (``rarealert split``).

Writes ``build/split/{train,valid,test}.parquet``; ``build/split/held_out.json``, the disease keys
of valid and test, which no generated training example may have; ``reports/split/leakage.json`` and
its page; and ``reports/split/lock.json``, the test part's digest for each corpus, which a later
run must meet unless ``split.test_lock`` names another.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from rarealert.errors import BadInputError
from rarealert.files import sha256_of_file, write_json, write_text
from rarealert.params import Params, SplitParams
from rarealert.paths import Paths
from rarealert.splits.leakage import disease_keys, near_duplicates, tied_groups
from rarealert.splits.parts import (
    PARTS,
    Rule,
    Shares,
    assign_by_rule,
    check_labels,
    check_lock,
    lock_digest,
    read_registered,
    rule_for,
)
from rarealert.splits.split_report import Split, leakage_report, render_split_page
from rarealert.stages.harness import run_stage
from rarealert.tracking.items import Artifact, Dataset, Item, Metric, Summary, Tags
from rarealert.visits.case import LabelledCase
from rarealert.visits.reading import render
from rarealert.visits.store import read_cases, write_cases

_MIN_PERMUTATIONS = 2


def split(params: Params, paths: Paths) -> Iterator[Item]:
    """Split the ingested cases; nothing is written unless every check passes.

    Raises:
        BadInputError: a part would have one label only, the shares leave a part empty, the
            registered split or the held-out source or head does not fit the cases, or the test
            part is not the locked one.
    """
    settings, folder = params.split, paths.report("split")
    if settings.minhash_permutations < _MIN_PERMUTATIONS:
        raise BadInputError(
            f"split.minhash_permutations is {settings.minhash_permutations}; it must be at least "
            f"{_MIN_PERMUTATIONS}. Change it in params.yaml."
        )
    path = paths.build("ingest") / "cases.parquet"
    cases = sorted(read_cases(path), key=lambda item: item.case.case_id)
    yield Dataset("cases", path, sha256_of_file(path), len(cases), "split")
    made = _make_split(cases, settings, paths)
    check_labels(cases, made.parts, everywhere=not (settings.hold_out or settings.assign))
    members = {
        name: [item for item, part in zip(cases, made.parts, strict=True) if part == name]
        for name in PARTS
    }
    lock = _lock(members["test"], cases, settings, folder / "lock.json")
    for name, items in members.items():
        write_cases(paths.build("split") / f"{name}.parquet", items)
        yield Metric(f"{name}_cases", len(items))
    held_out = {
        name: sorted({key for item in members[name] for key in disease_keys(item)})
        for name in ("valid", "test")
    }
    write_json(paths.build("split") / "held_out.json", held_out)
    report = leakage_report(made, _shares(settings), settings.seed, settings.near_duplicate_jaccard)
    write_json(folder / "leakage.json", report)
    write_json(folder / "lock.json", lock)
    write_text(folder / "index.html", render_split_page(report, lock))
    registered = {"split.assign_sha256": made.registered.sha256} if made.registered else {}
    yield Tags({"split.test_lock": str(lock["test_lock"]), **registered})
    yield Metric("near_duplicate_pairs", len(made.duplicates))
    yield Metric("set_aside_cases", report["set_aside"])
    yield Artifact(folder / "index.html")
    yield Summary(_summary({name: len(items) for name, items in members.items()}, report))


def _make_split(cases: Sequence[LabelledCase], settings: SplitParams, paths: Paths) -> Split:
    """Assign each of ``cases``, sorted by id, as registered or under the rule of the settings."""
    duplicates = near_duplicates(
        [render(item.case) for item in cases],
        settings.near_duplicate_jaccard,
        settings.minhash_permutations,
        settings.seed,
    )
    groups = tied_groups(cases, duplicates)
    if settings.assign is not None:
        file = _registered_file(settings.assign, settings, paths)
        registered = read_registered(file, [item.case.case_id for item in cases])
        return Split(cases, registered.parts, groups, duplicates, Rule(), registered)
    rule = rule_for(cases, settings.hold_out, settings.test_from, settings.test_share)
    parts = assign_by_rule(cases, groups, _shares(settings), settings.seed, rule)
    return Split(cases, parts, groups, duplicates, rule)


def _registered_file(assign: Path, settings: SplitParams, paths: Paths) -> Path:
    if settings.hold_out is not None:
        raise BadInputError(
            "split.assign and split.hold_out are both set; a registered split is used unchanged. "
            "Set one of them to null in params.yaml."
        )
    file = (paths.root / assign).resolve()
    if not file.is_relative_to(paths.data.resolve()):
        raise BadInputError(
            f"split.assign is {assign}, which is not below data/, where DVC would notice a "
            "change. Move it there and run dvc add data."
        )
    return file


def _shares(settings: SplitParams) -> Shares:
    return Shares(valid=settings.valid_share, test=settings.test_share)


def _lock(
    test: Sequence[LabelledCase],
    cases: Sequence[LabelledCase],
    settings: SplitParams,
    file: Path,
) -> dict[str, object]:
    """The new content of ``lock.json``: this test part's digest, and those of all corpora so far.

    A corpus is its sources and what is held out of them.
    """
    corpus = "+".join(sorted({item.case.source for item in cases}))
    if settings.hold_out:
        corpus += f" without {settings.hold_out}"
    locks = _earlier_locks(file)
    digest = lock_digest(item.case.case_id for item in test)
    check_lock(digest, settings.test_lock, locks.get(corpus))
    return {"cases": len(test), "test_lock": digest, "locks": {**locks, corpus: digest}}


def _earlier_locks(file: Path) -> dict[str, str]:
    """Digests by corpus; empty before the first split."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {str(name): str(digest) for name, digest in content.get("locks", {}).items()}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError) as error:
        raise BadInputError(
            f"{file} is damaged. Restore it with git checkout, or delete it to lock again."
        ) from error


def _summary(sizes: dict[str, int], report: dict[str, object]) -> str:
    counted = ", ".join(f"{size:,} {name}" for name, size in sizes.items())
    aside = f", {report['set_aside']:,} set aside" if report["set_aside"] else ""
    leaks = [
        f"{count} {key.replace('_', ' ')}"
        for key, count in report.items()
        if key.endswith("_on_two_sides") and count
    ]
    if leaks:
        return f"{counted}{aside}, as registered; LEAKS: {', '.join(leaks)}"
    return f"{counted}{aside}; {report['groups']:,} groups, no disease on two sides"


def main() -> None:
    """Run the stage in the current workspace."""
    run_stage("split", split)


if __name__ == "__main__":
    main()
