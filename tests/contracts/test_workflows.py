"""Workflows fit GitHub's schema, are safe, and use commands that exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from rarealert.cli import app

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def lint(*files: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
    command += ["vendor.github-workflows", *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_workflows_fit_githubs_schema() -> None:
    done = lint(*WORKFLOWS)
    assert done.returncode == 0, done.stdout


def test_the_linter_finds_a_fault(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yml"
    broken.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "run-on:"))
    assert lint(broken).returncode == 1


def audit(*files: Path) -> subprocess.CompletedProcess[str]:
    command = ["zizmor", "--offline", "--no-progress", *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_workflows_run_nothing_that_a_pull_request_could_inject() -> None:
    done = audit(*WORKFLOWS)
    assert done.returncode == 0, done.stdout


def test_the_audit_finds_a_pull_requests_title_in_a_script(tmp_path: Path) -> None:
    workflow = WORKFLOWS[0].read_text()
    broken = tmp_path / "broken.yml"
    broken.write_text(
        workflow.replace("run: make env", 'run: echo "${{ github.event.pull_request.title }}"')
    )
    assert broken.read_text() != workflow
    done = audit(broken)
    assert done.returncode > 0
    assert "template-injection" in done.stdout


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_every_command_of_ours_exists(file: Path) -> None:
    jobs = yaml.safe_load(file.read_text())["jobs"].values()
    script = "\n".join(step.get("run", "") for job in jobs for step in job["steps"])
    assert set(re.findall(r"\brarealert (\w+)", script)) <= set(get_command(app).commands)  # type: ignore[attr-defined]
    targets = set(re.findall(r"\bmake (\w+)", script))
    assert all(f"\n{target}:" in (ROOT / "Makefile").read_text() for target in targets)
