"""Jinja templates of pages and cards, with the same settings in every room."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def environment(folder: Path) -> "Environment":
    """Templates of ``folder``; an undefined name is an error, not an empty string.

    Values are escaped in ``*.html.j2``, but not in ``*.md.j2``, where escapes would garble names.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=select_autoescape(["html.j2"], default=False),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render_template(template: Path, **values: object) -> str:
    """Render ``template`` with ``values``; the text ends with one newline."""
    page = environment(template.parent).get_template(template.name).render(**values)
    return page.rstrip("\n") + "\n"
