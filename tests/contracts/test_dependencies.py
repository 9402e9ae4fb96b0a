"""The folders that a stage of ``dvc.yaml`` depends on cover its code and its packaged data."""

import re
import subprocess
from pathlib import Path

import grimp
import pytest
import yaml

from rarealert.stages import STAGES

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]

PLUMBING = {
    "rarealert",
    "rarealert.errors",
    "rarealert.params",
    "rarealert.paths",
    "rarealert.stages",
    "rarealert.stages.harness",
    "rarealert.tracking",
}
"""Modules and rooms that no stage depends on: they pass values on and report results, but compute
none. DVC tracks the values in ``params.yaml`` itself (docs/decisions/0001)."""


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    """Every import inside the package, those inside functions too."""
    return grimp.build_graph("rarealert", cache_dir=None)


def _file(module: str) -> Path:
    place = SOURCE / module.replace(".", "/")
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def _files_used(stage: str, imports: grimp.ImportGraph) -> set[Path]:
    start = f"rarealert.stages.{stage}"
    modules = {start} | imports.find_upstream_modules(start)
    modules = {
        m
        for m in modules
        if m not in PLUMBING and ".".join(m.split(".")[:2]) != "rarealert.tracking"
    }
    code = {_file(module) for module in modules}
    named = {name for file in code for name in re.findall(r'files\("([\w.]+)"\)', file.read_text())}
    return code | {_file(name) for name in named}


@pytest.mark.parametrize("stage", STAGES)
def test_listed_folders_cover_what_a_stage_uses_and_no_more(
    stage: str, imports: grimp.ImportGraph
) -> None:
    listed = {ROOT / dep for dep in PIPELINE[stage]["deps"] if dep.startswith("src/")}
    used = _files_used(stage, imports)
    cover = {file: {file, *file.parents} & listed for file in used}
    missing = sorted(str(file.relative_to(ROOT)) for file, deps in cover.items() if not deps)
    assert not missing, f"dvc.yaml: add the rooms of these files to the deps of {stage}"
    unused = listed - set().union(*cover.values())
    assert not unused, f"dvc.yaml: {stage} imports nothing from these deps"


def test_dvc_ignores_compiled_files() -> None:
    compiled = ["src/rarealert/visits/__pycache__/case.py", "src/rarealert/visits/case.pyc"]
    command = ["dvc", "check-ignore", *compiled, "src/rarealert/visits/case.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == compiled
