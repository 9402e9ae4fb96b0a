"""The workspace compared with its records: ``dvc status`` for the pipeline, git for the code."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rarealert.errors import RareAlertError
from rarealert.registry.judged import WorkspaceState
from rarealert.tracking.lineage import data_dependencies, locked_stages, pipeline_stages

SOURCES = ("src", "params.yaml", "dvc.yaml", "data.dvc", "pyproject.toml", "constraints.txt")
"""What decides a result. ``reports/`` and ``dvc.lock`` are rewritten while ``dvc repro`` runs."""

Status = Mapping[str, Sequence[Any]]
"""Stage or ``.dvc`` file → its changes, as ``dvc status --json`` prints them."""


def check_workspace(root: Path, stage: str) -> WorkspaceState:
    """Compare the inputs of ``stage`` and all other stages with ``dvc.lock``.

    Works while ``dvc repro`` runs ``stage``: DVC then locks that stage's outputs only.
    """
    if not (root / "dvc.lock").is_file():
        return WorkspaceState(fault="There is no dvc.lock; run the stage with dvc repro.")
    others = [name for name in pipeline_stages(root) if name != stage]
    pinned = [file.name for file in sorted(root.glob("*.dvc")) if file.is_file()]
    try:
        status = dvc_status(root, [*others, *pinned])
    except RareAlertError as error:
        return WorkspaceState(fault=str(error))
    inputs = data_dependencies(root, stage)
    outs = {path for _, path, _ in _changes(status, "changed outs")}
    return WorkspaceState(
        inputs=tuple(inputs),
        changed=tuple(path for path in inputs if path in outs),
        unpinned=tuple(path for path, md5 in inputs.items() if md5 is None),
        stale=stale_stages(root, others, status),
    )


def stale_stages(root: Path, stages: Sequence[str], status: Status) -> tuple[str, ...]:
    """Return what changed since ``stages`` ran, each as ``<stage>: <path or key>``.

    Data that is not in the workspace is no change: a stage does not run again for it.
    """
    never = [f"{name}: never ran" for name in stages if name not in locked_stages(root)]
    found = [
        f"{name}: {path}"
        for name, path, how in _changes(status, "changed deps")
        if name in stages and not (how == "deleted" and path in data_dependencies(root, name))
    ]
    commands = [
        f"{name}: {change}"
        for name in stages
        for change in status.get(name, ())
        if isinstance(change, str)
    ]
    return (*never, *found, *commands)


def _changes(status: Status, kind: str) -> Iterator[tuple[str, str, str]]:
    """Yield stage, path or parameter, and how it changed."""
    for stage, changes in status.items():
        for change in changes:
            for path, how in (change.get(kind, {}) if isinstance(change, dict) else {}).items():
                if isinstance(how, dict):
                    yield from ((stage, key, why) for key, why in how.items())
                else:
                    yield stage, path, how


def dvc_status(root: Path, targets: Sequence[str]) -> dict[str, list[Any]]:
    """Return the changes of these stages and ``.dvc`` files.

    DVC's memory of file digests is set aside, so every byte is read.

    Raises:
        RareAlertError: DVC fails, for example because this is no DVC repository.
    """
    command = [sys.executable, "-m", "dvc", "status", "--json", *targets]
    with TemporaryDirectory(prefix="rarealert-") as folder:
        environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": folder}
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, check=False
        )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RareAlertError(f"`dvc status` failed: {last[:300]}")
    status: dict[str, list[Any]] = json.loads(done.stdout)
    return status


def changed_sources(root: Path) -> tuple[str, ...] | None:
    """Return files of ``SOURCES`` that differ from the commit; ``None`` outside git."""
    command = ["git", "-C", str(root), "status", "--porcelain", "--", *SOURCES]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    if done.returncode != 0:
        return None
    return tuple(line[3:] for line in done.stdout.splitlines())
