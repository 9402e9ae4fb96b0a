"""Commands that score visits with a registered model."""

from pathlib import Path
from typing import Annotated

import typer


def add_commands(app: typer.Typer) -> None:
    """Hang these commands below ``app``."""
    app.command()(screen)


def screen(
    source: Annotated[Path, typer.Argument(help="JSONL of visits, one case a line")],
    out: Annotated[Path, typer.Option(help="JSONL of risks to write")],
    alias: Annotated[str, typer.Option(help="which registered version")] = "champion",
    rationale: Annotated[bool, typer.Option(help="add a rationale to each alert")] = False,
) -> None:
    """Score a file of visits with the registered model, on this machine."""
    from rarealert.screening.batch import screen as screen_visits

    print(screen_visits(source, out, alias, rationale).sentence())
