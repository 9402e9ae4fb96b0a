"""The ``rarealert`` command. Every stage of ``dvc.yaml`` is a command of the same name.

Each room's commands stand in the module of the same name here; a command only reads its arguments
and calls one function of its room. Nothing heavy is imported before a command needs it:
``rarealert --help`` answers at once.
"""

import ast
import importlib
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer

from rarealert.cli import ensemble as alignment
from rarealert.cli import registry, screening, student, teachers
from rarealert.cli import visits as cases
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
_WITH_SUBCOMMANDS = {"teach": teachers.teach_app}
"""Stages whose command does more than run the stage: ``rarealert teach import``."""


def main() -> None:
    """Entry point: run a command; print a user's error as one sentence and exit with its code."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        app()
    except RareAlertError as error:
        print(f"rarealert: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        if (error.name or "rarealert").startswith("rarealert"):
            raise
        print(
            f"rarealert: this command needs {error.name}, which is not installed here: "
            "pip install 'rarealert[screen]' to screen and serve, 'rarealert[pipeline]' for all.",
            file=sys.stderr,
        )
        sys.exit(1)


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
for _room in (cases, teachers, alignment, registry, screening, student):
    _room.add_commands(app)


@app.command("next")
def what_next() -> None:
    """What the last `dvc repro` made, and what to do with it."""
    from rarealert.cli.workspace import what_next as describe

    print(describe())
