"""Finding and loading base models: each error names the cause and the remedy."""

import json
from pathlib import Path

import pytest
import torch

from rarealert.errors import BadInputError
from rarealert.language import base
from rarealert.language.machine import NotEnoughMemoryError


def test_a_folder_loads_in_fp32_with_a_digest_of_its_weights(tiny_base: Path) -> None:
    loaded = base.load_base(str(tiny_base))
    assert loaded.model.dtype == torch.float32
    assert loaded.digest == base.load_base(str(tiny_base)).digest == base.digest_of(str(tiny_base))


@pytest.mark.parametrize("name", ["no-such/model", "no such model", "nonsense"])
def test_a_model_that_is_not_on_the_machine_is_named(name: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(BadInputError, match=name):
        base.load_base(name)


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(BadInputError, match="bert"):
        base.load_base(str(tmp_path))


@pytest.mark.parametrize("kept", [0, 100])
def test_missing_or_damaged_weights_are_refused(tmp_path: Path, tiny_base: Path, kept: int) -> None:
    for file in tiny_base.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    if not kept:
        weights.unlink()
    with pytest.raises(BadInputError, match=str(tmp_path)):
        base.load_base(str(tmp_path))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_device_that_is_not_on_the_machine_is_named(tiny_base: Path) -> None:
    with pytest.raises(BadInputError, match=r"distil\.device 'cuda'"):
        base.load_base(str(tiny_base), device="cuda")


def test_weights_that_do_not_fit_name_the_settings(tiny_base: Path, monkeypatch) -> None:
    from transformers import AutoModelForCausalLM

    def refuse(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refuse)
    with pytest.raises(NotEnoughMemoryError, match=r"distil\.base_model"):
        base.load_base(str(tiny_base))
