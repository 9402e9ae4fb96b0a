"""A git worktree of some commit, and commands in it that know nothing of the checkout around."""

import os
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from rarealert.errors import RareAlertError
from rarealert.tracking.lineage import ENDPOINTS_CLOSED

_PLACES = ("MLFLOW_TRACKING", "MLFLOW_EXPERIMENT", "MLFLOW_RUN", "MLFLOW_REGISTRY")
"""Variables, some set by MLflow itself, that would lead the stages to another store."""


@contextmanager
def worktree(root: Path, commit: str) -> Iterator[Path]:
    """A worktree of ``commit`` of the repository at ``root``, removed at the end."""
    with TemporaryDirectory(prefix="rarealert-") as folder:
        tree = Path(folder) / "tree"
        run(root, "git", "worktree", "add", "--quiet", "--detach", str(tree), commit)
        try:
            yield tree
        finally:
            run(root, "git", "worktree", "remove", "--force", str(tree))


def failure(folder: Path, *command: str, without: Collection[str] = ()) -> str:
    """What a command says where it fails, empty where it does not.

    It runs in a process group of its own, which ends with this process: a stage that went on
    writing below a removed worktree would keep the machine busy for nothing. It asks no endpoint,
    finds the commands of this environment, and does not see the variables ``without``.
    """
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(_PLACES) and key not in without
    }
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=kept | {"PYTHONPATH": str(folder / "src"), ENDPOINTS_CLOSED: "1", "PATH": _path()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    last = said.strip().splitlines() or [f"exit code {process.returncode}"]
    return last[-1] if process.returncode else ""


def run(folder: Path, *command: str, without: Collection[str] = ()) -> None:
    """Run a command as ``failure`` does.

    Raises:
        RareAlertError: it fails; the sentence ends with the last line that it said.
    """
    said = failure(folder, *command, without=without)
    if said:
        raise RareAlertError(
            f"`{' '.join(command[:3])}` failed in a worktree of the run's commit: {said}"
        )


def _path() -> str:
    """``dvc`` and ``rarealert`` lie beside this Python, whether or not that is on the path."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
