"""The trunk run in parts gives the states of a whole pass, and LoRA is where it belongs."""

from dataclasses import replace

import pytest
import torch

from rarealert.errors import BadInputError
from rarealert.language.base import load_base
from rarealert.student import network as module
from rarealert.student.network import (
    RationaleLora,
    RiskHead,
    Trunk,
    add_adapter,
    remove_adapter,
)
from rarealert.student.trainer import load_training_base

IDS = torch.arange(3, 33).reshape(2, 15)


@pytest.fixture
def model(tiny_base):
    return load_base(str(tiny_base)).model


def test_checkpointing_gives_the_gradients_of_a_plain_pass(model) -> None:
    weight = model.model.layers[1].mlp.up_proj.weight
    gradients = []
    for checkpointing in (False, True):
        trunk = Trunk(model, 2, 1, 1, checkpointing=checkpointing)
        model.zero_grad()
        trunk.run(trunk.embed(IDS), 0, 2).square().mean().backward()
        gradients.append(weight.grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1])


def test_parts_of_layers_and_of_a_batch_make_a_whole_pass(model, monkeypatch) -> None:
    with torch.no_grad():
        expected = model.model(input_ids=IDS).last_hidden_state
        for positions in (10**6, 15):  # the whole batch together, then row by row
            monkeypatch.setattr(module, "_CACHED_POSITIONS", positions)
            trunk = Trunk(model, 2, 1, 1)
            states = trunk.run(trunk.run(trunk.embed(IDS), 0, 1), 1, 3)
            torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-4)


def test_layers_laid_out_by_accelerate_run_in_parts(tiny_base, model, tmp_path) -> None:
    """Memory and disk as the two devices, which every machine has."""
    from transformers import AutoModelForCausalLM

    layout = {"model.embed_tokens": "cpu", "lm_head": "cpu", "model.rotary_emb": "cpu"}
    layout |= {f"model.layers.{n}": "cpu" if n < 2 else "disk" for n in range(3)}
    layout["model.norm"] = "disk"
    spread = AutoModelForCausalLM.from_pretrained(
        tiny_base, device_map=layout, offload_folder=tmp_path, dtype=torch.float32
    )
    with torch.no_grad():
        plain, offloaded = (
            trunk.run(trunk.run(trunk.embed(IDS), 0, 1), 1, 3)
            for trunk in (Trunk(model, 2, 1, 1), Trunk(spread, 2, 1, 1))
        )
    torch.testing.assert_close(plain, offloaded)


@pytest.mark.parametrize("blocks", [(9, 1, 1), (2, 3, 1), (3, 1, 1), (0, 0, 1)])
def test_blocks_that_do_not_fit_the_depth_are_refused(model, blocks) -> None:
    with pytest.raises(BadInputError, match="3 layers"):
        Trunk(model, *blocks)


@pytest.mark.parametrize("rationale", [RationaleLora("all", 2), RationaleLora("attention", 8)])
def test_the_risk_s_settings_do_not_change_the_rationale_s_lora(
    chosen, settings, rationale
) -> None:
    trunk = load_training_base(chosen).trunk
    names = {"all": {"self_attn", "mlp"}, "attention": {"self_attn"}}
    for modules, rank in (("attention", 4), ("all", 3)):
        tuned = replace(settings, modules=modules, rank=rank, alpha_ratio=1.0)
        network = add_adapter(trunk, RiskHead(2), tuned, rationale, 1)
        for parameters, layer, expected in (
            (network.risk_parameters(), "1", (modules, rank)),
            (network.rationale_parameters(), "2", (rationale.modules, rationale.rank)),
        ):
            lora = {name: value for name, value in parameters.items() if "lora_A" in name}
            assert {name.split(".layers.")[1].split(".")[0] for name in lora} == {layer}
            assert {name.split(".")[-5] for name in lora} == names[expected[0]]
            assert {value.shape[0] for value in lora.values()} == {expected[1]}
        scales = {
            (name.split(".layers.")[1][0], part.scaling["default"])
            for name, part in network.peft_model.named_modules()
            if hasattr(part, "lora_A")
        }
        assert scales == {("1", 1.0), ("2", 2.0)}
        remove_adapter(network)
