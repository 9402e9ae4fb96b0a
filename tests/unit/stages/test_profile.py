"""Profiles over params.yaml: those of the repository are valid, comments stay, nonsense goes."""

import shutil
from pathlib import Path

import pytest
import yaml

from rarealert.errors import BadInputError
from rarealert.params import load_params, merged, use_profile
from rarealert.paths import Paths

REPOSITORY = Path(__file__).parents[3]
PROFILES = sorted((REPOSITORY / "profiles").glob("*.yaml"))


@pytest.fixture
def workspace(tmp_path: Path) -> Paths:
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    return Paths(tmp_path)


def values(file: Path) -> dict[tuple[str, str], object]:
    held = yaml.safe_load(file.read_text())
    return {(name, key): value for name, section in held.items() for key, value in section.items()}


def test_the_profiles_are_here() -> None:
    names = ["full.yaml", "qwen1.5b.yaml", "qwen3-4b.yaml"]
    assert [file.name for file in PROFILES] == names


@pytest.mark.parametrize("profile", PROFILES, ids=lambda file: file.name)
def test_a_profile_is_valid_and_only_its_values_change(profile: Path, workspace: Paths) -> None:
    before, wanted = values(workspace.params), values(profile)
    said = use_profile(profile, workspace.params)
    load_params(workspace.params)
    after = values(workspace.params)
    assert after == before | wanted
    # what changes nothing would only grow stale; the device is named for the reader
    assert [key for key in wanted if before[key] == wanted[key]] in ([], [("distil", "device")])
    assert said.startswith(f"{sum(after[key] != before[key] for key in after)} values")
    assert use_profile(profile, workspace.params).startswith("0 values")


def test_what_is_not_named_stays_byte_for_byte(workspace: Paths, tmp_path: Path) -> None:
    empty = tmp_path / "empty.yaml"
    empty.write_text("align: {}\n")
    assert merged(workspace.params, empty) == (workspace.params.read_text(), 0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("distil:\n  ranks: 3\n", "distil.ranks"),
        ("distil:\n  dtype: float8\n", "distil.dtype"),
        ("nowhere:\n  a: 1\n", "nowhere"),
        ("distil: 3\n", "distil"),
        ("- a\n", "no sections"),
        ("a: [\n", "not valid YAML"),
        (None, "is missing"),
    ],
)
def test_nonsense_is_refused_and_nothing_is_written(workspace, tmp_path, content, said) -> None:
    profile = tmp_path / "mine.yaml"
    if content is not None:
        profile.write_text(content)
    before = workspace.params.read_bytes()
    with pytest.raises(BadInputError, match=said):
        use_profile(profile, workspace.params)
    assert workspace.params.read_bytes() == before
    assert not list(tmp_path.glob("*.partial"))
