"""The ``rarealert`` command. Every stage of ``dvc.yaml`` is a command with the stage's name.

The modules here define the other commands, one module per group. A command reads its arguments
and calls one function. Heavy libraries are imported inside that function, so ``rarealert --help``
responds at once.
"""

import ast
import importlib
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import typer

from rarealert.cli import checkout as workspace
from rarealert.cli import registry, screening, teachers, visits
from rarealert.errors import RareAlertError
from rarealert.stages import STAGES

_NO_TELEMETRY = {
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "False",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""No library reports usage from a machine with patients' data."""

app = typer.Typer(
    help="Rare-disease screening at the first visit. Decision support, not a diagnosis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_WITH_SUBCOMMANDS = {"teach": teachers.teach_app}
"""Stages with commands of their own, such as ``rarealert teach import``."""


def main() -> None:
    """Run a command; print a user's error as one message and exit with its code."""
    for name, value in _NO_TELEMETRY.items():
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
            f"rarealert: this command needs {error.name}, which is not installed: "
            "pip install 'rarealert[screen]' to screen and serve, 'rarealert[pipeline]' for all.",
            file=sys.stderr,
        )
        sys.exit(1)


def _add_stage(name: str) -> None:
    module = f"rarealert.stages.{name}"

    def command(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            importlib.import_module(module).main()

    summary, panel = _summary(module), "Stages (run by dvc repro)"
    if name in _WITH_SUBCOMMANDS:
        stage = _WITH_SUBCOMMANDS[name]
        stage.callback(invoke_without_command=True)(command)
        app.add_typer(stage, name=name, help=summary, rich_help_panel=panel)
    else:
        app.command(name, help=summary, rich_help_panel=panel)(command)


def _summary(module: str) -> str:
    """First paragraph of a module's docstring, without importing the module."""
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").split("\n\n")[0]


for _stage in STAGES:
    _add_stage(_stage)
for _group in (visits, teachers, registry, screening, workspace):
    _group.add_commands(app)
