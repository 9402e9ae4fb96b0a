from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_base(tiny_student: Path) -> Path:
    """The base model below the tiny student: a Llama of two small layers, random weights."""
    return tiny_student.parent / "base"
