"""Commands around the graph: fill ``data/`` and set parameters before it, read its results after.

Commands: ``rarealert data materialise`` (in the group of ``visits``), ``rarealert params use`` and
``rarealert next``.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from rarealert.errors import BadInputError, RareAlertError
from rarealert.paths import Paths

HEADLINE = ("student", "ensemble")

params_app = typer.Typer(help="Parameters: params.yaml and the profiles that change it.")


def add_commands(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.add_typer(params_app, name="params")
    app.command("next")(show_next)


@params_app.callback()
def params() -> None:
    """Parameters: params.yaml and the profiles that change it."""


@params_app.command("use")
def use(
    profile: Annotated[Path, typer.Argument(help="such as profiles/full.yaml")],
) -> None:
    """Write a profile's values into params.yaml."""
    from rarealert.params import use_profile

    print(use_profile(profile, Paths.here().params))


def show_next() -> None:
    """Show the results of the last `dvc repro` and what to do with them."""
    print(what_next())


def materialise() -> str:
    """Rebuild the embedded corpus if ``data/`` is empty, and check ``data/`` against ``data.dvc``.

    Existing data is only checked: an imported corpus is never overwritten.

    Raises:
        RareAlertError: ``data/`` differs from the pin; the message has the commands to keep either.
    """
    from rarealert.params import load_params
    from rarealert.simulation.corpus import materialise as simulate

    paths = Paths.here()
    folder = paths.data / "simulated"
    imported = any(place != folder for place in paths.data.glob("*"))
    rebuilt = not imported and not (folder / "SOURCE.json").is_file()  # it is written last
    if rebuilt:
        simulate(load_params(paths.params).data.simulated, folder)
    if not (paths.root / "data.dvc").is_file():
        return "data/ is filled but not pinned: run `dvc add data`."
    if _differs_from_pin(paths):
        raise RareAlertError(
            "data/ differs from what data.dvc pins. To keep data/: `dvc add data` and commit "
            "data.dvc. To return to the pin: `rm -r data` and run this again, or `dvc pull` where "
            "a remote has it."
        )
    return f"data/ matches data.dvc ({'rebuilt' if rebuilt else 'already there'})"


def _differs_from_pin(paths: Paths) -> bool:
    """Whether the bytes differ; it doesn't matter whether DVC has cached them."""
    command = [sys.executable, "-m", "dvc", "data", "status", "--json"]
    done = subprocess.run(command, cwd=paths.root, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BadInputError(f"`dvc data status` failed: {done.stderr.strip()[:300]}")
    uncommitted = json.loads(done.stdout or "{}").get("uncommitted", {})
    return any("data/" in places for places in uncommitted.values())


def what_next() -> str:
    """The registered version, the headline figures and the commands that use them.

    Raises:
        BadInputError: a report is missing because ``dvc repro`` has not finished.
    """
    paths = Paths.here()
    gates = _read_report(paths, "register", "gates.json")
    report = _read_report(paths, "evaluate", "metrics.json")
    champion = gates["promoted"]
    alias = "champion" if champion else "challenger"
    lines = [f"registered  {gates['model_name']} version {gates['version']} as {alias}"]
    lines += [f"  gate {gate['code']} failed: {gate['reason']}" for gate in _failed(gates)]
    lines += [f"  auroc     {name:<10} {_auroc(report, name)}" for name in HEADLINE]
    lines += [
        "next        make ui                                   compare runs in MLflow",
        "            reports/evaluate/index.html               every figure with its interval",
        f"            rarealert screen VISITS.jsonl --out RISKS.jsonl --alias {alias}",
        "This is decision support, not a diagnosis.",
    ]
    return "\n".join(lines)


def _failed(gates: dict[str, Any]) -> list[dict[str, Any]]:
    return [gate for gate in gates["gates"] if not gate["passed"]]


def _auroc(report: dict[str, Any], name: str) -> str:
    metric = report["models"].get(name, {}).get("auroc")
    if metric is None:
        from rarealert.evaluation.report import why_absent

        return f"not defined on the test part ({why_absent(report, name, 'auroc')})"
    low, high = metric["ci_low"], metric["ci_high"]
    return f"{metric['value']:.3f} ({low:.3f} to {high:.3f}), n={metric['n']}"


def _read_report(paths: Paths, stage: str, name: str) -> dict[str, Any]:
    file = paths.report(stage) / name
    if not file.is_file():
        raise BadInputError(f"{file} is missing; run `dvc repro` to the end first.")
    report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return report
