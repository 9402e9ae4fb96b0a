"""Bundle a registered version in one folder that installs and runs without a network.

Command: ``rarealert bundle``. ``wheels/`` holds the package with its extra ``screen``, ``model/``
the registered version, ``base/`` its base model in safetensors, and ``SHA256SUMS`` the digest of
every file, which ``start.sh`` checks first.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from rarealert.errors import BadInputError, RareAlertError
from rarealert.files import sha256_of_file
from rarealert.language.base import carry_base
from rarealert.params import load_params
from rarealert.paths import Paths
from rarealert.screening.champion import version_of

SUMS = "SHA256SUMS"
_CARRIED = ("start.sh", "Dockerfile")
_STATED = ("LICENSE", "NOTICE")
_BUILT_FROM = ("pyproject.toml", "README.md", *_STATED)
_STUDENT = Path("artifacts/adapter/student.json")
_READS_GGUF = "gguf"
_SHOWN = 1200  # last characters of pip's error, which name what is missing

WheelMaker = Callable[[Path], None]


@dataclass(frozen=True)
class Bundle:
    """A bundle; ``size_bytes`` is the size of all files."""

    folder: Path
    version: str
    size_bytes: int

    def sentence(self) -> str:
        """The result in one sentence."""
        return (
            f"Version {self.version} bundled in {self.folder} ({self.size_bytes / 1e6:,.0f} MB): "
            f"copy the folder and run sh {self.folder.name}/start.sh. "
            "Decision support, not a diagnosis."
        )


def bundle(out: Path, alias: str, make_wheels: WheelMaker | None = None) -> Bundle:
    """Bundle the workspace's registered version that ``alias`` points at in the folder ``out``.

    The wheels are those of this machine's Python and platform, from the index that pip is
    configured with, at the versions of ``constraints.txt``.

    Raises:
        BadInputError: ``out`` exists, or there is no checkout here.
        RareAlertError: no such version is registered, or pip could not get the wheels.
    """
    if out.exists():
        raise BadInputError(f"{out} exists; name a new folder, or remove it first.")
    paths = Paths.here()
    name = load_params(paths.params).register_.model_name
    version = version_of(name, alias, paths.tracking_uri)
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _fetch(name, version, partial / "model")
    student = json.loads((partial / "model" / _STUDENT).read_text(encoding="utf-8"))
    carry_base(student["base_model"], partial / "base")
    _require_what_is_carried(partial / "model" / "requirements.txt")
    (make_wheels or _wheels_of(paths.root))(partial / "wheels")
    marks = {"base_model": student["base_model"], "name": name, "version": version}
    _write(partial / "bundle.json", json.dumps(marks, indent=2, sort_keys=True) + "\n")
    for file in _CARRIED:
        with as_file(files("rarealert.screening.clinic") / file) as source:
            shutil.copy(source, partial / file)
    for file in _STATED:
        shutil.copy(paths.root / file, partial / file)
    size = _sum_up(partial)
    _open_to_all(partial)
    partial.replace(out)
    return Bundle(out, version, size)


def _fetch(name: str, version: str, folder: Path) -> None:
    """The registered version's files in ``folder``."""
    with warnings.catch_warnings():  # mlflow 3.17 warns of its own type hints when imported
        warnings.simplefilter("ignore", UserWarning)
        import mlflow.artifacts

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    uri = f"models:/{name}/{version}"
    fetched = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder))
    if not (Path(fetched) / "MLmodel").is_file():
        raise RareAlertError(f"The files of {uri} are not in MLflow's store; register it again.")
    # MLflow records who registered it and where, which a clinic does not need
    (folder / "registered_model_meta").unlink(missing_ok=True)


def _require_what_is_carried(requirements: Path) -> None:
    """Drop the package that read the base for training: the bundled base is in safetensors.

    MLflow would otherwise warn at every start that the package is missing.
    """
    lines = requirements.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not line.startswith(_READS_GGUF)]
    _write(requirements, "".join(f"{line}\n" for line in kept))


def _wheels_of(root: Path) -> WheelMaker:
    def make(folder: Path) -> None:
        if not (root / "pyproject.toml").is_file():
            raise BadInputError(f"{root} is not a checkout; run rarealert bundle inside one.")
        # setuptools builds in build/, which here belongs to DVC
        with tempfile.TemporaryDirectory(prefix="rarealert-") as copied:
            for name in _BUILT_FROM:
                shutil.copy(root / name, copied)
            left_out = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(root / "src", Path(copied) / "src", ignore=left_out)
            command = [sys.executable, "-m", "pip", "wheel", "--quiet", f"{copied}[screen]", "pip"]
            command += ["--disable-pip-version-check", "--wheel-dir", str(folder)]
            command += ["--constraint", str(root / "constraints.txt")]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RareAlertError(f"pip could not get the wheels: {done.stderr.strip()[-_SHOWN:]}")

    return make


def _sum_up(folder: Path) -> int:
    """Write ``SHA256SUMS`` as ``sha256sum`` reads it; the size of all files in bytes."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = (f"{sha256_of_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in found)
    _write(folder / SUMS, "".join(lines))
    return sum(path.stat().st_size for path in found)


def _open_to_all(folder: Path) -> None:
    """Let every account read ``folder``: it is copied, and the image runs as another user.

    Fetched and unpacked files have the modes of temporary files, which only their owner can read.
    """
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.suffix == ".sh" else 0o644)


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
