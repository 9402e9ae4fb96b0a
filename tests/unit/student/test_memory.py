"""Out of memory, no such device, too long a visit, a broken gradient: one sentence each."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rarealert.errors import BadInputError, RareAlertError
from rarealert.language.base import NotEnoughMemoryError, enough_memory, load_base
from rarealert.student.activations import run_once
from rarealert.student.tasks import open_desk
from rarealert.student.training import DivergedError, Schedule, train

ENOUGH_FOR_NOBODY = 2**50  # bytes


class Spoilt:
    """A task of one weight whose second loss is what ``spoil`` makes of it."""

    def __init__(self, spoil) -> None:
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.rates: dict[str, float] = {}
        self.parameters = {"weight": self.weight}
        self._spoil = spoil
        self._asked = 0

    def batches(self, size, seed):
        return [(0,)]

    def loss(self, chosen):
        self._asked += 1
        return self._spoil(self.weight) if self._asked == 2 else self.weight.sum() ** 2

    def validate(self):
        return float(self.weight.detach().sum()), {}


def too_much(weight):
    return weight.sum() + torch.empty(ENOUGH_FOR_NOBODY, dtype=torch.uint8).sum()


def raised(error):
    def spoil(weight):
        raise error

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [too_much, raised(torch.OutOfMemoryError("CUDA out of memory.")), raised(MemoryError)],
    ids=["allocator", "gpu", "python"],
)
def test_training_out_of_memory_names_the_settings_and_goes_on_later(tmp_path, spoil) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    schedule = Schedule(3, 1, 0)
    with pytest.raises(NotEnoughMemoryError, match=r"epoch 2.*gradient_checkpointing"):
        train(Spoilt(spoil), 1e-2, schedule, checkpoint, "d")
    seen: list[int] = []
    train(
        Spoilt(torch.sum), 1e-2, schedule, checkpoint, "d", lambda epoch: seen.append(epoch.epoch)
    )
    assert seen == [2, 3]


def test_a_gradient_that_is_no_number_stops_before_the_step(tmp_path: Path) -> None:
    task = Spoilt(lambda weight: (weight - weight.detach()).sqrt().sum() * 0)
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(DivergedError, match="gradient is not a number in epoch 2"):
        train(task, 1e-2, Schedule(3, 1, 0), checkpoint, "d")
    assert torch.isfinite(task.weight).all()
    assert checkpoint.is_file()


def test_other_errors_are_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="shapes"), enough_memory("a", "b"):
        raise RuntimeError("shapes differ")


def test_frozen_layers_out_of_memory_and_states_too_large(tmp_path: Path) -> None:
    def endless(chosen, ids, lengths):
        return torch.empty(ENOUGH_FOR_NOBODY, dtype=torch.uint8)

    def large(chosen, ids, lengths):
        return torch.full((*ids.shape, 4), 1e6)

    with pytest.raises(NotEnoughMemoryError, match=r"lower distil\.batch_size"):
        run_once([[1, 2]], endless, 4, 0, tmp_path / "a", 1)
    with pytest.raises(RareAlertError, match=r"set distil\.dtype to bfloat16"):
        run_once([[1, 2]], large, 4, 0, tmp_path / "b", 1)


def test_bfloat16_keeps_what_float16_cannot(tmp_path: Path) -> None:
    def large(chosen, ids, lengths):
        return torch.full((*ids.shape, 4), 1e6, dtype=torch.bfloat16)

    kept = run_once([[1, 2]], large, 4, 0, tmp_path / "a", 1)
    back = torch.from_numpy(np.array(kept.bits)).view(kept.dtype).float()
    torch.testing.assert_close(back, torch.full((2, 4), 1e6), rtol=0.01, atol=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_device_that_is_not_here_is_named(tiny_base: Path) -> None:
    with pytest.raises(BadInputError, match=r"distil\.device 'cuda' is not on this machine"):
        load_base(str(tiny_base), device="cuda")


def test_weights_that_do_not_fit_name_a_smaller_model(tiny_base: Path, monkeypatch) -> None:
    from transformers import AutoModelForCausalLM

    def refuse(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refuse)
    with pytest.raises(NotEnoughMemoryError, match=r"name a smaller distil\.base_model"):
        load_base(str(tiny_base))


def test_a_visit_may_not_be_longer_than_the_model_reads(tiny_base: Path, distil_params) -> None:
    chosen = distil_params(str(tiny_base), (2, 1)).model_copy(update={"max_prompt_tokens": 500})
    with pytest.raises(BadInputError, match="reads 512; lower them"):
        open_desk(chosen)
