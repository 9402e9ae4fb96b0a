"""The workspace as a witness: DVC's pins and git's tree."""

import subprocess

import pytest
import yaml

from rarealert.registry.workspace import changed_sources, check_inputs, dvc_md5, stale_stages


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "adapter" / "deep").mkdir(parents=True)
    (tmp_path / "adapter" / "a.json").write_text("{}\n")
    (tmp_path / "adapter" / "deep" / "b.bin").write_bytes(b"\x00\x01")
    (tmp_path / "metrics.json").write_text("{}")
    return tmp_path


@pytest.mark.slow
def test_digests_are_dvcs_own(tree):
    run = {"cwd": tree, "check": True, "capture_output": True}
    subprocess.run(["dvc", "init", "--no-scm", "-q"], **run)
    subprocess.run(["dvc", "add", "-q", "adapter", "metrics.json"], **run)
    for name in ("adapter", "metrics.json"):
        pinned = yaml.safe_load((tree / f"{name}.dvc").read_text())["outs"][0]["md5"]
        assert dvc_md5(tree / name) == pinned


def pin(root, **outs):
    entries = [{"path": path, "md5": md5} for path, md5 in outs.items()]
    (root / "dvc.lock").write_text(yaml.safe_dump({"stages": {"distil": {"outs": entries}}}))
    deps = ["src/rarealert/cases/case.py", "adapter", "metrics.json"]
    stages = {"register": {"deps": deps}}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))


def test_inputs_as_pinned(tree):
    pin(tree, **{name: dvc_md5(tree / name) for name in ("adapter", "metrics.json")})
    found = check_inputs(tree, "register")
    assert (found.locked, found.checked, found.changed, found.unpinned) == (True, 2, (), ())


def test_an_edited_report_and_a_swapped_adapter_show(tree):
    pin(tree, **{name: dvc_md5(tree / name) for name in ("adapter", "metrics.json")})
    (tree / "metrics.json").write_text('{"auroc": 1}')
    (tree / "adapter" / "deep" / "b.bin").write_bytes(b"\x00\x02")
    assert check_inputs(tree, "register").changed == ("adapter", "metrics.json")


def test_a_missing_or_unpinned_input_shows(tree):
    pin(tree, adapter=dvc_md5(tree / "adapter"))
    (tree / "adapter" / "a.json").unlink()
    found = check_inputs(tree, "register")
    assert found.changed == ("adapter",)
    assert found.unpinned == ("metrics.json",)


def test_without_a_lock_nothing_is_vouched_for(tree):
    assert not check_inputs(tree, "register").locked


def test_git_counts_sources_and_leaves_reports_out(tree):
    assert changed_sources(tree) is None
    for name in ("src/new.py", "reports/x.json", "params.yaml", "dvc.lock"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text("1\n")

    def git(*words):
        author = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *author, *words], cwd=tree, check=True, capture_output=True)

    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "start")
    assert changed_sources(tree) == ()
    for name in ("reports/x.json", "dvc.lock"):
        (tree / name).write_text("2\n")
    assert changed_sources(tree) == ()
    (tree / "params.yaml").write_text("2\n")
    (tree / "src/untracked.py").write_text("")
    assert changed_sources(tree) == ("params.yaml", "src/untracked.py")


@pytest.fixture
def finished(tree):
    """A stage above ``register`` that ran with what lies here."""
    (tree / "src").mkdir()
    (tree / "src/x.py").write_text("1\n")
    (tree / "params.yaml").write_text("split: {seed: 7}\nteach: {panel: embedded}\n")
    (tree / "data.dvc").write_text(yaml.safe_dump({"outs": [{"path": "data", "md5": "d" * 32}]}))
    (tree / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"split": {}, "register": {}}}))
    paths = {"src/x.py": dvc_md5(tree / "src/x.py"), "data": "d" * 32}
    deps = [{"path": path, "md5": md5} for path, md5 in paths.items()]
    params = {"params.yaml": {"split": {"seed": 7}, "teach.panel": "embedded"}}
    lock = {"stages": {"split": {"deps": deps, "params": params}}}
    (tree / "dvc.lock").write_text(yaml.safe_dump(lock))
    return tree


def test_a_stage_that_ran_with_all_this_is_current(finished):
    assert stale_stages(finished, "register") == ()


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        ("src/x.py", "2\n", "split: src/x.py"),
        ("data.dvc", "outs: [{path: data, md5: other}]\n", "split: data"),
        ("params.yaml", "split: {seed: 8}\nteach: {panel: embedded}\n", "split: split"),
        ("params.yaml", "split: {seed: 7}\n", "split: teach.panel"),
        ("dvc.lock", "stages: {}\n", "split: never ran"),
    ],
)
def test_what_changed_since_is_named_with_its_stage(finished, file, content, named):
    (finished / file).write_text(content)
    assert stale_stages(finished, "register") == (named,)


def test_without_git_nothing_is_known_of_sources_and_commit(tmp_path, monkeypatch):
    from rarealert.registry.workspace import changed_sources
    from rarealert.tracking.lineage import git_commit

    monkeypatch.setenv("PATH", str(tmp_path))
    assert changed_sources(tmp_path) is None
    assert git_commit(tmp_path) == "unknown"
