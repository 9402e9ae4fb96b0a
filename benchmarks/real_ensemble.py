"""How well does the ensemble rank and calibrate cases of diseases that it never saw?

Command: ``python benchmarks/real_ensemble.py KEPT`` in a workspace whose ``rationales`` ran, such
as that of ``make repro-real``. Outer folds grouped by disease over the cases of all three parts;
the three stages of ``align`` run anew inside each (``nested.py``). Prints, for each source, AUROC,
calibration slope and ECE with 95 % intervals over whole diseases, and the paired difference to
each teacher on the cases it answered. Folds that are done lie in the folder ``KEPT``. Then again
without the cases whose reference label Orphanet's names contradict: how much errors of the labels
cost can't be told exactly, for the teachers were read by the same names.

It reads the test part. Choose nothing by what it prints.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from nested import nested_risks

from rarealert.ensemble.features import visit_features
from rarealert.ensemble.signals import read_signals
from rarealert.evaluation.intervals import Bootstrap
from rarealert.evaluation.study import Study, compare, evaluate
from rarealert.knowledge.orphanet import load_index
from rarealert.params import load_params
from rarealert.paths import Paths
from rarealert.visits.case import LabelledCase
from rarealert.visits.reading import read_visit
from rarealert.visits.store import disease_groups, is_rare, read_cases

METRICS = ("auroc", "calibration_slope", "ece")
PLAN = Bootstrap(2000, 0.95, 0)
FEWEST = 50  # cases that a teacher must have answered, to be compared with


def main() -> None:
    """Measure, and print two tables for each source."""
    paths = Paths.here()
    cases = [
        item
        for part in ("train", "valid", "test")
        for item in read_cases(paths.build("split") / f"{part}.parquet")
    ]
    ids = [item.case.case_id for item in cases]
    signals = read_signals(paths.build("rationales") / "answers.parquet", ids)
    visits = visit_features(read_visit(item.case) for item in cases)
    chosen = load_params(paths.params).align
    found = nested_risks(cases, signals, visits, chosen, Path(sys.argv[1]))
    row_of = {case_id: row for row, case_id in enumerate(signals.case_ids)}
    risks = {"ensemble": np.asarray([found.get(one, np.nan) for one in ids])}
    for place, teacher in enumerate(signals.teachers):
        risks[teacher] = np.asarray(
            [signals.risk[row_of[one], place] if one in row_of else np.nan for one in ids]
        )
    sources, doubted = np.asarray([item.case.source for item in cases]), _doubted(cases, paths)
    for source in np.unique(sources):
        for kept, title in ((~doubted, "{}, doubted labels left out"), (doubted | True, "{}")):
            among = np.flatnonzero((sources == source) & kept)
            study = Study(
                np.asarray(is_rare(cases), dtype=float)[among],
                np.asarray(disease_groups(cases))[among],
                {name: told[among] for name, told in risks.items()},
                {},
            )
            _print(title.format(source), study)


def _doubted(cases: Sequence[LabelledCase], paths: Paths) -> np.ndarray:
    """Cases of which label and Orphanet's names say different things, shape ``(n_cases,)``."""
    tables = paths.data / "orphanet"
    index = load_index(tables if tables.is_dir() else None)
    found = [index.resolve(item.label.disease_name or "") for item in cases]
    listed = np.asarray([one is not None and not one.common for one in found])
    named = np.asarray([bool(item.label.disease_name) for item in cases])
    return named & (listed != np.asarray(is_rare(cases), dtype=bool))


def _print(source: str, study: Study) -> None:
    every = np.arange(len(study.labels))
    asked = {name: len(study.answered(name, every)) for name in study.risks}
    heard = Study(
        study.labels,
        study.clusters,
        {name: risks for name, risks in study.risks.items() if asked[name] >= FEWEST},
        {},
    )
    told = evaluate(heard, {"all": every}, METRICS, PLAN)["all"]
    pairs = {name: ("ensemble", name) for name in heard.risks if name != "ensemble"}
    beside = compare(heard, pairs, "auroc", PLAN)
    print(f"\n{source}, n = {asked['ensemble']}, {len(set(study.clusters))} diseases\n")
    print("| model, n | AUROC | calibration slope | ECE |\n| --- | --- | --- | --- |")
    for name, result in told.items():
        cells = [_cell(result.estimates.get(metric)) for metric in METRICS]
        print(f"| {name}, {asked[name]} | {' | '.join(cells)} |")
    print(
        "\n| ensemble minus | AUROC | p | p (Holm) | p (DeLong) |\n| --- | --- | --- | --- | --- |"
    )
    for name, one in beside.items():
        tests = (one.p_value, one.p_holm, one.p_delong)
        shown = " | ".join("-" if p is None else f"{p:.4f}" for p in tests)
        print(f"| {name} | {_cell(one.difference)} | {shown} |")


def _cell(estimate: object) -> str:
    if estimate is None:
        return "-"
    low, high, value = (getattr(estimate, name) for name in ("ci_low", "ci_high", "value"))
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
