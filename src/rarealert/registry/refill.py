"""What a reproduction reads, put into its worktree: data, recorded inputs, teachers' answers.

Answers of endpoints are bought once. They are taken from DVC's cache or not at all.
"""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from rarealert.errors import BadInputError
from rarealert.registry.workspace import stale_stages
from rarealert.registry.worktree import failure, run
from rarealert.tracking.lineage import stage_inputs

_ANSWERS = "build/teach/cache"
_TEACH = "teach"


def fill_data(tree: Path) -> None:
    """Data from the checkout's DVC cache, or made anew."""
    if failure(tree, "dvc", "checkout", "--quiet", "data.dvc"):
        run(tree, "rarealert", "data", "materialise")


def fill_recorded(tree: Path, root: Path, stage: str, recorded: Mapping[str, str]) -> None:
    """The stage's inputs of the recorded digests: from DVC's cache, or reports kept in git.

    A run is logged before its ``dvc.lock`` is committed, so the lock that pins what it read is its
    commit's or the checkout's.

    Raises:
        BadInputError: neither lock pins them, or they are gone.
    """
    lock = next((place for place in (tree, root) if _pins(place, stage, recorded)), None)
    if lock is None:
        raise BadInputError(
            f"What this run of {stage} read is pinned neither by its commit nor by this "
            "checkout's dvc.lock: leave --stage-only out, and all above it is made again too."
        )
    if lock is root:
        shutil.copyfile(root / "dvc.lock", tree / "dvc.lock")
    wanted = [one.path for one in stage_inputs(lock, stage)]
    reports = [path for path in wanted if path.startswith("reports/")]
    for path in reports:
        if _md5(tree / path) != recorded[path] and _md5(root / path) == recorded[path]:
            shutil.copyfile(root / path, tree / path)
    cached = [path for path in wanted if path not in reports]
    gone = failure(tree, "dvc", "checkout", "--quiet", *cached) if cached else ""
    if gone or any(_md5(tree / path) != recorded[path] for path in reports):
        raise BadInputError(
            f"What this run of {stage} read is no longer in DVC's cache or in reports/: `dvc pull` "
            "it, or leave --stage-only out."
        )


def _pins(root: Path, stage: str, recorded: Mapping[str, str]) -> bool:
    pinned = stage_inputs(root, stage)
    return bool(pinned) and all(recorded.get(one.path) == one.md5 for one in pinned)


def fill_answers(tree: Path, root: Path) -> None:
    """What the teachers have said, before the stage that would ask them is made again.

    The lock is the commit's where it was written by this code and these settings, else the
    checkout's: a run is made before its lock is committed, and the cache only ever grows.

    Raises:
        BadInputError: no answers are found, and the panel has endpoints to be paid again.
    """
    kept = _yaml(tree / "dvc.lock")
    for lock in _likely(tree, root):
        stages = {**kept.get("stages", {}), _TEACH: lock["stages"][_TEACH]}
        text = yaml.safe_dump({"schema": "2.0", **kept, "stages": stages})
        (tree / "dvc.lock").write_text(text, encoding="utf-8")
        if not failure(tree, "dvc", "checkout", "--quiet", _ANSWERS):
            return
    if endpoints(tree):
        raise BadInputError(
            "What the endpoints of this run's panel said is not in DVC's cache here, and nobody is "
            f"asked again: `dvc pull {_ANSWERS}` where a remote holds it."
        )


def _likely(tree: Path, root: Path) -> list[dict[str, Any]]:
    """The locks whose answers may be those of the commit, the likelier one first."""
    own, other = _yaml(tree / "dvc.lock"), _yaml(root / "dvc.lock")
    stages = list(_yaml(tree / "dvc.yaml").get("stages", {}))
    until = stages[: stages.index(_TEACH) + 1]
    pinning = [
        lock
        for lock in (own, other)
        if any(
            out["path"] == _ANSWERS
            for out in lock.get("stages", {}).get(_TEACH, {}).get("outs", [])
        )
    ]
    stale = any(line.split(":")[0] in until for line in stale_stages(tree, ""))
    return pinning[-1:] if stale else pinning


def is_taught(tree: Path, stage: str) -> bool:
    """Whether making ``stage`` again with all above it runs ``teach``."""
    stages = list(_yaml(tree / "dvc.yaml").get("stages", {}))
    return _TEACH in stages and stage in stages[stages.index(_TEACH) :]


def endpoints(tree: Path) -> list[dict[str, Any]]:
    """The entries of the tree's panel that are asked over a network, as its file has them."""
    name = str(_yaml(tree / "params.yaml").get(_TEACH, {}).get("panel", ""))
    packaged = tree / "src/rarealert/teachers/panels" / f"{name}.yaml"
    panel = _yaml(tree / name if name.endswith(".yaml") else packaged)
    return [one for one in panel.get("teachers", []) if one.get("kind") == "endpoint"]


def keys(tree: Path) -> set[str]:
    """The variables that hold the keys of those endpoints."""
    return {one["key_variable"] for one in endpoints(tree) if one.get("key_variable")}


def _yaml(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {} if path.is_file() else {}


def _md5(path: Path) -> str:
    """DVC's digest of a file."""
    if not path.is_file():
        return ""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
