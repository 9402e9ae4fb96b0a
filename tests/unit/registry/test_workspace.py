"""The workspace compared with DVC's lock and with git's commit."""

import subprocess
import sys

import pytest
import yaml

from rarealert.registry.workspace import changed_sources, check_workspace
from rarealert.tracking.lineage import git_commit

COPY = f"{sys.executable} -c \"import shutil; shutil.copy('data/x', 'build/{{0}}')\""
STAGES = {
    "split": {
        "cmd": COPY.format("split"),
        "deps": ["src/room", "data"],
        "params": ["split"],
        "outs": ["build/split"],
    },
    "evaluate": {
        "cmd": COPY.format("metrics.json"),
        "deps": ["build/split"],
        "metrics": [{"build/metrics.json": {"cache": False}}],
    },
    "register": {
        "cmd": COPY.format("register"),
        "deps": ["src/room", "build/split", "build/metrics.json"],
        "outs": ["build/register"],
    },
}


def dvc(root, *words):
    subprocess.run([sys.executable, "-m", "dvc", *words], cwd=root, check=True, capture_output=True)


def make(root, stages):
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A DVC repository whose stages above ``register`` have run."""
    root = tmp_path_factory.mktemp("workspace")
    for folder in ("src/room", "data", "build"):
        (root / folder).mkdir(parents=True)
    (root / "src/room/a.py").write_text("1\n")
    (root / "data/x").write_text("{}\n")
    (root / "params.yaml").write_text("split: {seed: 7}\n")
    make(root, STAGES)
    dvc(root, "init", "--no-scm", "-q")
    dvc(root, "add", "-q", "data")
    dvc(root, "repro", "-q", "evaluate")
    return root


@pytest.fixture
def tree(repository):
    """The repository, whose changed files are put back afterwards."""
    files = [path for path in repository.rglob("*") if path.is_file() and ".dvc/" not in str(path)]
    kept = {path: path.read_bytes() for path in files}
    yield repository
    (repository / "src/room/new.py").unlink(missing_ok=True)
    for path, content in kept.items():
        if not path.is_file() or path.read_bytes() != content:
            path.unlink(missing_ok=True)  # DVC may have made it a read-only link
            path.write_bytes(content)


def test_a_workspace_as_locked_is_current(tree):
    found = check_workspace(tree, "register")
    assert found.inputs == ("build/split", "build/metrics.json")
    assert (found.fault, found.changed, found.unpinned, found.stale) == (None, (), (), ())


@pytest.mark.parametrize(
    ("file", "content", "changed", "stale"),
    [
        ("build/metrics.json", '{"auroc": 1}', ("build/metrics.json",), ()),
        ("build/split", "other", ("build/split",), ("evaluate: build/split",)),
        ("build/split", None, ("build/split",), ()),
        ("src/room/a.py", "2\n", (), ("split: src/room",)),
        ("src/room/new.py", "", (), ("split: src/room",)),
        ("data/x", "{} \n", (), ("split: data",)),
        ("params.yaml", "split: {seed: 8}\n", (), ("split: split",)),
        ("params.yaml", "other: 1\n", (), ("split: split",)),
    ],
)
def test_what_changed_is_named_with_its_stage(tree, file, content, changed, stale):
    if content is None:
        (tree / file).unlink()
    else:
        (tree / file).unlink(missing_ok=True)
        (tree / file).write_text(content)
    found = check_workspace(tree, "register")
    assert (found.changed, found.stale) == (changed, stale)


def test_a_changed_command_a_new_stage_and_an_unpinned_input_are_named(tree):
    stages = {name: dict(stage) for name, stage in STAGES.items()}
    stages["split"]["cmd"] += " "
    stages["new"] = {"cmd": "true", "deps": ["data"], "outs": ["build/new"]}
    stages["register"]["deps"] = ["src/room", "build/new"]
    make(tree, stages)
    found = check_workspace(tree, "register")
    assert found.unpinned == ("build/new",)
    assert {"new: never ran", "split: changed command"} <= set(found.stale)


def test_the_check_works_inside_the_running_stage(tree, monkeypatch):
    stages = {name: dict(stage) for name, stage in STAGES.items()}
    check = (
        "from pathlib import Path; from rarealert.registry.workspace import check_workspace as c; "
        "Path('build/register').write_text(str(c(Path.cwd(), 'register')))"
    )
    stages["register"]["cmd"] = f'{sys.executable} -c "{check}"'
    make(tree, stages)
    dvc(tree, "repro", "-q", "register")
    state = (tree / "build/register").read_text()
    assert "fault=None" in state
    assert "changed=(), unpinned=(), stale=()" in state


def test_without_a_lock_or_a_repository_the_fault_is_named(tree, tmp_path):
    (tree / "dvc.lock").unlink()
    assert "dvc.lock" in check_workspace(tree, "register").fault
    (tmp_path / "dvc.lock").write_text("stages: {}")
    make(tmp_path, STAGES)
    assert "dvc status" in check_workspace(tmp_path, "register").fault


def test_git_counts_sources_and_leaves_reports_out(tmp_path):
    assert changed_sources(tmp_path) is None
    for name in ("src/new.py", "reports/x.json", "params.yaml", "dvc.lock"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1\n")

    def git(*words):
        author = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *author, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "start")
    for name in ("reports/x.json", "dvc.lock"):
        (tmp_path / name).write_text("2\n")
    assert changed_sources(tmp_path) == ()
    (tmp_path / "params.yaml").write_text("2\n")
    (tmp_path / "src/untracked.py").write_text("")
    assert changed_sources(tmp_path) == ("params.yaml", "src/untracked.py")


def test_without_git_nothing_is_known_of_sources_and_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert changed_sources(tmp_path) is None
    assert git_commit(tmp_path) == "unknown"
