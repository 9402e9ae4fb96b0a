"""The identity of a version: digests of its adapter, base model, code and settings."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from rarealert.files import sha256_of_file

IDENTITY = ("adapter.sha256", "base.sha256", "code.sha256", "config.sha256")
"""Tags that identify a version; no two versions have all of them in common."""

ADAPTER_CARD = "README.md"
"""The card beside an adapter's weights, where peft and the hub look for it."""

_MODULES = ("__init__.py", "errors.py", "files.py", "params.py", "paths.py")
_ROOMS = (
    "calibration",
    "knowledge",
    "language",
    "screening",
    "simulation",
    "student",
    "visits",
)
"""Modules and rooms that ``screening/pyfunc.py`` imports, directly or not."""

_LEFT_OUT = ("__pycache__", "*.pyc", "*.partial")
_AROUND_A_MODEL = ("service", "page", "clinic")
"""Parts of ``screening`` that call a model and do not belong to it: a new page is no version."""


def folder_sha256(folder: Path, leave_out: str | None = None) -> str:
    """Return the SHA-256 over the relative names and digests of all files below ``folder``.

    The file with the relative name ``leave_out`` does not count.
    """
    digest = hashlib.sha256()
    for path in sorted(files_below(folder)):
        name = path.relative_to(folder).as_posix()
        if name != leave_out:
            digest.update(f"{name}\0{sha256_of_file(path)}\n".encode())
    return digest.hexdigest()


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files below ``folder`` without compiled code."""
    for path in folder.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def adapter_sha256(adapter: Path) -> str:
    """Return the digest of an adapter's folder without its card.

    The card is written after the adapter was judged, and can so name the adapter's digest.
    """
    return folder_sha256(adapter, leave_out=ADAPTER_CARD)


def config_sha256(config: Mapping[str, Any]) -> str:
    """Return the digest of the settings that MLflow passes to a model when it loads."""
    settings = "".join(f"{key}={value!r}\n" for key, value in sorted(config.items()))
    return hashlib.sha256(settings.encode()).hexdigest()


def copy_package(source: Path, target: Path) -> Path:
    """Copy the rooms that a version needs from ``source`` to ``target/rarealert``; return that.

    Teachers, ensemble and stages stay behind: a clinic runs the student alone.
    """
    folder = target / source.name
    folder.mkdir(parents=True)
    for name in _MODULES:
        shutil.copy(source / name, folder / name)
    for room in _ROOMS:
        without = (*_LEFT_OUT, *_AROUND_A_MODEL) if room == "screening" else _LEFT_OUT
        shutil.copytree(source / room, folder / room, ignore=shutil.ignore_patterns(*without))
    return folder


def identity_of(files: Path) -> dict[str, str]:
    """Recompute the digests of a version from its ``files`` in the registry.

    A part that is missing or can't be read has no digest.
    """
    code = files / "code" / "rarealert"
    readers: dict[str, Callable[[], str]] = {
        "adapter.sha256": lambda: adapter_sha256(_adapter(files)),
        "base.sha256": lambda: str(
            json.loads((_adapter(files) / "student.json").read_bytes())["base_digest"]
        ),
        "code.sha256": lambda: folder_sha256(code) if _runs_its_code(files, code) else "",
        "config.sha256": lambda: config_sha256(_flavor(files)["config"]),
    }
    found: dict[str, str] = {}
    for name, read in readers.items():
        with suppress(AttributeError, LookupError, OSError, TypeError, ValueError, yaml.YAMLError):
            found[name] = read()
    return found


def _adapter(files: Path) -> Path:
    return min(files.rglob("student.json")).parent


def _runs_its_code(files: Path, code: Path) -> bool:
    """Return whether the file that MLflow runs, a copy beside the code, is part of the code."""
    entry = files / Path(_flavor(files)["model_code_path"]).name
    return sha256_of_file(entry) in {sha256_of_file(one) for one in code.rglob(entry.name)}


def _flavor(files: Path) -> dict[str, Any]:
    described = yaml.safe_load((files / "MLmodel").read_text(encoding="utf-8"))
    flavor: dict[str, Any] = described["flavors"]["python_function"]
    return flavor
