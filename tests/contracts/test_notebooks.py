"""Notebooks carry no output: a run of one would put its cases into git."""

import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.name)
def test_notebooks_are_stripped(notebook: Path) -> None:
    strip = [sys.executable, "-m", "nbstripout", "-t", str(notebook)]
    done = subprocess.run(strip, capture_output=True, text=True, check=True)
    assert done.stdout == notebook.read_text(encoding="utf-8")
