"""Commands about teachers: who is asked, what they said, answers made elsewhere."""

from pathlib import Path
from typing import Annotated

import typer

teach_app = typer.Typer()
"""The stage ``teach`` with commands of its own; the callback that runs it is the stage's."""
panel_app = typer.Typer(help="The teachers: who is asked, and whether they answer.")
cache_app = typer.Typer(help="What the teachers said: what is in it, is it whole, give it to me.")


def add_commands(app: typer.Typer) -> None:
    """Hang these commands below ``app``."""
    app.add_typer(panel_app, name="panel")
    app.add_typer(cache_app, name="cache")


@teach_app.command("import")
def teach_import(
    path: Annotated[Path, typer.Argument(help="JSONL: case_id with diagnoses or answer")],
    teacher: Annotated[str, typer.Option(help="who gave the answers; the name in a panel")],
    source: Annotated[str, typer.Option(help="folder of data/ whose cases were judged")],
) -> None:
    """Check answers made elsewhere and copy them into data/, for a panel to name."""
    from rarealert.paths import Paths
    from rarealert.teachers.importing import import_answers

    print(import_answers(path, teacher, source, Paths.here().data))


@panel_app.command("check")
def panel_check(
    panel: Annotated[str, typer.Argument(help="a packaged panel, or a .yaml file")],
) -> None:
    """Ask each teacher one made-up case; print latency, validity and cost."""
    from rarealert.paths import Paths
    from rarealert.teachers.roster import check_panel

    paths = Paths.here()
    table, whole = check_panel(panel, paths.root, paths.data)
    print(table)
    raise typer.Exit(0 if whole else 1)


def _cache_folder() -> Path:
    from rarealert.paths import Paths

    return Paths.here().build("teach") / "cache"


@cache_app.command("stats")
def cache_stats() -> None:
    """Answers, failures, tokens and cost of each teacher."""
    from rarealert.teachers.cache_audit import stats

    print(stats(_cache_folder()))


@cache_app.command("verify")
def cache_verify() -> None:
    """Check every line's checksum."""
    from rarealert.teachers.cache_audit import verify

    print(verify(_cache_folder()))


@cache_app.command("compact")
def cache_compact() -> None:
    """Merge finished shards and drop repeated answers."""
    from rarealert.teachers.cache_audit import compact

    print(compact(_cache_folder()))


@cache_app.command("export")
def cache_export(out: Annotated[Path, typer.Argument(help="JSONL of answers to write")]) -> None:
    """Write every answer with its provenance, without any case's text."""
    from rarealert.teachers.cache_audit import export

    print(export(_cache_folder(), out))
