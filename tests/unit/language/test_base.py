"""Finding and loading base models: what is missing or wrong is one sentence."""

import hashlib
import json
from pathlib import Path

import pytest

from rarealert.errors import BadInputError
from rarealert.language import base


def test_a_folder_loads_in_fp32_with_a_digest_of_its_weights(tiny_base: Path) -> None:
    loaded = base.load_base(str(tiny_base))
    assert str(loaded.model.dtype) == "torch.float32"
    assert len(loaded.digest) == 64
    assert loaded.digest == base.load_base(str(tiny_base)).digest


@pytest.mark.parametrize("name", ["no-such/model", "no such model", "nonsense"])
def test_a_model_that_is_not_here_is_named(name: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(BadInputError, match="neither a packaged model"):
        base.load_base(name)


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(BadInputError, match="is a bert model"):
        base.load_base(str(tmp_path))


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="holds no config"):
        base.load_base(str(tmp_path))


def test_damaged_weights_are_refused(tmp_path: Path, tiny_base: Path) -> None:
    for file in tiny_base.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(BadInputError, match="can't be loaded"):
        base.load_base(str(tmp_path))


def test_a_half_unpacked_folder_is_made_again(tmp_path: Path, monkeypatch) -> None:
    source = tmp_path / "packed"
    source.write_bytes(b"weights")
    monkeypatch.setenv("RAREALERT_CACHE", str(tmp_path / "cache"))
    made = []

    def unpack(file: Path, folder: Path) -> None:
        made.append(folder)
        (folder / "model.safetensors").write_bytes(file.read_bytes())
        digest = base._sha256([folder / "model.safetensors"])
        (folder / "complete.json").write_text(json.dumps({"model.safetensors": digest}))

    monkeypatch.setattr(base, "_unpack", unpack)
    digest = hashlib.sha256(b"weights").hexdigest()
    folder = base._unpacked(source, digest)
    assert base._unpacked(source, digest) == folder
    assert len(made) == 1
    (folder / "model.safetensors").write_bytes(b"wei")
    assert base._unpacked(source, digest) == folder
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert len(made) == 2
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]
