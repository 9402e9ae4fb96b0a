"""What a user does around the graph: fill ``data/`` before it, read what it made after it.

Commands: ``rarealert data materialise`` and ``rarealert next``.
"""

import json
import subprocess
import sys
from typing import Any

from rarealert.errors import BadInputError, RareAlertError
from rarealert.evaluation.report import why_absent
from rarealert.params import load_params
from rarealert.paths import Paths


def materialise() -> str:
    """Make sure ``data/`` is what ``data.dvc`` pins; rebuild the embedded corpus if it is empty.

    Data that is already there is only checked: an imported corpus is never overwritten.

    Raises:
        RareAlertError: what lies in ``data/`` differs from the pin; the sentence says how to
            decide which of the two is right.
    """
    from rarealert.simulation.corpus import materialise as simulate

    paths = Paths.here()
    folder = paths.data / "simulated"
    imported = any(place != folder for place in paths.data.glob("*"))
    rebuilt = not imported and not (folder / "SOURCE.json").is_file()  # written last
    if rebuilt:
        simulate(load_params(paths.params).data.simulated, folder)
    if not (paths.root / "data.dvc").is_file():
        return "data/ is filled but not pinned: run `dvc add data`."
    if _differs_from_pin(paths):
        raise RareAlertError(
            "data/ differs from what data.dvc pins. To keep what is there: `dvc add data` and "
            "commit data.dvc. To go back to the pin: `rm -r data` and run this again, or "
            "`dvc pull` where a remote holds it."
        )
    return f"data/ matches data.dvc ({'rebuilt' if rebuilt else 'already there'})"


def _differs_from_pin(paths: Paths) -> bool:
    """Whether the bytes differ; that a fresh clone has not cached them yet is no difference."""
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


HEADLINE = ("student", "ensemble")


def _failed(gates: dict[str, Any]) -> list[dict[str, Any]]:
    return [gate for gate in gates["gates"] if not gate["passed"]]


def _auroc(report: dict[str, Any], name: str) -> str:
    metric = report["models"].get(name, {}).get("auroc")
    if metric is None:
        return f"not defined on the test part ({why_absent(report, name, 'auroc')})"
    low, high = metric["ci_low"], metric["ci_high"]
    return f"{metric['value']:.3f} ({low:.3f} to {high:.3f}), n={metric['n']}"


def _read_report(paths: Paths, stage: str, name: str) -> dict[str, Any]:
    file = paths.report(stage) / name
    if not file.is_file():
        raise BadInputError(f"{file} is missing; run `dvc repro` to the end first.")
    report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return report
