"""Commands around the student's training."""

from pathlib import Path
from typing import Annotated

import typer

params_app = typer.Typer(help="Settings: params.yaml and the profiles beside it.")


@params_app.callback()
def params() -> None:
    """Settings: params.yaml and the profiles beside it."""


@params_app.command("use")
def use(
    profile: Annotated[Path, typer.Argument(help="params.full.yaml, params.qwen3-4b.yaml, …")],
) -> None:
    """Write a profile's values into params.yaml."""
    from rarealert.params import use_profile
    from rarealert.paths import Paths

    print(use_profile(profile, Paths.here().params))


def add_commands(app: typer.Typer) -> None:
    """Put this room's commands under ``app``."""
    app.add_typer(params_app, name="params")
