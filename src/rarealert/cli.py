"""The ``rarealert`` command. Every stage of ``dvc.yaml`` is a command of the same name.

Nothing heavy is imported before a command needs it: ``rarealert --help`` answers at once.
"""

import ast
import importlib
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from rarealert.errors import RareAlertError
from rarealert.stages import STAGES

_QUIET = {
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "False",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""No library reports usage from a machine that holds patients' data."""

app = typer.Typer(
    help="Rare-disease screening at the first visit. Decision support, not a diagnosis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Fill data/: the embedded corpus, or one of your own.")
app.add_typer(data_app, name="data")
panel_app = typer.Typer(help="The teachers: who is asked, and whether they answer.")
app.add_typer(panel_app, name="panel")
cache_app = typer.Typer(help="What the teachers said: what is in it, is it whole, give it to me.")
app.add_typer(cache_app, name="cache")
audit_app = typer.Typer(help="Look for what no model should learn.")
app.add_typer(audit_app, name="audit")
teach_app = typer.Typer()
_WITH_SUBCOMMANDS = {"teach": teach_app}
"""Stages whose command does more than run the stage: ``rarealert teach import``."""
gates_app = typer.Typer(help="What stands between a version and promotion.")
app.add_typer(gates_app, name="gates")
track_app = typer.Typer(help="The tracking store.")
app.add_typer(track_app, name="track")


def main() -> None:
    """Entry point: run a command; print a user's error as one sentence and exit with its code."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        app()
    except RareAlertError as error:
        print(f"rarealert: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _add_stage(name: str) -> None:
    module = f"rarealert.stages.{name}"
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    doc = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""

    def command(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            importlib.import_module(module).main()

    said: dict[str, Any] = {
        "help": doc.split("\n\n")[0],
        "rich_help_panel": "Stages (run by dvc repro)",
    }
    if name in _WITH_SUBCOMMANDS:
        stage = _WITH_SUBCOMMANDS[name]
        stage.callback(invoke_without_command=True)(command)
        app.add_typer(stage, name=name, **said)
    else:
        app.command(name, **said)(command)


for _stage in STAGES:
    _add_stage(_stage)


@data_app.command("materialise")
def data_materialise() -> None:
    """Rebuild the embedded corpus bit for bit and check it against data.dvc."""
    from rarealert.stages.workspace import materialise

    print(materialise())


@data_app.command("label")
def data_label(
    diagnosis: Annotated[str, typer.Argument(help="a name, or an ORPHA, OMIM or ICD-10-CM code")],
) -> None:
    """Say whether a diagnosis counts as rare, nonrare or excluded, and why."""
    from rarealert.knowledge.labels import verdict_line
    from rarealert.paths import Paths

    print(verdict_line(diagnosis, Paths.here().data))


@data_app.command("import")
def data_import(
    source: Annotated[
        str,
        typer.Argument(help="craftmd, medrbench, phenopackets, fhir, table or orphanet"),
    ],
    path: Annotated[Path, typer.Argument(help="file, folder or zip in its published format")],
    columns: Annotated[
        Path | None, typer.Option(help="column map of a table (docs/importing.md)")
    ] = None,
) -> None:
    """Check a corpus and copy it into data/; then run `dvc add data` to pin it."""
    from rarealert.cases.imports import import_source
    from rarealert.paths import Paths

    print(import_source(source, path, Paths.here().data, columns).sentence())


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
    from rarealert.teachers.check import check_panel

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
    from rarealert.teachers.audit import stats

    print(stats(_cache_folder()))


@cache_app.command("verify")
def cache_verify() -> None:
    """Check every line's checksum."""
    from rarealert.teachers.audit import verify

    print(verify(_cache_folder()))


@cache_app.command("compact")
def cache_compact() -> None:
    """Merge finished shards and drop repeated answers."""
    from rarealert.teachers.audit import compact

    print(compact(_cache_folder()))


@cache_app.command("export")
def cache_export(out: Annotated[Path, typer.Argument(help="JSONL of answers to write")]) -> None:
    """Write every answer with its provenance, without any case's text."""
    from rarealert.teachers.audit import export

    print(export(_cache_folder(), out))


@app.command()
def schema(
    labelled: Annotated[bool, typer.Option(help="with the label, or the visit alone")] = True,
) -> None:
    """Print the JSON Schema of a case."""
    import json

    from rarealert.cases.case import json_schema

    print(json.dumps(json_schema(labelled=labelled), indent=2, sort_keys=True))


@app.command()
def screen(
    source: Annotated[Path, typer.Argument(help="JSONL of visits, one case a line")],
    out: Annotated[Path, typer.Option(help="JSONL of risks to write")],
    alias: Annotated[str, typer.Option(help="which registered version")] = "champion",
    rationale: Annotated[bool, typer.Option(help="add a rationale to each alert")] = False,
) -> None:
    """Score a file of visits with the registered model, on this machine."""
    from rarealert.screening.batch import screen as screen_visits

    print(screen_visits(source, out, alias, rationale).sentence())


@audit_app.command("shortcuts")
def audit_shortcuts(
    cases: Annotated[Path | None, typer.Option(help="a cases.parquet instead of ingest's")] = None,
    limit: Annotated[float, typer.Option(help="AUROC above which a control is flagged")] = 0.6,
) -> None:
    """Try to tell labels by style alone, per source and pooled; exit 1 where it works."""
    from rarealert.paths import Paths
    from rarealert.stages.audit import audit

    outcome = audit(Paths.here(), cases, limit)
    print(outcome.sentence())
    if outcome.audit.flags:
        raise typer.Exit(1)


@app.command()
def graph(
    write: Annotated[bool, typer.Option(help="rewrite the code deps in dvc.yaml")] = False,
) -> None:
    """Compare dvc.yaml's code dependencies with what each stage really imports."""
    from rarealert.stages.graph import sync

    print(sync(write=write))


@gates_app.command("list")
def gates_list() -> None:
    """Every gate with its code, its threshold and what it asks."""
    from rarealert.registry.commands import list_gates

    print(list_gates())


@app.command()
def promote(
    version: Annotated[str, typer.Argument(help="number or alias")] = "challenger",
    reason: Annotated[str, typer.Option(help="why, for the log")] = "",
) -> None:
    """Make a version champion, if every gate lets it pass."""
    from rarealert.registry.commands import promote_version

    print(promote_version(version, reason))


@app.command()
def rollback(reason: Annotated[str, typer.Option(help="why, for the log")] = "") -> None:
    """Make the previous champion champion again."""
    from rarealert.registry.commands import roll_back

    print(roll_back(reason))


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="A: alias, version number or register run")],
    second: Annotated[str, typer.Argument(help="B: the same")],
    out: Annotated[Path, typer.Option(help="folder to write")] = Path("build/compare"),
) -> None:
    """Two versions on the same locked cases: a page, Markdown and JSON."""
    from rarealert.stages.comparing import compare_versions

    print(compare_versions(first, second, out))


@app.command()
def reproduce(
    run: Annotated[str, typer.Argument(help="id of a stage's MLflow run")],
    tolerance: Annotated[float, typer.Option(help="absolute difference of a metric")] = 1e-6,
) -> None:
    """Make a run again from its commit and data, in a worktree, and compare its metrics."""
    from rarealert.registry.reproduce import reproduce as make_again

    print(make_again(run, tolerance))


@track_app.command("sync")
def track_sync() -> None:
    """Rebuild lost runs from dvc.lock and reports/."""
    from rarealert.registry.restore import sync_tracking

    print(sync_tracking())


@app.command("log")
def promotion_log() -> None:
    """Who promoted and rolled back what, when, on which evidence."""
    from rarealert.registry.commands import show_log

    print(show_log())


@app.command("next")
def what_next() -> None:
    """What the last `dvc repro` made, and what to do with it."""
    from rarealert.stages.workspace import what_next as describe

    print(describe())
