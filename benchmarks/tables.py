"""Print the tables of docs/results.md from a finished workspace, so that no figure is typed.

Command: ``python benchmarks/tables.py [WORKSPACE]`` (the folder with ``reports/``; by default the
current one). Columns are the sources of the test part, pooled first.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KINDS = ("student", "ensemble", "teacher", "baseline", "control")
DASH = "-"


def tables(workspace: Path) -> Iterator[str]:
    """Lines of Markdown: AUROC of every model, and the paired comparisons.

    Raises:
        FileNotFoundError: the workspace has no finished ``evaluate``.
    """
    reports = workspace / "reports"
    found = json.loads((reports / "evaluate" / "metrics.json").read_text(encoding="utf-8"))
    yield from models(found)
    yield ""
    yield from comparisons(found)


def models(found: dict[str, Any]) -> Iterator[str]:
    """AUROC with interval and n, pooled and per source; pooled ECE and calibration slope."""
    sources = sorted(found["by_source"]) if len(found["by_source"]) > 1 else []
    columns = ["model", "AUROC (95 % interval), n", *sources, "ECE", "calibration slope"]
    yield row(columns)
    yield row(["---"] * len(columns))
    for name in sorted(found["models"], key=lambda name: rank(name, found)):
        figures = found["models"][name]
        yield row(
            [
                name,
                interval(figures),
                *[interval(found["by_source"][source].get(name)) for source in sources],
                plain(figures, "ece", 3),
                plain(figures, "calibration_slope", 2),
            ]
        )


def comparisons(found: dict[str, Any]) -> Iterator[str]:
    """Paired AUROC differences, each with its interval."""
    yield row(["paired, pooled", "AUROC difference (95 % interval)", "p (Holm)"])
    yield row(["---"] * 3)
    for name, figure in found["comparisons"].items():
        low, high = figure["ci_low"], figure["ci_high"]
        difference = f"{figure['value']:+.3f} ({low:+.3f} to {high:+.3f})"
        yield row([name, difference, f"{figure['p_holm']:.3f}"])


def rank(name: str, found: dict[str, Any]) -> tuple[int, float]:
    """Student first, then by kind, the best of a kind first."""
    figure = found["models"][name].get("auroc")
    return KINDS.index(name.split(":")[0]), -figure["value"] if figure else 0.0


def interval(figures: dict[str, Any] | None) -> str:
    """``0.744 (0.654 to 0.819), 250``, or a dash where the model has no figure."""
    figure = (figures or {}).get("auroc")
    if not figure:
        return DASH
    return (
        f"{figure['value']:.3f} ({figure['ci_low']:.3f} to {figure['ci_high']:.3f}), {figure['n']}"
    )


def plain(figures: dict[str, Any], name: str, digits: int) -> str:
    """The figure alone, or a dash."""
    return f"{figures[name]['value']:.{digits}f}" if figures.get(name) else DASH


def row(cells: list[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print("\n".join(tables(Path(sys.argv[1] if len(sys.argv) > 1 else "."))))
