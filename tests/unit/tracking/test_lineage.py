"""Lineage: DVC's pins reach the tags, whatever state the workspace is in."""

import subprocess
import sys
from pathlib import Path

import pytest

from rarealert.tracking import lineage


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n"
        "  align:\n"
        "    cmd: rarealert align\n"
        "    deps: [src/rarealert/visits, build/split/train.parquet, data, build/new.parquet]\n"
        "    params: [align, distil]\n"
    )
    (tmp_path / "params.yaml").write_text("align: {seed: 1, deep: {er: 2}}\ndistil: {x: null}\n")
    (tmp_path / "dvc.lock").write_text(
        "stages:\n  split:\n    outs:\n    - {path: build/split/train.parquet, md5: aa}\n"
    )
    (tmp_path / "data.dvc").write_text("outs:\n- {md5: bb.dir, path: data}\n")
    return tmp_path


def test_inputs_are_the_data_deps_with_their_dvc_digests(workspace: Path) -> None:
    inputs = {"build/split/train.parquet": "aa", "data": "bb.dir"}
    assert lineage.stage_inputs(workspace, "align") == inputs
    unpinned = {"build/new.parquet": None}
    assert lineage.data_dependencies(workspace, "align") == inputs | unpinned


def test_parameters_are_flat_and_only_those_the_stage_names(workspace: Path) -> None:
    values = lineage.stage_parameters(workspace, "align")
    assert values == {"align.seed": 1, "align.deep.er": 2, "distil.x": None}


def test_outside_git_and_dvc_nothing_is_invented(tmp_path: Path) -> None:
    tags = lineage.lineage_tags(tmp_path, "align")
    assert tags["git.commit"] == "unknown"
    assert "dvc.lock.sha256" not in tags
    assert lineage.stage_inputs(tmp_path, "align") == {}


def test_dirty_means_sources_not_what_the_pipeline_rewrites(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    for name in ("dvc.lock", "params.yaml", "reports/align/metrics.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    git("add", "-A")
    git("commit", "-m", "start")
    (tmp_path / "dvc.lock").write_text("2")
    (tmp_path / "reports/align/metrics.json").write_text("2")
    assert lineage.dirty_sources(tmp_path) == []
    assert lineage.lineage_tags(tmp_path, "align")["git.dirty"] == "false"
    (tmp_path / "params.yaml").write_text("2")
    assert lineage.dirty_sources(tmp_path) == ["params.yaml"]


def test_pipeline_id_is_shared_below_one_dvc_process_and_can_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(lineage.PIPELINE_ID_VARIABLE, raising=False)
    stage = (
        f"{sys.executable} -c 'from rarealert.tracking.lineage import pipeline_id as p; print(p())'"
    )
    # a script named dvc that runs two stages through a shell, as DVC does
    (tmp_path / "dvc").write_text(
        f"import subprocess\nfor _ in range(2): subprocess.run({stage!r}, shell=True, check=True)\n"
    )
    command = [sys.executable, str(tmp_path / "dvc")]
    first, second = subprocess.run(
        command, check=True, capture_output=True, text=True
    ).stdout.split()
    assert first == second
    other = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0]
    assert other != first
    monkeypatch.setenv(lineage.PIPELINE_ID_VARIABLE, "given")
    assert lineage.pipeline_id() == "given"
