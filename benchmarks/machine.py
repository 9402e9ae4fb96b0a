"""Shared by the benchmarks: the machine's GEMM peak, paired timing, visits, rows, tables."""

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from rarealert.student.examples import ExampleSet
from rarealert.visits.case import LabelledCase
from rarealert.visits.store import read_cases

Floats = np.ndarray

_RESAMPLES = 1000
_SHAPES = ((2048, 2048, 2048), (4096, 576, 1536), (4096, 1536, 576))  # square, and a layer's own


@dataclass(frozen=True)
class Spent:
    """Wall-clock seconds, and CPU seconds summed over threads."""

    wall: float
    cpu: float


def now() -> Spent:
    """Both clocks."""
    return Spent(time.perf_counter(), time.process_time())


def since(begun: Spent) -> Spent:
    """The time since ``begun``."""
    return Spent(time.perf_counter() - begun.wall, time.process_time() - begun.cpu)


def spent(work: Callable[[], object]) -> Spent:
    """The time that ``work`` takes."""
    begun = now()
    work()
    return since(begun)


def median(runs: Sequence[Spent]) -> Spent:
    """The median of each clock over ``runs``."""
    return Spent(
        statistics.median(run.wall for run in runs), statistics.median(run.cpu for run in runs)
    )


def in_turn(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, Spent]:
    """Median times of ``works``, run in turn (A B A B …) so that drift affects all alike."""
    runs: dict[str, list[Spent]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            runs[name].append(spent(work))
    return {name: median(of) for name, of in runs.items()}


def gemm_peak(repeats: int = 5) -> float:
    """Floating-point operations per second of the fastest fp32 product on this machine."""
    best = 0.0
    for rows, inner, columns in _SHAPES:
        left, right = torch.randn(rows, inner), torch.randn(inner, columns)
        torch.mm(left, right)
        for _ in range(repeats):
            seconds = spent(lambda left=left, right=right: torch.mm(left, right)).wall
            best = max(best, 2 * rows * inner * columns / seconds)
    return best


def linear_weights(layer: torch.nn.Module) -> int:
    """Weights in a layer's matrix products; each costs two operations per token and pass."""
    linear = (part for part in layer.modules() if isinstance(part, torch.nn.Linear))
    return sum(part.weight.numel() for part in linear)


def visits(workspace: Path, part: str, count: int) -> list[LabelledCase]:
    """``count`` cases of a part of the split, evenly spaced."""
    cases = read_cases(workspace / "build" / "split" / f"{part}.parquet")
    return cases[:: max(1, len(cases) // count)][:count]


def table(heading: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


class Rows:
    """Logits of variants on one validation part, in JSON lines: a kill loses at most one row."""

    def __init__(self, file: Path) -> None:
        self._file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        self._rows = {row["name"]: row for row in map(json.loads, lines)}

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of ``names`` without a row."""
        return [name for name in names if name not in self._rows]

    def add(self, name: str, judge: ExampleSet, logits: Floats, cost: Spent | None = None) -> None:
        """Append the row ``name`` with its ``logits``, in the order of ``judge``."""
        row = {
            "name": name,
            "rare": judge.rare.tolist(),
            "groups": list(judge.groups),
            "logits": [round(float(value), 6) for value in logits],
            "cpu": None if cost is None else round(cost.cpu, 1),
        }
        self._rows[name] = row
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        print(f"{name}: {roc_auc_score(judge.rare, logits):.3f}", file=sys.stderr, flush=True)

    def table(self, heading: str, reference: str) -> str:
        """AUROC with 95 % intervals over whole diseases, and paired differences."""
        other = self._rows[reference]
        lines = []
        for name, row in self._rows.items():
            if row["groups"] != other["groups"]:
                raise SystemExit(f"{self._file} mixes parts; remove it and run again.")
            rare, logits = np.array(row["rare"]), np.array(row["logits"])
            mine = interval(rare, row["groups"], logits)
            against = np.array(other["logits"])
            apart = "" if name == reference else interval(rare, row["groups"], logits, against)
            lines.append([name, mine, apart, "" if row["cpu"] is None else f"{row['cpu']:.0f}"])
        count = f"validation part, n = {len(other['rare'])}, {len(set(other['groups']))} diseases"
        columns = ["AUROC (95 % interval)", f"difference from {reference}", "training, CPU s"]
        return f"{count}\n\n{table([heading, *columns], lines)}"


def interval(
    rare: Floats, groups: Sequence[str], logits: Floats, other: Floats | None = None
) -> str:
    """AUROC, or its difference from ``other``'s, with a percentile bootstrap over diseases."""

    def value(rows: Floats) -> float:
        mine = float(roc_auc_score(rare[rows], logits[rows]))
        return mine if other is None else mine - float(roc_auc_score(rare[rows], other[rows]))

    random, names = np.random.default_rng(0), np.array(groups)
    members = [np.flatnonzero(names == group) for group in sorted(set(groups))]
    drawn = []
    for _ in range(_RESAMPLES):
        picked = random.integers(len(members), size=len(members))
        rows = np.concatenate([members[index] for index in picked])
        if len(set(rare[rows])) > 1:
            drawn.append(value(rows))
    low, high = np.percentile(drawn, [2.5, 97.5])
    sign = "" if other is None else "+"
    shown = f"{value(np.arange(len(rare))):{sign}.3f}"
    return f"{shown} ({low:{sign}.3f} to {high:{sign}.3f})"
