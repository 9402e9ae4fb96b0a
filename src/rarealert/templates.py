"""Templates of pages and cards, filled the same way in every room."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def environment(folder: Path) -> "Environment":
    """Templates of ``folder``; a name that is not given is an error, never an empty place.

    ``*.html.j2`` escapes what it is given, ``*.md.j2`` does not: that would garble names.
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
    """Return the page that ``template`` gives for ``values``, with one newline at its end."""
    page = environment(template.parent).get_template(template.name).render(**values)
    return page.rstrip("\n") + "\n"
