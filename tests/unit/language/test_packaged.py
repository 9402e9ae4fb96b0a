"""Packaged base models: joined and unpacked once a machine, and only to the known bytes."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from rarealert.errors import BadInputError
from rarealert.language import packaged
from rarealert.language.base import load_base


def test_a_damaged_unpacked_folder_is_made_again(tmp_path: Path, monkeypatch) -> None:
    source = tmp_path / "packed"
    source.write_bytes(b"weights")
    monkeypatch.setenv("RAREALERT_CACHE", str(tmp_path / "cache"))
    made = []

    def unpack(file: Path, folder: Path, dtype: str) -> None:
        assert dtype == "bfloat16"
        made.append(folder)
        (folder / "model.safetensors").write_bytes(file.read_bytes())
        digest = packaged.sha256_of([folder / "model.safetensors"])
        (folder / "complete.json").write_text(json.dumps({"model.safetensors": digest}))

    monkeypatch.setattr(packaged, "_unpack", unpack)
    digest = hashlib.sha256(b"weights").hexdigest()
    folder = packaged.unpacked(source, digest, "bfloat16")
    assert packaged.unpacked(source, digest, "bfloat16") == folder
    assert len(made) == 1
    (folder / "model.safetensors").write_bytes(b"wei")
    assert packaged.unpacked(source, digest, "bfloat16") == folder
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert len(made) == 2
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]


@pytest.fixture
def in_parts(tmp_path: Path, monkeypatch) -> tuple[packaged.Packaged, bytes]:
    """A model in two installed packages, and the bytes that they make."""
    site = tmp_path / "site"
    for number, content in ((1, b"GGUF, the "), (2, b"whole of it")):
        (site / f"some_part{number}" / "data").mkdir(parents=True)
        (site / f"some_part{number}" / "__init__.py").touch()
        (site / f"some_part{number}" / "data" / "part.bin").write_bytes(content)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("RAREALERT_CACHE", str(tmp_path / "cache"))
    whole = b"GGUF, the whole of it"
    model = packaged.Packaged(
        parts=(("some_part1", "data/part.bin"), ("some_part2", "data/part.bin")),
        extra="'some[extra]'",
        sha256=hashlib.sha256(whole).hexdigest(),
    )
    monkeypatch.setitem(packaged.PACKAGED, "some-model", model)
    return model, whole


def test_parts_are_joined_once_and_only_to_the_known_file(in_parts, tmp_path, monkeypatch) -> None:
    model, whole = in_parts
    file = packaged.packaged_file("some-model")
    assert file.read_bytes() == whole
    assert file.parent == tmp_path / "cache"
    before = file.stat().st_mtime_ns
    assert packaged.packaged_file("some-model") == file
    assert file.stat().st_mtime_ns == before
    file.write_bytes(whole[:-1])  # a disk that was full
    assert packaged.packaged_file("some-model").read_bytes() == whole
    other = dataclasses.replace(model, sha256="0" * 64)
    monkeypatch.setitem(packaged.PACKAGED, "some-model", other)
    with pytest.raises(BadInputError, match="some-model"):
        packaged.packaged_file("some-model")
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_part_that_is_not_installed_is_named_with_what_to_install(in_parts, tmp_path) -> None:
    (tmp_path / "site" / "some_part2" / "data" / "part.bin").unlink()
    with pytest.raises(BadInputError, match=r"some-part2.*'some\[extra\]'"):
        load_base("some-model")
