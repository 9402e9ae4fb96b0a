"""What of the code travels with a registered version."""

import shutil
from pathlib import Path

import rarealert
from rarealert.registry.versions import copy_package, folder_sha256

_SOURCE = Path(rarealert.__file__).parent


def test_a_version_carries_what_answers_and_not_what_asks_it(tmp_path: Path) -> None:
    folder = copy_package(_SOURCE, tmp_path)
    assert (folder / "screening/pyfunc.py").is_file()
    assert (folder / "student/model.py").is_file()
    for name in ("service", "page", "clinic"):
        assert (_SOURCE / "screening" / name).is_dir()
        assert not (folder / "screening" / name).exists()
    assert not (folder / "teachers").exists()


def test_a_new_page_is_no_new_version_and_a_new_model_code_is(tmp_path: Path) -> None:
    source = tmp_path / "source" / "rarealert"
    shutil.copytree(_SOURCE, source)
    digests = []
    for number, changed in enumerate((None, "screening/page/__init__.py", "screening/pyfunc.py")):
        if changed:
            with (source / changed).open("a") as file:
                file.write("\n")
        digests.append(folder_sha256(copy_package(source, tmp_path / str(number))))
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]
