"""Profiles: those of the repository are valid, comments are kept, invalid ones are refused."""

import shutil
from pathlib import Path

import pytest
import yaml

from rarealert.errors import BadInputError
from rarealert.params import load_params, merged, use_profile

REPOSITORY = Path(__file__).parents[2]
PROFILES = sorted((REPOSITORY / "profiles").glob("*.yaml"))


@pytest.fixture
def params(tmp_path: Path) -> Path:
    return Path(shutil.copy(REPOSITORY / "params.yaml", tmp_path))


def values(file: Path) -> dict[tuple[str, str], object]:
    content = yaml.safe_load(file.read_text())
    return {
        (name, key): value for name, section in content.items() for key, value in section.items()
    }


def test_the_repository_has_its_profiles() -> None:
    assert [file.name for file in PROFILES] == ["full.yaml", "qwen1.5b.yaml", "qwen3-4b.yaml"]


@pytest.mark.parametrize("profile", PROFILES, ids=lambda file: file.name)
def test_a_profile_is_valid_and_changes_only_its_values(profile: Path, params: Path) -> None:
    before, wanted = values(params), values(profile)
    summary = use_profile(profile, params)
    load_params(params)
    after = values(params)
    assert after == before | wanted
    # a value that changes nothing could go stale; the device is given for the reader
    assert [key for key in wanted if before[key] == wanted[key]] in ([], [("distil", "device")])
    assert summary.startswith(f"{sum(after[key] != before[key] for key in after)} values")
    assert use_profile(profile, params).startswith("0 values")


def test_other_lines_are_unchanged_byte_for_byte(params: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.yaml"
    empty.write_text("align: {}\n")
    assert merged(params, empty) == (params.read_text(), 0)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("distil:\n  ranks: 3\n", "distil.ranks"),
        ("distil:\n  dtype: float8\n", "distil.dtype"),
        ("nowhere:\n  a: 1\n", "nowhere"),
        ("distil: 3\n", "distil"),
        ("- a\n", "sections"),
        ("a: [\n", "YAML"),
        (None, "missing"),
    ],
)
def test_an_invalid_profile_is_refused_and_nothing_is_written(
    params: Path, tmp_path: Path, content: str | None, fault: str
) -> None:
    profile = tmp_path / "mine.yaml"
    if content is not None:
        profile.write_text(content)
    before = params.read_bytes()
    with pytest.raises(BadInputError, match=fault):
        use_profile(profile, params)
    assert params.read_bytes() == before
    assert not list(tmp_path.glob("*.partial"))
