"""The workspace as a witness: are the inputs those that DVC pinned, is the code committed?"""

import hashlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from rarealert.registry.judged import InputCheck

SOURCES = ("src", "params.yaml", "dvc.yaml", "data.dvc", "pyproject.toml", "constraints.txt")
"""What decides a result. ``reports/`` and ``dvc.lock`` are rewritten while ``dvc repro`` runs."""


def check_inputs(root: Path, stage: str) -> InputCheck:
    """Compare the data ``stage`` reads (its ``deps`` outside ``src/``) with ``dvc.lock``.

    The pins are the outs of the stages above, written before this one starts. The bytes are
    read anew, so an edit after the fact shows.
    """
    lock = root / "dvc.lock"
    if not lock.is_file():
        return InputCheck(False, 0, (), ())
    pins = _pins(root, _yaml(lock).get("stages", {}))
    deps = _yaml(root / "dvc.yaml").get("stages", {}).get(stage, {}).get("deps", [])
    data = [dep for dep in deps if not dep.startswith("src/")]
    unpinned = tuple(dep for dep in data if dep not in pins)
    pinned = [dep for dep in data if dep in pins]
    changed = tuple(dep for dep in pinned if dvc_md5(root / dep) != pins[dep])
    return InputCheck(True, len(pinned), changed, unpinned)


def stale_stages(root: Path, stage: str) -> tuple[str, ...]:
    """What differs from the state in which the stages above ``stage`` last ran.

    Each is ``<stage>: <what>``. Parameters are compared by their values, outputs by the pin of
    whoever made them (one that another run replaced is named by the stage that read it), and all
    else, such as code, by its bytes.
    """
    stages = _yaml(root / "dvc.lock").get("stages", {})
    pins = _pins(root, stages)
    above = [name for name in _yaml(root / "dvc.yaml").get("stages", {}) if name != stage]
    found: list[str] = []
    for name in above:
        entry = stages.get(name)
        if entry is None:
            found.append(f"{name}: never ran")
            continue
        for dep in entry.get("deps", []):
            path = dep["path"]
            held = pins[path] if path in pins else dvc_md5(root / path)
            if held != dep.get("md5"):
                found.append(f"{name}: {path}")
        for file, keys in entry.get("params", {}).items():
            values = _yaml(root / file)
            found += [f"{name}: {key}" for key, value in keys.items() if _at(values, key) != value]
    return tuple(found)


def _pins(root: Path, stages: Mapping[str, Any]) -> dict[str, str]:
    outs = [out for entry in stages.values() for out in entry.get("outs", [])]
    outs += [out for file in root.glob("*.dvc") for out in _yaml(file).get("outs", [])]
    return {out["path"]: out["md5"] for out in outs if "md5" in out}


def _at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def dvc_md5(path: Path) -> str | None:
    """The digest DVC 3 gives a file or folder; ``None`` where nothing is there.

    A folder's digest is the MD5 of its listing in JSON: relative names and MD5s, sorted by name
    (https://dvc.org/doc/user-guide/project-structure/internal-files).
    """
    if path.is_file():
        return _md5(path)
    if not path.is_dir():
        return None
    names = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    listing = [{"md5": _md5(path / name), "relpath": name} for name in names]
    text = json.dumps(listing, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"


def changed_sources(root: Path) -> tuple[str, ...] | None:
    """Files of ``SOURCES`` that differ from the commit or are untracked; ``None`` without git."""
    command = ["git", "-C", str(root), "status", "--porcelain", "--", *SOURCES]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    if done.returncode != 0:
        return None
    return tuple(line[3:] for line in done.stdout.splitlines())


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _yaml(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {} if path.is_file() else {}
