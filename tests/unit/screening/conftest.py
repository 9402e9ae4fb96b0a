"""The package that tests of screening register."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import rarealert
from rarealert.registry.versions import ModelPackage
from rarealert.screening import pyfunc

# importlib mode keeps test folders off the path; toy.py is shared by the tests here
sys.path.append(str(Path(__file__).parent))


@pytest.fixture
def package() -> Callable[..., ModelPackage]:
    """Make what ``register`` makes of an adapter's folder; named values go into its config."""

    def make(adapter: Path, **config: object) -> ModelPackage:
        return ModelPackage(
            adapter=adapter,
            base_digest="0" * 64,
            source=Path(rarealert.__file__).parent,
            entry="screening/pyfunc.py",
            config={pyfunc.CALIBRATION_PREVALENCE: 0.5, **config},
            signature=pyfunc.signature(),
            input_example=pyfunc.input_example(),
        )

    return make
