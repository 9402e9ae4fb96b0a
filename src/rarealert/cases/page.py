"""Pages of this room: one self-contained file each, the same bytes for the same outcome."""

from pathlib import Path

from rarealert.templates import environment


def render_template(template: str, **values: object) -> str:
    """``template``, a file beside this module, filled with ``values``, as HTML."""
    page = environment(Path(__file__).parent).get_template(template).render(**values)
    return page.rstrip("\n") + "\n"
