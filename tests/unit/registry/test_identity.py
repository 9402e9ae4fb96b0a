"""The code that a registered version carries."""

import shutil
from pathlib import Path

import grimp
import pytest

import rarealert
from rarealert.registry.identity import copy_package, folder_sha256

SOURCE = Path(rarealert.__file__).parent


@pytest.fixture(scope="module")
def carried(tmp_path_factory):
    return copy_package(SOURCE, tmp_path_factory.mktemp("version"))


def test_a_version_carries_every_module_that_its_model_imports(carried):
    graph = grimp.build_graph("rarealert", cache_dir=None)
    entry = "rarealert.screening.pyfunc"
    for module in {entry} | graph.find_upstream_modules(entry):
        place = carried.joinpath(*module.split(".")[1:])
        assert place.with_suffix(".py").is_file() or (place / "__init__.py").is_file(), module


def test_a_version_leaves_out_pipeline_service_and_page(carried):
    for name in ("teachers", "stages", "screening/service", "screening/page"):
        assert not (carried / name).exists()


def test_a_new_page_is_no_new_version_and_new_model_code_is(tmp_path):
    source = tmp_path / "source" / "rarealert"
    shutil.copytree(SOURCE, source)
    digests = []
    for number, changed in enumerate((None, "screening/page/app.js", "screening/pyfunc.py")):
        if changed:
            with (source / changed).open("a") as file:
                file.write("\n")
        digests.append(folder_sha256(copy_package(source, tmp_path / str(number))))
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]
