"""The training loop: AdamW, the best epoch by validation loss, exact resume after a kill.

AdamW (Loshchilov & Hutter 2019) with warm-up, cosine decay and clipped gradients. Everything random
follows from the seed and the epoch, so training resumes from a checkpoint to the same weights. A
checkpoint is one safetensors file, so it can't run code, and its digest names the data and settings
it belongs to.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from rarealert.errors import RareAlertError
from rarealert.files import whole
from rarealert.language.machine import enough_memory

_WARMUP_SHARE = 0.1
_CLIP_NORM = 1.0
_WEIGHT_DECAY = 0.01
_ASK_LESS = "set distil.gradient_checkpointing to true, or lower the task's batch_size (distil)"

Parameters = dict[str, torch.nn.Parameter]


class DivergedError(RareAlertError):
    """The loss or a gradient is no longer a number."""


@dataclass(frozen=True)
class Schedule:
    """What is not tuned: passes, examples a step, and the seed of initialisation and order."""

    epochs: int
    batch_size: int
    seed: int


@dataclass(frozen=True)
class Epoch:
    """One pass: mean losses in nats; epoch 0 is the start. ``figures`` are of validation."""

    epoch: int
    loss: float | None
    valid_loss: float
    figures: Mapping[str, float] = field(default_factory=dict)


class Task(Protocol):
    """Something to learn: its parameters, its loss on a batch, and its validation."""

    @property
    def parameters(self) -> Parameters:
        """The parameters that are trained, by name."""

    @property
    def rates(self) -> Mapping[str, float]:
        """Share of the learning rate by parameter name, where it is not 1."""

    def batches(self, size: int, seed: tuple[int, int]) -> Sequence[Sequence[int]]:
        """The training examples of one pass, in batches; their number depends on ``size`` alone."""

    def loss(self, chosen: Sequence[int]) -> Tensor:
        """Mean loss of a batch, a scalar with its graph."""

    def validate(self) -> tuple[float, dict[str, float]]:
        """Mean validation loss, and other figures by name."""


def train(
    task: Task,
    learning_rate: float,
    schedule: Schedule,
    checkpoint: Path | None = None,
    digest: str = "",
    on_epoch: Callable[[Epoch], None] | None = None,
) -> list[Epoch]:
    """Train ``task`` and leave its parameters at the epoch with the lowest validation loss.

    ``checkpoint`` is written after each epoch and resumed from if it carries ``digest``, which
    must name everything that shapes the result; ``on_epoch`` may raise to stop.

    Raises:
        DivergedError: the loss or a gradient became NaN or infinite; the last good checkpoint
            stays.
        NotEnoughMemoryError: a batch doesn't fit; the checkpoint of the epoch before stays.
    """
    parameters, optimiser = task.parameters, _optimiser(task, learning_rate)
    history, best = _resumed(checkpoint, digest, parameters, optimiser)
    if not history:
        history, best = [Epoch(0, None, *task.validate())], _copied(parameters)
        if on_epoch:
            on_epoch(history[0])
    for number in range(len(history), schedule.epochs + 1):
        with enough_memory(f"epoch {number} of the training", _ASK_LESS):
            loss = _one_epoch(task, schedule, optimiser, number)
            history.append(Epoch(number, loss, *task.validate()))
        if history[-1].valid_loss < min(item.valid_loss for item in history[:-1]):
            best = _copied(parameters)
        if checkpoint:
            _save(checkpoint, digest, parameters, best, optimiser, history)
        if on_epoch:
            on_epoch(history[-1])
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(best[name])
    return history


def best_epoch(history: Sequence[Epoch]) -> Epoch:
    """The epoch whose weights ``train`` leaves; the first of equals."""
    return min(history, key=lambda epoch: epoch.valid_loss)


def _optimiser(task: Task, learning_rate: float) -> torch.optim.Optimizer:
    groups = []
    for name, value in task.parameters.items():
        rate = learning_rate * task.rates.get(name, 1.0)
        groups.append({"params": [value], "lr": rate, "initial_lr": rate})
    return torch.optim.AdamW(groups, weight_decay=_WEIGHT_DECAY)


def _copied(parameters: Mapping[str, torch.nn.Parameter]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in parameters.items()}


def _one_epoch(
    task: Task, schedule: Schedule, optimiser: torch.optim.Optimizer, number: int
) -> float:
    """Mean loss an example of one pass."""
    from transformers import get_cosine_schedule_with_warmup

    batches = task.batches(schedule.batch_size, (schedule.seed, number))
    total, done = len(batches) * schedule.epochs, len(batches) * (number - 1)
    # shifted by one step, so that neither the first nor the last step has a rate of zero
    warmup = max(1, round(_WARMUP_SHARE * total))
    rates = get_cosine_schedule_with_warmup(optimiser, warmup, total + 1, last_epoch=done)
    loss_sum = 0.0
    for chosen in batches:
        loss = task.loss(chosen)
        if not math.isfinite(float(loss.detach())):
            raise DivergedError(_diverged("loss", number))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(task.parameters.values(), _CLIP_NORM)
        if not math.isfinite(float(norm)):
            raise DivergedError(_diverged("gradient", number))
        optimiser.step()
        rates.step()
        loss_sum += float(loss.detach()) * len(chosen)
    return loss_sum / sum(len(chosen) for chosen in batches)


def _diverged(what: str, number: int) -> str:
    return (
        f"the student's {what} is not a number in epoch {number}; the checkpoint of the "
        "epoch before is kept. Lower the learning rate (tune) and run the stage again."
    )


def _save(
    file: Path,
    digest: str,
    parameters: Parameters,
    best: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
    history: Sequence[Epoch],
) -> None:
    """Write everything that the next epoch needs; the file appears only once it is whole."""
    from safetensors.torch import save_file

    tensors = {f"now.{name}": value.detach().clone() for name, value in parameters.items()}
    tensors |= {f"best.{name}": value for name, value in best.items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{key}": value.clone() for key, value in state.items()}
    epochs = json.dumps([asdict(item) for item in history])
    with whole(file) as partial:
        save_file(tensors, partial, metadata={"digest": digest, "history": epochs})


def _resumed(
    file: Path | None, digest: str, parameters: Parameters, optimiser: torch.optim.Optimizer
) -> tuple[list[Epoch], dict[str, Tensor]]:
    """Put weights and optimiser back as in the checkpoint; its history and best weights.

    Both are empty where there is no checkpoint, it is damaged, or it has another digest.
    """
    from safetensors import SafetensorError, safe_open

    if file is None or not file.is_file():
        return [], {}
    try:
        with safe_open(file, framework="pt") as stored:
            metadata: dict[str, str] = stored.metadata() or {}
            if metadata.get("digest") != digest:
                return [], {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (SafetensorError, OSError):
        return [], {}
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(tensors[f"now.{name}"])
    state: dict[str, Any] = optimiser.state_dict()
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimiser":
            index, _, key = rest.partition(".")
            state["state"].setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict(state)
    history = [Epoch(**item) for item in json.loads(metadata["history"])]
    return history, {name: tensors[f"best.{name}"] for name in parameters}
