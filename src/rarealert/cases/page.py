"""Pages of this room: one self-contained file each, the same bytes for the same outcome."""

from pathlib import Path


def render_template(template: str, **values: object) -> str:
    """``template``, a file beside this module, filled with ``values``, as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values).rstrip("\n") + "\n"


def write_page(path: Path, page: str) -> None:
    """Write ``page`` to a file that appears once it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)
