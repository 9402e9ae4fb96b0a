"""A stage has one name everywhere, and its dependencies in ``dvc.yaml`` cover what it uses."""

import ast
import re
import subprocess
from pathlib import Path

import grimp
import pytest
import yaml
from typer.main import get_command

from rarealert.cli import app
from rarealert.params import Params, load_params
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


def outs(stage: str) -> list[str]:
    listed = [*PIPELINE[stage].get("outs", []), *PIPELINE[stage].get("metrics", [])]
    return [next(iter(out)) if isinstance(out, dict) else out for out in listed]


def test_dvc_and_params_have_the_stages_in_order() -> None:
    assert tuple(PIPELINE) == STAGES
    sections = [field.alias or name for name, field in Params.model_fields.items()]
    assert sections == ["data", *STAGES]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_the_same_name_everywhere(stage: str) -> None:
    assert PIPELINE[stage]["cmd"] == f"rarealert {stage}"
    assert stage in PIPELINE[stage]["params"]
    assert stage in get_command(app).commands  # type: ignore[attr-defined]
    tree = ast.parse((SOURCE / f"rarealert/stages/{stage}.py").read_text(encoding="utf-8"))
    assert f"rarealert {stage}" in (ast.get_docstring(tree) or "")
    assert {stage, "main"} <= {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
    assert f"build/{stage}/run.json" in outs(stage)
    assert all(out.startswith((f"build/{stage}/", f"reports/{stage}/")) for out in outs(stage))


@pytest.mark.parametrize("stage", STAGES)
def test_data_deps_are_outs_of_an_earlier_stage(stage: str) -> None:
    earlier = {out for name in STAGES[: STAGES.index(stage)] for out in outs(name)} | {"data"}
    assert {dep for dep in PIPELINE[stage]["deps"] if not dep.startswith("src/")} <= earlier


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    """Every import inside the package, those inside functions too."""
    return grimp.build_graph("rarealert", cache_dir=None)


def file_of(module: str) -> Path:
    place = SOURCE / module.replace(".", "/")
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def files_used(stage: str, imports: grimp.ImportGraph) -> set[Path]:
    start = f"rarealert.stages.{stage}"
    modules = {start} | imports.find_upstream_modules(start)
    tracking = {module for module in modules if module.startswith("rarealert.tracking.")}
    code = {file_of(module) for module in modules - PLUMBING - tracking}
    named = {name for file in code for name in re.findall(r'files\("([\w.]+)"\)', file.read_text())}
    return code | {file_of(name) for name in named}


@pytest.mark.parametrize("stage", STAGES)
def test_code_deps_cover_what_a_stage_uses_and_no_more(
    stage: str, imports: grimp.ImportGraph
) -> None:
    listed = {ROOT / dep for dep in PIPELINE[stage]["deps"] if dep.startswith("src/")}
    cover = {file: {file, *file.parents} & listed for file in files_used(stage, imports)}
    missing = sorted(str(file.relative_to(ROOT)) for file, deps in cover.items() if not deps)
    assert not missing, f"dvc.yaml: add the rooms of these files to the deps of {stage}"
    unused = listed - set().union(*cover.values())
    assert not unused, f"dvc.yaml: {stage} imports nothing from these deps"


def test_dvc_ignores_compiled_files() -> None:
    compiled = ["src/rarealert/visits/__pycache__/case.py", "src/rarealert/visits/case.pyc"]
    command = ["dvc", "check-ignore", *compiled, "src/rarealert/visits/case.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == compiled


def test_params_load_and_every_value_has_a_comment() -> None:
    assert load_params(ROOT / "params.yaml").ingest.sources == ("simulated",)
    for file in (ROOT / "params.yaml", *(ROOT / "profiles").glob("*.yaml")):
        values = re.findall(r"^ +\S.*: *[^\s#].*$", file.read_text(encoding="utf-8"), re.M)
        assert values
        assert not [line for line in values if "#" not in line], file.name
