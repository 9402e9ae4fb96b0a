"""The two training tasks: the risk of a visit, then the rationale for it.

Learning both at once cost a pass through the whole trunk for every rationale and lowered the risk's
AUROC below its start (docs/decisions/0004). One after the other, each task trains the block that it
needs, on states that were computed once.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rarealert.student.activations import Activations
from rarealert.student.network import Network, pool

_HEAD_RATE = 0.1  # of the adapter's; at the full rate the first pass undid the fit
_EVALUATION_BATCH = 32  # examples a pass where no gradient is kept


class RiskNetwork(Protocol):
    """A network that learns a risk: the student's, or the baseline's."""

    def risk_parameters(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that learn the risk, by name; those of the head begin with ``head.``."""

    def risk_logits(self, part: Activations, chosen: Sequence[int]) -> Tensor:
        """Uncalibrated logits ``(batch,)`` of the examples ``chosen``."""


class RiskTask:
    """Cross-entropy of the network's logit with aligned risk and label, mixed by ``soft_weight``.

    ``only`` are the training examples to go through; without it, all.
    """

    def __init__(
        self,
        network: RiskNetwork,
        train: Activations,
        valid: Activations,
        soft_weight: float,
        only: Sequence[int] | None = None,
    ) -> None:
        self._network = network
        self._train = train
        self._valid = valid
        self._soft_weight = soft_weight
        self._only = only

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """LoRA and the head."""
        return self._network.risk_parameters()

    @property
    def rates(self) -> dict[str, float]:
        """The head, which starts at its optimum on frozen features, follows slowly."""
        return {name: _HEAD_RATE for name in self.parameters if name.startswith("head.")}

    def batches(self, size: int, seed: tuple[int, int]) -> list[tuple[int, ...]]:
        """Batches of one pass over the training examples."""
        return self._train.batches(size, seed, self._only)

    def loss(self, chosen: Sequence[int]) -> Tensor:
        """Mean cross-entropy a case, in nats."""
        examples = [self._train.examples[index] for index in chosen]
        soft = torch.tensor([item.target for item in examples])
        hard = torch.tensor([float(item.rare) for item in examples])
        mixed = self._soft_weight * soft + (1 - self._soft_weight) * hard
        logits = self._network.risk_logits(self._train, chosen)
        return functional.binary_cross_entropy_with_logits(logits, mixed)

    def validate(self) -> tuple[float, dict[str, float]]:
        """Log loss of the labels (nats a case, uncalibrated), and the AUROC."""
        from sklearn.metrics import log_loss, roc_auc_score

        rare = [item.rare for item in self._valid.examples]
        logits = logits_of(self._network, self._valid)
        risk = 1 / (1 + np.exp(-logits))
        loss = float(log_loss(rare, risk, labels=[False, True]))
        return loss, {"valid_auroc": float(roc_auc_score(rare, logits))}


class RationaleTask:
    """Cross-entropy of the rationale's tokens, given the visit and the opening.

    At work the opening follows from the risk, so it is not learnt.
    """

    def __init__(self, network: Network, train: Activations, valid: Activations) -> None:
        self._network = network
        self._train = train
        self.valid = valid

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """LoRA of the layers at the top."""
        return self._network.rationale_parameters()

    @property
    def rates(self) -> dict[str, float]:
        """Empty: all parameters learn at one rate."""
        return {}

    def batches(self, size: int, seed: tuple[int, int]) -> list[tuple[int, ...]]:
        """Batches of one pass over the examples with a rationale."""
        return self._train.batches(size, seed)

    def loss(self, chosen: Sequence[int]) -> Tensor:
        """Mean cross-entropy a token, in nats."""
        return _token_losses(self._network, self._train, chosen).mean()

    def validate(self) -> tuple[float, dict[str, float]]:
        """Mean cross-entropy a token (nats) of the validation part's rationales."""
        with torch.no_grad():
            losses = [
                _token_losses(self._network, self.valid, chosen)
                for chosen in self.valid.batches(_EVALUATION_BATCH)
            ]
        return float(torch.cat(losses).mean()), {}


def logits_of(network: RiskNetwork, part: Activations) -> NDArray[np.float64]:
    """Uncalibrated logits of a part, shape ``(n_examples,)``."""
    logits = np.zeros(len(part.examples))
    with torch.no_grad():
        for chosen in part.batches(_EVALUATION_BATCH):
            logits[list(chosen)] = network.risk_logits(part, chosen).double().numpy()
    return logits


def readout_of(
    network: Network, part: Activations, frame: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Features of each example, and the mean log-odds of its visit tokens alone.

    Shapes ``(n_examples, columns)`` and ``(n_examples,)``; ``frame`` counts the tokens of a prompt
    before and after the visit.
    """
    pooled, by_token = np.zeros(part.pooled.shape), np.zeros(len(part.examples))
    before, after = frame
    with torch.no_grad():
        for chosen in part.batches(_EVALUATION_BATCH):
            batch, states = part.prompts(chosen), network.risk_states(part, chosen)
            pooled[list(chosen)] = pool(states, batch.lengths).double().numpy()
            words = network.trunk.words(batch).float().cpu()
            alone = network.head(torch.cat([words, states.float().cpu()], dim=2))
            for row, index in enumerate(chosen):
                last = int(batch.lengths[row]) - after
                by_token[index] = float(alone[row, before:last].double().mean())
    return np.hstack([part.words.astype(np.float64), pooled]), by_token


def _token_losses(network: Network, part: Activations, chosen: Sequence[int]) -> Tensor:
    """The loss of each rationale token of a batch behind its opening, shape ``(tokens,)``."""
    trunk = network.trunk
    top = trunk.run(part.states(chosen), trunk.rationale_start, trunk.depth)
    positions: list[Tensor] = []
    expected: list[int] = []
    for row, index in enumerate(chosen):
        item = part.examples[index]
        start, length = len(item.prompt.ids) + item.given, len(item.ids)
        positions.append(top[row, start - 1 : length - 1])
        expected.extend(item.ids[start:])
    # logits of these positions alone: the vocabulary is the widest product of all
    logits = trunk.logits(torch.cat(positions))
    answers = torch.tensor(expected, device=logits.device)
    return functional.cross_entropy(logits, answers, reduction="none").cpu()
