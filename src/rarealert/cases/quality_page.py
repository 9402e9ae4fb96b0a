"""The validation page: one self-contained file that reads the same offline and in a git diff."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TEMPLATE = "quality_page.html.j2"


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


def render_page(checks: Sequence[Check], sources: Sequence[Mapping[str, object]]) -> str:
    """The page as HTML; ``sources`` are the rows of ``quality.per_source``."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    tables = dict.fromkeys(check.table for check in checks)
    grouped = {name: [check for check in checks if check.table == name] for name in tables}
    page = environment.get_template(_TEMPLATE).render(
        tables=grouped, failed=[check for check in checks if not check.success], sources=sources
    )
    return page.rstrip("\n") + "\n"
