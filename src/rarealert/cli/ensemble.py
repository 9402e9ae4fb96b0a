"""Commands about the ensemble: whom it heard on a case."""

from pathlib import Path
from typing import Annotated

import typer


def add_commands(app: typer.Typer) -> None:
    """Put this room's commands under ``app``."""
    app.command()(explain)


def explain(
    case_id: Annotated[str, typer.Argument(help="a case of the training or validation part")],
    png: Annotated[Path | None, typer.Option(help="also draw the waterfall into this file")] = None,
    json: Annotated[Path | None, typer.Option(help="also write all of it into this file")] = None,
) -> None:
    """Whom the ensemble heard on one case, and how far each moved its risk."""
    from rarealert.ensemble.explain_case import explain_to_terminal

    print(explain_to_terminal(case_id, png, json))
