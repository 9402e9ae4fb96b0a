"""What the benchmarks share: the machine's GEMM peak, paired timing, visits, tables."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from rarealert.cases.case import LabelledCase
from rarealert.cases.store import read_cases

_SHAPES = ((2048, 2048, 2048), (4096, 576, 1536), (4096, 1536, 576))  # square, and a layer's own


@dataclass(frozen=True)
class Spent:
    """Seconds on the clock, and of the processor summed over threads."""

    wall: float
    cpu: float


def spent(work: Callable[[], object]) -> Spent:
    """What ``work`` took."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Spent(time.perf_counter() - wall, time.process_time() - cpu)


def median(runs: Sequence[Spent]) -> Spent:
    """The median of each clock over ``runs``."""
    return Spent(
        statistics.median(run.wall for run in runs), statistics.median(run.cpu for run in runs)
    )


def in_turn(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, Spent]:
    """Each of ``works`` in turn, A B A B …, so that a machine that drifts drifts for all."""
    runs: dict[str, list[Spent]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            runs[name].append(spent(work))
    return {name: median(of) for name, of in runs.items()}


def gemm_peak(repeats: int = 5) -> float:
    """Floating-point operations a second of the fastest fp32 product measured here."""
    best = 0.0
    for rows, inner, columns in _SHAPES:
        left, right = torch.randn(rows, inner), torch.randn(inner, columns)
        torch.mm(left, right)
        for _ in range(repeats):
            seconds = spent(lambda left=left, right=right: torch.mm(left, right)).wall
            best = max(best, 2 * rows * inner * columns / seconds)
    return best


def linear_weights(layer: torch.nn.Module) -> int:
    """Weights of a layer's matrix products; twice as many operations a token and pass."""
    linear = (part for part in layer.modules() if isinstance(part, torch.nn.Linear))
    return sum(part.weight.numel() for part in linear)


def visits(workspace: Path, part: str, count: int) -> list[LabelledCase]:
    """Every n-th case of a part that ``split`` wrote, ``count`` in all."""
    cases = read_cases(workspace / "build" / "split" / f"{part}.parquet")
    return cases[:: max(1, len(cases) // count)][:count]


def table(heading: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A markdown table."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
