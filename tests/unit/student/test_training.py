"""The training loop: exact resume, and one sentence for what stops it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rarealert.errors import BadInputError, RareAlertError
from rarealert.language.machine import NotEnoughMemoryError, enough_memory
from rarealert.student.activations import store_states
from rarealert.student.trainer import load_training_base
from rarealert.student.training import DivergedError, Schedule, train

MORE_THAN_ANY_MACHINE = 2**50  # bytes


class OneWeight:
    """A task of one weight; ``second`` computes its second loss."""

    def __init__(self, second=torch.sum) -> None:
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.rates: dict[str, float] = {}
        self.parameters = {"weight": self.weight}
        self._second = second
        self._losses = 0

    def batches(self, size, seed):
        return [(0,)]

    def loss(self, chosen):
        self._losses += 1
        return self._second(self.weight) if self._losses == 2 else self.weight.sum() ** 2

    def validate(self):
        return float(self.weight.detach().sum()), {}


def too_much(weight):
    return weight.sum() + torch.empty(MORE_THAN_ANY_MACHINE, dtype=torch.uint8).sum()


def raised(error):
    def second(weight):
        raise error

    return second


@pytest.mark.parametrize(
    "second",
    [too_much, raised(torch.OutOfMemoryError("CUDA out of memory.")), raised(MemoryError)],
    ids=["allocator", "gpu", "python"],
)
def test_training_out_of_memory_names_the_settings_and_resumes(tmp_path, second) -> None:
    checkpoint, schedule = tmp_path / "checkpoint.safetensors", Schedule(3, 1, 0)
    with pytest.raises(NotEnoughMemoryError, match=r"epoch 2.*gradient_checkpointing"):
        train(OneWeight(second), 1e-2, schedule, checkpoint, "d")
    seen = []
    train(OneWeight(), 1e-2, schedule, checkpoint, "d", lambda epoch: seen.append(epoch.epoch))
    assert seen == [2, 3]


@pytest.mark.parametrize(
    ("second", "what"),
    [
        (lambda weight: weight.sum() * float("nan"), "loss"),
        (lambda weight: (weight - weight.detach()).sqrt().sum() * 0, "gradient"),
    ],
)
def test_divergence_stops_before_the_step_and_keeps_the_checkpoint(tmp_path, second, what) -> None:
    checkpoint, schedule = tmp_path / "checkpoint.safetensors", Schedule(3, 1, 0)
    task = OneWeight(second)
    with pytest.raises(DivergedError, match=f"{what} .* epoch 2"):
        train(task, 1e-2, schedule, checkpoint, "d")
    assert torch.isfinite(task.weight).all()
    assert len(train(OneWeight(), 1e-2, schedule, checkpoint, "d")) == 4


@pytest.mark.parametrize("damage", [lambda content: content[:50], lambda content: b""])
def test_a_checkpoint_of_other_data_or_a_damaged_one_is_not_resumed(tmp_path, damage) -> None:
    checkpoint, schedule = tmp_path / "checkpoint.safetensors", Schedule(1, 1, 0)

    def epochs(digest: str) -> list[int]:
        seen = []
        record = lambda epoch: seen.append(epoch.epoch)  # noqa: E731
        train(OneWeight(), 1e-2, schedule, checkpoint, digest, record)
        return seen

    assert epochs("first") == [0, 1]
    assert epochs("first") == []
    assert epochs("second") == [0, 1]
    checkpoint.write_bytes(damage(checkpoint.read_bytes()))
    assert epochs("second") == [0, 1]


def test_other_errors_are_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="shapes"), enough_memory("a", "b"):
        raise RuntimeError("shapes differ")


@pytest.mark.parametrize(
    ("states", "error", "setting"),
    [
        (
            lambda ids: torch.empty(MORE_THAN_ANY_MACHINE, dtype=torch.uint8),
            NotEnoughMemoryError,
            r"distil\.batch_size",
        ),
        (lambda ids: torch.full((*ids.shape, 4), 1e6), RareAlertError, r"distil\.dtype"),
    ],
)
def test_states_that_cannot_be_stored_name_the_setting(tmp_path, states, error, setting) -> None:
    with pytest.raises(error, match=setting):
        store_states([[1, 2]], lambda chosen, ids, lengths: states(ids), 4, tmp_path / "a", 1)


def test_bfloat16_states_keep_what_float16_cannot(tmp_path: Path) -> None:
    def large(chosen, ids, lengths):
        return torch.full((*ids.shape, 4), 1e6, dtype=torch.bfloat16)

    stored = store_states([[1, 2]], large, 4, tmp_path / "a", 1)
    back = torch.from_numpy(np.array(stored.bits)).view(stored.dtype).float()
    torch.testing.assert_close(back, torch.full((2, 4), 1e6), rtol=0.01, atol=0)


def test_a_visit_may_not_be_longer_than_the_model_reads(chosen) -> None:
    with pytest.raises(BadInputError, match="512"):
        load_training_base(chosen.model_copy(update={"max_prompt_tokens": 500}))
