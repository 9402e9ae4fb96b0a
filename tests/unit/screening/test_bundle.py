"""A bundle: what it holds, that its sums hold, and that what is damaged does not start."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from typer.testing import CliRunner

from rarealert.cli import app
from rarealert.errors import BadInputError
from rarealert.language.base import CARRIED_VARIABLE, carry_base, load_base
from rarealert.registry.versions import register_version
from rarealert.screening import pyfunc
from rarealert.screening.batch import Options, screen
from rarealert.screening.bundle import bundle
from rarealert.screening.service.batching import FolderSource
from rarealert.visits.reading import read_visit

ROOT = Path(__file__).parents[3]


@pytest.fixture
def workspace(mlflow_store, package, tiny_student, tmp_path, monkeypatch):
    """A checkout with one registered version, called ``challenger``."""
    for name in ("params.yaml", "pyproject.toml", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    with mlflow.start_run():
        register_version("rarealert-student", package(tiny_student), {})
    return tmp_path


def no_wheels(folder):
    folder.mkdir()
    (folder / "rarealert-0.1.0-py3-none-any.whl").write_bytes(b"PK")


def sums_hold(folder):
    command = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0


def test_a_bundle_holds_the_registered_version_with_its_base(workspace, monkeypatch):
    made = bundle(workspace / "clinic", "challenger", no_wheels)
    names = {path.name for path in made.folder.iterdir()}
    assert names == {
        *("base", "model", "wheels"),
        *("Dockerfile", "LICENSE", "NOTICE", "SHA256SUMS", "bundle.json", "start.sh"),
    }
    listed = (made.folder / "SHA256SUMS").read_text().splitlines()
    assert len(listed) == sum(path.is_file() for path in made.folder.rglob("*")) - 1
    assert sums_hold(made.folder)
    marks = json.loads((made.folder / "bundle.json").read_text())
    assert (marks["name"], marks["version"]) == ("rarealert-student", "1")

    required = (made.folder / "model" / "requirements.txt").read_text()
    assert "transformers" in required
    assert "gguf" not in required  # no wheel of it is carried, and nothing asks for it

    with pytest.raises(BadInputError, match="exists"):
        bundle(made.folder, "challenger", no_wheels)

    # where the model was trained is of no interest any more
    monkeypatch.setenv(CARRIED_VARIABLE, str(made.folder / "base"))
    model = FolderSource(made.folder / "model").load()
    assert (model.name, model.version) == ("rarealert-student", "1")
    assert len(model.digest) == 64
    [answer] = model.scorer.answer([read_visit(*pyfunc.to_cases(pyfunc.input_example()))])
    assert 0 < answer.risk < 1


def test_another_account_can_read_a_bundle(workspace):
    before = os.umask(0o077)  # as temporary files are everywhere
    try:
        made = bundle(workspace / "clinic", "challenger", no_wheels)
    finally:
        os.umask(before)
    for path in (made.folder, *made.folder.rglob("*")):
        wanted = 0o055 if path.is_dir() else 0o044
        assert path.stat().st_mode & wanted == wanted, path
    assert (made.folder / "start.sh").stat().st_mode & 0o111 == 0o111
    assert sums_hold(made.folder)


def test_a_base_that_this_account_may_not_read_is_not_called_damaged(
    tiny_student, tmp_path, monkeypatch
):
    def forbidden(_):
        raise PermissionError

    name = json.loads((tiny_student / "student.json").read_text())["base_model"]
    carry_base(name, tmp_path)
    monkeypatch.setenv(CARRIED_VARIABLE, str(tmp_path))
    monkeypatch.setattr("rarealert.language.base.sha256_of", forbidden)  # root may read all
    with pytest.raises(BadInputError, match="can't be read by this account"):
        load_base(name)


def test_a_file_is_screened_with_a_models_folder_and_no_workspace(workspace, tmp_path, monkeypatch):
    made = bundle(workspace / "clinic", "challenger", no_wheels)
    monkeypatch.setenv(CARRIED_VARIABLE, "")  # so that what is set here is taken back
    monkeypatch.delenv(CARRIED_VARIABLE)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    Path("in.csv").write_text("case_id,chief_complaint\na,Seizures and fever.\n")
    asked = ["screen", "in.csv", "--out", "out.jsonl", "--model", str(made.folder / "model")]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    [answer] = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert 0 < answer["risk"] < 1
    assert answer["model_version"] == "1"
    with pytest.raises(BadInputError, match="holds no MLmodel"):
        screen(Path("in.csv"), Path("o.jsonl"), "champion", Options(), made.folder)


@pytest.mark.parametrize("damaged", ["model/MLmodel", "wheels/rarealert-0.1.0-py3-none-any.whl"])
def test_a_damaged_bundle_does_not_start(workspace, damaged):
    made = bundle(workspace / "clinic", "challenger", no_wheels)
    with (made.folder / damaged).open("ab") as file:
        file.write(b" ")
    done = subprocess.run(
        ["sh", str(made.folder / "start.sh")], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert damaged in done.stdout + done.stderr
    assert not (made.folder / ".venv").exists()


def test_after_the_first_start_the_model_is_still_checked(workspace, tmp_path):
    made = bundle(workspace / "clinic", "challenger", no_wheels)
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / ".installed").touch()
    program = venv / "bin" / "rarealert"
    program.write_text('#!/bin/sh\necho "$@" "$RAREALERT_BASE_MODELS"\n')
    program.chmod(0o755)
    (made.folder / "wheels" / "rarealert-0.1.0-py3-none-any.whl").unlink()  # to save room
    command = ["sh", str(made.folder / "start.sh"), "--port", "7"]
    environment = {**os.environ, "RAREALERT_VENV": str(venv)}

    def start():
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert start().stdout.split() == [
        *("serve", "--model", "model", "--port", "7", str(made.folder / "base"))
    ]
    (made.folder / "model" / "MLmodel").write_text("")
    assert start().returncode != 0


def test_a_carried_base_is_the_base_it_was(tiny_student, tmp_path, monkeypatch):
    name = json.loads((tiny_student / "student.json").read_text())["base_model"]
    before = load_base(name)
    folder = carry_base(name, tmp_path)
    monkeypatch.setenv(CARRIED_VARIABLE, str(tmp_path))
    assert load_base(name).digest == before.digest
    (folder / "config.json").write_text("{}")
    with pytest.raises(BadInputError, match="not what was bundled"):
        load_base(name)
    (folder / "carried.json").write_text("{}")
    with pytest.raises(BadInputError, match="damaged"):
        load_base(name)


def test_the_dockerfile_is_linted_and_its_user_is_not_root():
    file = ROOT / "src/rarealert/screening/clinic/Dockerfile"
    linter = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([linter, file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    text = file.read_text()
    assert "HEALTHCHECK" in text
    assert text.index("\nUSER 10001") < text.index("\nCMD")
