"""Training of adapter and head: rationale tokens, soft aligned risk and hard label in one loss.

Only LoRA and head are optimised (AdamW, Loshchilov & Hutter 2019), with warm-up, cosine decay
and clipped gradients. Everything random follows from the seed and the epoch, so training resumes
from a checkpoint to the same weights. Checkpoints are safetensors, never pickle.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rarealert.errors import RareAlertError
from rarealert.language.base import quiet
from rarealert.student import checkpoint as store
from rarealert.student.activations import Frozen
from rarealert.student.network import RiskHead, Trunk, pool

_WARMUP_SHARE = 0.1
_CLIP_NORM = 1.0
_WEIGHT_DECAY = 0.01
_TARGET_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class DivergedError(RareAlertError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Settings:
    """What is tuned. ``alpha_ratio`` is LoRA's alpha over its rank; weights are shares 0-1."""

    learning_rate: float
    rank: int
    alpha_ratio: float
    soft_weight: float
    rationale_weight: float


@dataclass(frozen=True)
class Schedule:
    """What is not tuned: passes, cases a step, and the seed of initialisation and order."""

    epochs: int
    batch_size: int
    seed: int


@dataclass(frozen=True)
class Epoch:
    """Losses of one pass (mean a case) and what validation says after it; 0 is the head alone."""

    epoch: int
    risk_loss: float | None
    rationale_loss: float | None
    valid_log_loss: float
    valid_auroc: float


@dataclass
class Network:
    """The parts that work together: trunk with LoRA inside, peft's handle on it, the head."""

    trunk: Trunk
    peft_model: Any
    head: RiskHead

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """Every parameter that is optimised, by name; the frozen trunk has none here."""
        lora = {
            name: value for name, value in self.peft_model.named_parameters() if value.requires_grad
        }
        return lora | {f"head.{name}": value for name, value in self.head.named_parameters()}

    def risk_logits(self, states: Tensor, words: Tensor, prompts: Tensor) -> Tensor:
        """Logits ``(batch,)`` from states at the risk layer and mean embeddings."""
        return torch.as_tensor(self.head(torch.cat([words, pool(states, prompts)], dim=1)))


def add_adapter(model: Any, trunk: Trunk, head: RiskHead, settings: Settings, seed: int) -> Network:
    """Put a fresh LoRA into the block below the risk layer; undo it with ``remove_adapter``."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=round(settings.rank * settings.alpha_ratio),
        target_modules=list(_TARGET_MODULES),
        layers_to_transform=list(range(trunk.block_start, trunk.risk_layer)),
        task_type="CAUSAL_LM",
    )
    with quiet(), torch.random.fork_rng():
        torch.manual_seed(seed)
        adapted = get_peft_model(model, config)
    adapted.eval()  # no dropout anywhere: a pass is the same function in training and at work
    return Network(trunk=trunk, peft_model=adapted, head=head)


def remove_adapter(network: Network) -> None:
    """Take the LoRA out again, which leaves the base model as it was loaded."""
    network.peft_model.unload()


def train(
    network: Network,
    train_part: Frozen,
    valid_part: Frozen,
    settings: Settings,
    schedule: Schedule,
    checkpoint: Path | None = None,
    digest: str = "",
    on_epoch: Callable[[Epoch], None] | None = None,
) -> list[Epoch]:
    """Train ``network`` and leave it at its best epoch by validation AUROC.

    ``checkpoint`` is written after each epoch and resumed from if it carries ``digest``, which
    must name everything that shapes the result; ``on_epoch`` may raise to stop.

    Raises:
        DivergedError: the loss became NaN or infinite; the last good checkpoint stays.
    """
    parameters = network.trainable()
    optimiser = torch.optim.AdamW(
        list(parameters.values()), lr=settings.learning_rate, weight_decay=_WEIGHT_DECAY
    )
    stored = store.resume(checkpoint, digest, parameters, optimiser) if checkpoint else []
    history = [Epoch(**item) for item in stored]
    if checkpoint and history:
        best = store.best_state(checkpoint, parameters)
    else:
        history = [Epoch(0, None, None, *validate(network, valid_part))]
        best = {name: value.detach().clone() for name, value in parameters.items()}
        if on_epoch:
            on_epoch(history[0])
    for number in range(len(history), schedule.epochs + 1):
        losses = _one_epoch(network, train_part, settings, schedule, optimiser, number)
        history.append(Epoch(number, *losses, *validate(network, valid_part)))
        if history[-1].valid_auroc > max(item.valid_auroc for item in history[:-1]):
            best = {name: value.detach().clone() for name, value in parameters.items()}
        if checkpoint:
            said = [asdict(item) for item in history]
            store.save(checkpoint, digest, parameters, best, optimiser, said)
        if on_epoch:
            on_epoch(history[-1])
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(best[name])
    return history


def logits_of(network: Network, part: Frozen, batch_size: int = 32) -> NDArray[np.float64]:
    """Uncalibrated logits of a frozen part, shape ``(n_examples,)``."""
    logits = np.zeros(len(part.examples))
    with torch.no_grad():
        for chosen in _batches(part, batch_size, None):
            states, words, prompts = part.batch(chosen)
            states = network.trunk.run(
                states[:, : int(prompts.max())],
                network.trunk.block_start,
                network.trunk.risk_layer,
            )
            logits[list(chosen)] = network.risk_logits(states, words, prompts).double().numpy()
    return logits


def validate(network: Network, part: Frozen) -> tuple[float, float]:
    """Log loss (nats a case, uncalibrated) and AUROC of the labels on ``part``."""
    from sklearn.metrics import log_loss, roc_auc_score

    rare = [item.rare for item in part.examples]
    logits = logits_of(network, part)
    risk = 1 / (1 + np.exp(-logits))
    return float(log_loss(rare, risk, labels=[False, True])), float(roc_auc_score(rare, logits))


def _one_epoch(
    network: Network,
    part: Frozen,
    settings: Settings,
    schedule: Schedule,
    optimiser: torch.optim.Optimizer,
    number: int,
) -> tuple[float, float | None]:
    """Mean risk loss a case and mean rationale loss a step of one pass."""
    batches = _batches(part, schedule.batch_size, (schedule.seed, number))
    total = len(batches) * schedule.epochs
    risk_sum, rationale_losses = 0.0, []
    for step, chosen in enumerate(batches, start=(number - 1) * len(batches)):
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * _factor(step, total)
        risk_loss, rationale_loss = _losses(network, part, chosen, settings)
        loss = risk_loss + settings.rationale_weight * rationale_loss
        if not math.isfinite(float(loss.detach())):
            raise DivergedError(
                f"the student's loss is not a number in epoch {number}; the checkpoint of the "
                "epoch before is kept. Lower the learning rate (tune) and run the stage again."
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(optimiser.param_groups[0]["params"], _CLIP_NORM)
        optimiser.step()
        risk_sum += float(risk_loss.detach()) * len(chosen)
        if any(part.examples[index].rationale for index in chosen):
            rationale_losses.append(float(rationale_loss.detach()))
    mean_rationale = float(np.mean(rationale_losses)) if rationale_losses else None
    return risk_sum / len(part.examples), mean_rationale


def _losses(
    network: Network, part: Frozen, chosen: Sequence[int], settings: Settings
) -> tuple[Tensor, Tensor]:
    trunk = network.trunk
    states, words, prompts = part.batch(chosen)
    states = trunk.run(states, trunk.block_start, trunk.risk_layer)
    logits = network.risk_logits(states, words, prompts)
    examples = [part.examples[index] for index in chosen]
    hard = torch.tensor([float(item.rare) for item in examples])
    soft = torch.tensor([item.target for item in examples], dtype=torch.float32)
    mixed = settings.soft_weight * soft + (1 - settings.soft_weight) * hard
    risk_loss = functional.binary_cross_entropy_with_logits(logits, mixed)
    told = [row for row, item in enumerate(examples) if item.rationale]
    if not told or settings.rationale_weight == 0:
        return risk_loss, torch.zeros(())
    top = trunk.run(states[told], trunk.risk_layer, trunk.depth)
    places: list[Tensor] = []
    answers: list[int] = []
    for row, index in enumerate(told):
        start, length = len(examples[index].prompt), len(examples[index].ids)
        places.append(top[row, start - 1 : length - 1])
        answers.extend(examples[index].rationale)
    logits = trunk.logits(torch.cat(places))
    return risk_loss, functional.cross_entropy(logits, torch.tensor(answers))


def _batches(part: Frozen, size: int, seed: tuple[int, int] | None) -> list[tuple[int, ...]]:
    """Batches of neighbours in length, in random order with a ``seed``, else by length."""
    lengths = np.array([len(item.ids) for item in part.examples], dtype=float)
    random = np.random.default_rng(seed) if seed else None
    if random:
        lengths = lengths + random.uniform(0, 8, len(lengths))  # other neighbours each epoch
    order = np.argsort(lengths, kind="stable").tolist()
    batches = [tuple(order[first : first + size]) for first in range(0, len(order), size)]
    if random:
        random.shuffle(batches)
    return batches


def _factor(step: int, total: int) -> float:
    """Linear warm-up, then cosine decay to zero, as a share of the learning rate."""
    warmup = max(1, round(_WARMUP_SHARE * total))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
