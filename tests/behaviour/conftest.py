"""Workspaces of the behaviour tests: built once, copied for each test."""

import shutil
import sys
from pathlib import Path

import pytest

# importlib mode keeps test folders off the path; small_workspace.py is shared by the tests here
sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="session")
def template(tmp_path_factory, tiny_student):
    from small_workspace import build

    return build(tmp_path_factory.mktemp("template"), tiny_student)


@pytest.fixture
def workspace(template, tmp_path, mlflow_store):
    """An honest run up to ``register``, with an empty tracking store."""
    shutil.copytree(template.root, tmp_path, dirs_exist_ok=True)
    return type(template)(tmp_path)
