"""What tests of several kinds of teachers share."""

import json
import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def long_model(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of the tiny model with room for the script, which it reads letter by letter."""
    folder = tmp_path_factory.mktemp("long") / "base"
    shutil.copytree(tiny_student.parent / "base", folder)
    config = json.loads((folder / "config.json").read_text())
    config["max_position_embeddings"] = 4096
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)
