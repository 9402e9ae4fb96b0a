"""Commands on teachers: panels, the rationale cache, answers made elsewhere."""

from pathlib import Path
from typing import Annotated

import typer

teach_app = typer.Typer()
"""The stage ``teach``, to which ``rarealert.cli`` adds the command of the stage itself."""
panel_app = typer.Typer(help="The teachers of a panel, and whether they answer.")
cache_app = typer.Typer(help="The rationale cache: statistics, verification, compaction, export.")


def add_commands(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.add_typer(panel_app, name="panel")
    app.add_typer(cache_app, name="cache")
    app.command()(explain)


@teach_app.command("import")
def teach_import(
    path: Annotated[Path, typer.Argument(help="JSONL: case_id with diagnoses or answer")],
    teacher: Annotated[str, typer.Option(help="name of the teacher in a panel")],
    source: Annotated[str, typer.Option(help="folder of data/ with the cases")],
) -> None:
    """Check answers made elsewhere and copy them into data/, where a panel can use them."""
    from rarealert.paths import Paths
    from rarealert.teachers.recorded import import_answers

    print(import_answers(path, teacher, source, Paths.here().data))


@panel_app.command("check")
def panel_check(
    panel: Annotated[str, typer.Argument(help="a packaged panel, or a .yaml file")],
) -> None:
    """Send each teacher one made-up case; print latency, validity and cost."""
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
    from rarealert.teachers.cache_commands import stats

    print(stats(_cache_folder()))


@cache_app.command("verify")
def cache_verify() -> None:
    """Check every line's checksum."""
    from rarealert.teachers.cache_commands import verify

    print(verify(_cache_folder()))


@cache_app.command("compact")
def cache_compact() -> None:
    """Merge finished shards and drop repeated answers."""
    from rarealert.teachers.cache_commands import compact

    print(compact(_cache_folder()))


@cache_app.command("export")
def cache_export(out: Annotated[Path, typer.Argument(help="JSONL of answers to write")]) -> None:
    """Write every answer with its provenance, without any case's text."""
    from rarealert.teachers.cache_commands import export

    print(export(_cache_folder(), out))


def explain(
    case_id: Annotated[str, typer.Argument(help="a case of the training or validation part")],
    png: Annotated[Path | None, typer.Option(help="also write the waterfall plot here")] = None,
    json: Annotated[Path | None, typer.Option(help="also write the explanation here")] = None,
) -> None:
    """Explain the ensemble's risk of one case: the contribution of each teacher."""
    from rarealert.ensemble.explain_case import explain_to_terminal

    print(explain_to_terminal(case_id, png, json))
