"""Stage = module = section of params.yaml = command = MLflow run = folders."""

import ast
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from rarealert.cli import app
from rarealert.params import Params, load_params
from rarealert.stages import STAGES

ROOT = Path(__file__).parents[2]
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))


def _outs(stage: str) -> list[str]:
    said = PIPELINE["stages"][stage]
    listed = [*said.get("outs", []), *said.get("metrics", []), *said.get("plots", [])]
    return [next(iter(out)) if isinstance(out, dict) else out for out in listed]


def test_dvc_runs_exactly_the_stages_in_order() -> None:
    assert tuple(PIPELINE["stages"]) == STAGES


def test_params_has_one_section_a_stage_and_data() -> None:
    sections = [field.alias or name for name, field in Params.model_fields.items()]
    assert sections == ["data", *STAGES]


@pytest.mark.parametrize("stage", STAGES)
def test_stage_has_the_same_name_everywhere(stage: str) -> None:
    said = PIPELINE["stages"][stage]
    assert said["cmd"] == f"rarealert {stage}"
    assert stage in said["params"]
    assert stage in get_command(app).commands  # type: ignore[attr-defined]
    tree = ast.parse((ROOT / f"src/rarealert/stages/{stage}.py").read_text(encoding="utf-8"))
    assert f"rarealert {stage}" in (ast.get_docstring(tree) or "")
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {stage, "main"} <= functions


@pytest.mark.parametrize("stage", STAGES)
def test_stage_writes_only_its_own_folders_and_its_run(stage: str) -> None:
    outs = _outs(stage)
    assert f"build/{stage}/run.json" in outs
    assert all(out.startswith((f"build/{stage}/", f"reports/{stage}/")) for out in outs)


@pytest.mark.parametrize("stage", STAGES)
def test_data_deps_are_made_by_an_earlier_stage(stage: str) -> None:
    earlier = {out for name in STAGES[: STAGES.index(stage)] for out in _outs(name)} | {"data"}
    read = [dep for dep in PIPELINE["stages"][stage]["deps"] if not dep.startswith("src/")]
    assert set(read) <= earlier


def test_every_key_of_params_says_what_it_is() -> None:
    lines = (ROOT / "params.yaml").read_text(encoding="utf-8").splitlines()
    keys = [line for line in lines if ":" in line and not line.lstrip().startswith("#")]
    values = [line for line in keys if line.split("#")[0].strip()[-1] != ":"]
    assert values
    for line in values:
        assert "#" in line, f"params.yaml: no comment beside {line.strip()!r}"


def test_the_repositorys_own_params_load() -> None:
    assert load_params(ROOT / "params.yaml").ingest.sources == ("simulated",)
