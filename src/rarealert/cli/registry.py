"""Commands on the registry: gates, promotion, comparison, reproduction, the tracking store."""

from pathlib import Path
from typing import Annotated

import typer

gates_app = typer.Typer(help="The gates that a version must pass.")
track_app = typer.Typer(help="The tracking store.")

Reason = Annotated[str, typer.Option(help="why, for the log")]


def add_commands(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.add_typer(gates_app, name="gates")
    app.add_typer(track_app, name="track")
    for command in (promote, rollback, compare, reproduce):
        app.command()(command)
    app.command("log")(promotion_log)


@gates_app.command("list")
def gates_list() -> None:
    """List every gate with its code, its check and its threshold."""
    from rarealert.registry.commands import list_gates

    print(list_gates())


def promote(
    version: Annotated[str, typer.Argument(help="number or alias")] = "challenger",
    reason: Reason = "",
) -> None:
    """Make a version champion if it passes every gate."""
    from rarealert.registry.commands import promote_version

    print(promote_version(version, reason))


def rollback(reason: Reason = "") -> None:
    """Make the previous champion the champion again."""
    from rarealert.registry.commands import roll_back

    print(roll_back(reason))


def compare(
    first: Annotated[str, typer.Argument(help="A: alias, version number or register run")],
    second: Annotated[str, typer.Argument(help="B: alias, version number or register run")],
    out: Annotated[Path, typer.Option(help="folder to write")] = Path("build/compare"),
) -> None:
    """Compare two versions on the same locked cases: a page, Markdown and JSON."""
    from rarealert.registry.comparison import compare_versions

    print(compare_versions(first, second, out))


def reproduce(
    run: Annotated[str, typer.Argument(help="id of a stage's MLflow run")],
    tolerance: Annotated[float, typer.Option(help="absolute difference of a metric")] = 1e-6,
    stage_only: Annotated[
        bool, typer.Option("--stage-only", help="run the stage alone, on its recorded inputs")
    ] = False,
) -> None:
    """Recompute a run from its commit and data in a worktree, and compare its metrics."""
    from rarealert.registry.reproduce import reproduce as recompute

    print(recompute(run, tolerance, stage_only))


@track_app.command("sync")
def track_sync() -> None:
    """Rebuild lost runs from DVC's files, and lost versions from mlruns/artifacts."""
    from rarealert.registry.restore import sync_tracking

    print(sync_tracking())


def promotion_log() -> None:
    """List all promotions and rollbacks: who, when, and on which evidence."""
    from rarealert.registry.commands import show_log

    print(show_log())
