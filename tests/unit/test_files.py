"""Files are written atomically: an error or a kill leaves the previous complete file."""

import signal
import subprocess
import sys

import pytest

from rarealert.files import whole, write_json, write_text


def test_a_file_appears_with_its_folder_and_nothing_beside_it(tmp_path):
    path = tmp_path / "reports" / "a.json"
    write_json(path, {"b": 1, "a": [0.5]})
    assert path.read_text() == '{\n  "a": [\n    0.5\n  ],\n  "b": 1\n}\n'
    assert [file.name for file in path.parent.iterdir()] == ["a.json"]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_cannot_express_leaves_the_previous_file(tmp_path, number):
    path = tmp_path / "a.json"
    write_json(path, {"auroc": 0.5})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"auroc": number})
    assert path.read_bytes() == before


def test_an_error_leaves_the_previous_file_and_no_partial_one(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "whole")
    with pytest.raises(OSError, match="full"), whole(path) as partial:  # noqa: PT012
        partial.write_text("ha")
        raise OSError("the disk is full")
    assert path.read_text() == "whole"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_kill_leaves_the_previous_file_and_the_next_write_replaces_the_partial_one(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "whole")
    code = (
        "import os, pathlib, sys\n"
        "from rarealert.files import whole\n"
        "with whole(pathlib.Path(sys.argv[1])) as partial:\n"
        "    partial.write_text('ha')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "whole"
    write_text(path, "next")
    assert path.read_text() == "next"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
