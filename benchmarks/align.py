"""Processor seconds and memory of the three stages of ``align`` on panels of any size.

Command: ``python benchmarks/align.py 2000 8000 32000 158666`` (cases; ten teachers each, quickly
made). One line of JSON a size, each in a process of its own. Seconds are user and system time of
the process and its workers; memory is the peak of the process and that of its largest worker.
"""

import json
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from rarealert.ensemble.alignment import AlignmentData, Part, examine, search_and_fit
from rarealert.ensemble.alignment_report import metrics_of
from rarealert.ensemble.features import VISIT, blocks_of, build_features
from rarealert.ensemble.signals import PLACES, Signals
from rarealert.ensemble.training_set import TrainingSet
from rarealert.params import load_params

TEACHERS = 10
CASES_A_DISEASE = 20
VALID_SHARE = 0.2
DISORDERS = 4000  # that a teacher may name


def make_signals(cases: int, seed: int) -> tuple[Signals, np.ndarray, np.ndarray]:
    """Answers of ten unequally good teachers to the same latent signal, labels and diseases."""
    rng = np.random.default_rng(seed)
    number = rng.integers(0, max(12, cases // CASES_A_DISEASE), cases)
    rare = number % 2 == 0
    disease = np.asarray([f"{one}" for one in number])
    signal = (1.4 * rare - 0.7)[:, None] + rng.normal(0, 1, (cases, 1))
    skill = np.linspace(0.3, 1.5, TEACHERS)
    log_odds = skill * signal + rng.normal(0, 1, (cases, TEACHERS))
    risk = np.round(100 / (1 + np.exp(-log_odds))) / 100
    named = rng.integers(1, DISORDERS, (cases, TEACHERS, PLACES)).astype(np.int32)
    right = rng.random((cases, TEACHERS)) < skill / 20
    named[..., 0] = np.where(right, DISORDERS + number[:, None], named[..., 0])
    orphanet = rng.random(named.shape) < 0.3
    orphanet[..., 0] = np.where(right, rare[:, None], orphanet[..., 0])
    missing = rng.random((cases, TEACHERS)) < 0.02
    signals = Signals(
        tuple(f"{one:07d}" for one in range(cases)),
        tuple(f"t{one}" for one in range(TEACHERS)),
        risk,
        named,
        orphanet,
        np.where(orphanet, rng.integers(1, 1 << 20, named.shape), 0).astype(np.uint32),
        rng.normal(0, 1, named.shape).astype(np.float32) + orphanet,
        rng.integers(1, DISORDERS, named.shape).astype(np.int32),
        rng.random((cases, TEACHERS, 3)),
    )
    return signals.without(missing), rare, disease


def make_data(cases: int, seed: int) -> AlignmentData:
    """A training and a validation part of disjoint diseases."""
    signals, rare, disease = make_signals(cases, seed)
    values = np.random.default_rng(seed).random((cases, len(VISIT)))
    visits = dict(zip(signals.case_ids, map(tuple, values.tolist()), strict=True))
    blocks = blocks_of(signals)
    held = np.asarray([int(one) % 10 < 10 * VALID_SHARE for one in disease])
    parts = []
    for rows in (~held, held):
        features = build_features(signals.rows(rows), blocks, visits)
        place = np.asarray([int(case_id) for case_id in features.case_ids])
        risks = features.values[:, features.columns("risk")]
        data = TrainingSet(features.values, rare[place], disease[place], risks)
        parts.append(Part(features, data, np.full(len(place), "made")))
    train, valid = parts
    return AlignmentData(train, valid, signals, blocks, visits, 0)


def measure(cases: int) -> None:
    """Run the stages on ``cases`` cases and print what they took."""
    chosen = load_params(Path(__file__).parents[1] / "params.yaml").align
    data = make_data(cases, chosen.seed)
    began, seconds = time.perf_counter(), {"made": _cpu()}
    with tempfile.TemporaryDirectory() as folder:
        found, fitted = search_and_fit(data, chosen, Path(folder) / "study.log")
    seconds["searched_and_fitted"] = _cpu()
    outcome = examine(data, found, fitted, chosen)
    metrics = metrics_of(outcome)
    seconds["examined"] = _cpu()
    taken = np.diff(list(seconds.values()))
    own, worker = (
        resource.getrusage(who).ru_maxrss / 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    line = {
        "cases": cases,
        "cpu_s": dict(zip(list(seconds)[1:], taken.round(1).tolist(), strict=True)),
        "wall_s": round(time.perf_counter() - began, 1),
        "peak_mb": round(own),
        "peak_mb_of_a_worker": round(worker),
        "auroc": round(metrics["out_of_fold"]["auroc"], 4),
        "out_of_time": found.out_of_time,
        "members": [one["algorithm"] for one in metrics["chosen"]["members"]],
    }
    print(json.dumps(line), flush=True)


def _cpu() -> float:
    """Processor seconds so far, of this process and of the workers that have ended."""
    from joblib.externals.loky import get_reusable_executor  # type: ignore[import-untyped]

    get_reusable_executor().shutdown(wait=True)  # a worker counts once it has ended
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def main() -> None:
    """Measure each size named on the command line."""
    for cases in map(int, sys.argv[1:]):
        worker = multiprocessing.get_context("fork").Process(target=measure, args=(cases,))
        worker.start()
        worker.join()
        if worker.exitcode:
            sys.exit(worker.exitcode)


if __name__ == "__main__":
    main()
