"""The training loop: AdamW, best epoch by validation loss, exact resume after a kill.

AdamW (Loshchilov & Hutter 2019) with warm-up, cosine decay and clipped gradients. Everything random
follows from the seed and the epoch, so training resumes from a checkpoint to the same weights.
Checkpoints are safetensors, never pickle.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from rarealert.errors import RareAlertError
from rarealert.language.devices import enough_memory
from rarealert.student import checkpoint as store

_WARMUP_SHARE = 0.1
_CLIP_NORM = 1.0
_WEIGHT_DECAY = 0.01
_ASK_LESS = "set distil.gradient_checkpointing to true, or lower the task's batch_size (distil)"


class DivergedError(RareAlertError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Schedule:
    """What is not tuned: passes, examples a step, and the seed of initialisation and order."""

    epochs: int
    batch_size: int
    seed: int


@dataclass(frozen=True)
class Epoch:
    """One pass: mean losses in nats; 0 is the start. ``figures`` are other ones of validation."""

    epoch: int
    loss: float | None
    valid_loss: float
    figures: Mapping[str, float] = field(default_factory=dict)


class Task(Protocol):
    """Something to learn: its parameters, its loss on a batch, and its validation."""

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """What the optimiser moves, by name."""

    @property
    def rates(self) -> Mapping[str, float]:
        """Share of the learning rate by parameter name, where it is not 1."""

    def batches(self, size: int, seed: tuple[int, int]) -> Sequence[Sequence[int]]:
        """The training examples of one pass, in batches."""

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
    stored = store.resume(checkpoint, digest, parameters, optimiser) if checkpoint else []
    history = [Epoch(**item) for item in stored]
    if checkpoint and history:
        best = store.best_state(checkpoint, parameters)
    else:
        history = [Epoch(0, None, *task.validate())]
        best = _copied(parameters)
        if on_epoch:
            on_epoch(history[0])
    for number in range(len(history), schedule.epochs + 1):
        with enough_memory(f"epoch {number} of the training", _ASK_LESS):
            loss = _one_epoch(task, learning_rate, schedule, optimiser, number)
            history.append(Epoch(number, loss, *task.validate()))
        if history[-1].valid_loss < min(item.valid_loss for item in history[:-1]):
            best = _copied(parameters)
        if checkpoint:
            said = [asdict(item) for item in history]
            store.save(checkpoint, digest, parameters, best, optimiser, said)
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
    groups = [
        {"params": [value], "share": task.rates.get(name, 1.0)}
        for name, value in task.parameters.items()
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, weight_decay=_WEIGHT_DECAY)


def _copied(parameters: Mapping[str, torch.nn.Parameter]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in parameters.items()}


def _one_epoch(
    task: Task,
    learning_rate: float,
    schedule: Schedule,
    optimiser: torch.optim.Optimizer,
    number: int,
) -> float:
    """Mean loss an example of one pass."""
    batches = task.batches(schedule.batch_size, (schedule.seed, number))
    total = len(batches) * schedule.epochs
    loss_sum = 0.0
    for step, chosen in enumerate(batches, start=(number - 1) * len(batches)):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * group["share"] * _factor(step, total)
        loss = task.loss(chosen)
        if not math.isfinite(float(loss.detach())):
            raise DivergedError(_diverged("loss", number))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(task.parameters.values(), _CLIP_NORM)
        if not math.isfinite(float(norm)):
            raise DivergedError(_diverged("gradient", number))
        optimiser.step()
        loss_sum += float(loss.detach()) * len(chosen)
    return loss_sum / sum(len(chosen) for chosen in batches)


def _diverged(what: str, number: int) -> str:
    return (
        f"the student's {what} is not a number in epoch {number}; the checkpoint of the "
        "epoch before is kept. Lower the learning rate (tune) and run the stage again."
    )


def _factor(step: int, total: int) -> float:
    """Linear warm-up, then cosine decay to zero, as a share of the learning rate."""
    warmup = max(1, round(_WARMUP_SHARE * total))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
