"""Commands of a reviewer: gates, promotion, comparison, reproduction, the tracking store."""

from pathlib import Path
from typing import Annotated

import typer

gates_app = typer.Typer(help="What stands between a version and promotion.")
track_app = typer.Typer(help="The tracking store.")


def add_commands(app: typer.Typer) -> None:
    """Hang these commands below ``app``."""
    app.add_typer(gates_app, name="gates")
    app.add_typer(track_app, name="track")
    for command in (promote, rollback, compare, reproduce):
        app.command()(command)
    app.command("log")(promotion_log)


@gates_app.command("list")
def gates_list() -> None:
    """Every gate with its code, its threshold and what it asks."""
    from rarealert.registry.commands import list_gates

    print(list_gates())


def promote(
    version: Annotated[str, typer.Argument(help="number or alias")] = "challenger",
    reason: Annotated[str, typer.Option(help="why, for the log")] = "",
) -> None:
    """Make a version champion, if every gate lets it pass."""
    from rarealert.registry.commands import promote_version

    print(promote_version(version, reason))


def rollback(reason: Annotated[str, typer.Option(help="why, for the log")] = "") -> None:
    """Make the previous champion champion again."""
    from rarealert.registry.commands import roll_back

    print(roll_back(reason))


def compare(
    first: Annotated[str, typer.Argument(help="A: alias, version number or register run")],
    second: Annotated[str, typer.Argument(help="B: the same")],
    out: Annotated[Path, typer.Option(help="folder to write")] = Path("build/compare"),
) -> None:
    """Two versions on the same locked cases: a page, Markdown and JSON."""
    from rarealert.registry.comparison import compare_versions

    print(compare_versions(first, second, out))


def reproduce(
    run: Annotated[str, typer.Argument(help="id of a stage's MLflow run")],
    tolerance: Annotated[float, typer.Option(help="absolute difference of a metric")] = 1e-6,
    stage_only: Annotated[
        bool, typer.Option("--stage-only", help="its stage alone, on the inputs it recorded")
    ] = False,
) -> None:
    """Make a run again from its commit and data, in a worktree, and compare its metrics."""
    from rarealert.registry.reproduce import reproduce as make_again

    print(make_again(run, tolerance, stage_only))


@track_app.command("sync")
def track_sync() -> None:
    """Rebuild lost runs from DVC's files, and lost versions from mlruns/artifacts."""
    from rarealert.registry.restore import sync_tracking

    print(sync_tracking())


def promotion_log() -> None:
    """Who promoted and rolled back what, when, on which evidence."""
    from rarealert.registry.commands import show_log

    print(show_log())
