"""The validation page: one self-contained file that reads the same offline and in a git diff."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rarealert.templates import render_template


@dataclass(frozen=True)
class Check:
    """One expectation and its outcome, in counts only: no value of a case is kept.

    ``checked`` and ``unexpected`` are rows; ``None`` where the expectation is about the table.
    """

    table: str
    column: str | None
    title: str
    expectation: str
    success: bool
    checked: int | None
    unexpected: int | None


def render_page(
    checks: Sequence[Check],
    sources: Sequence[Mapping[str, object]],
    drift: Sequence[Mapping[str, object]],
) -> str:
    """The page as HTML; ``sources`` and ``drift`` are rows of the tables of those names."""
    tables = dict.fromkeys(check.table for check in checks)
    return render_template(
        Path(__file__).parent / "quality_page.html.j2",
        tables={name: [check for check in checks if check.table == name] for name in tables},
        failed=[check for check in checks if not check.success],
        sources=sources,
        drift=drift,
    )
