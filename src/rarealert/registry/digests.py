"""Digests of what a version is made of, independent of where it lies on disk."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

PACKAGED = ("__init__.py", "errors.py", "params.py", "paths.py")
ROOMS = ("metrics", "knowledge", "language", "cases", "student", "screening")
"""What screening may import by the layer rule, hence all a registered version has to carry."""

ADAPTER_CARD = "README.md"
"""The card beside an adapter's weights, where peft and the hub look for it."""

_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", "*.partial")
_AROUND_A_MODEL = shutil.ignore_patterns(
    "service", "page", "clinic", "__pycache__", "*.pyc", "*.partial"
)
"""Rooms of screening that ask a model and are no part of it: a new page is no new version."""


def file_sha256(path: Path) -> str:
    """Sha256 of a file in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_sha256(folder: Path, leave_out: str | None = None) -> str:
    """Sha256 over the relative names and digests of all files below ``folder``.

    The file of the relative name ``leave_out`` does not count.
    """
    whole = hashlib.sha256()
    for path in sorted(_files(folder)):
        name = path.relative_to(folder).as_posix()
        if name == leave_out:
            continue
        whole.update(f"{name}\0{file_sha256(path)}\n".encode())
    return whole.hexdigest()


def adapter_sha256(adapter: Path) -> str:
    """Digest of an adapter's folder without its card, which is written once the adapter is judged.

    So the card can name the digest of the adapter that it lies in.
    """
    return folder_sha256(adapter, leave_out=ADAPTER_CARD)


def copy_package(source: Path, target: Path) -> Path:
    """Copy the rooms a version needs from ``source`` to ``target/rarealert``; that folder.

    Teachers, alignment and the stages stay behind: a clinic runs the student alone.
    """
    folder = target / source.name
    folder.mkdir(parents=True)
    for name in PACKAGED:
        shutil.copy(source / name, folder / name)
    for room in ROOMS:
        ignored = _AROUND_A_MODEL if room == "screening" else _LEFT_OUT
        shutil.copytree(source / room, folder / room, ignore=ignored)
    return folder


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path
