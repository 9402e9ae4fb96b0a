"""What the student learns, one task after the other: the risk of a visit, then to tell why.

Both at once cost a pass through the whole trunk for every rationale and pulled the risk below its
start (docs/decisions/0006). One after the other, each task trains the block it needs on states
that were computed once.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rarealert.student.activations import Frozen
from rarealert.student.adapter import Network

_HEAD_RATE = 0.1  # of the adapter's; at the full rate the first pass undid the fit
_JUDGE_BATCH = 32  # examples a pass where no gradient is kept


class RiskTask:
    """Cross-entropy of the head's logit with aligned risk and label, mixed by ``soft_weight``.

    ``only`` names the examples of ``learn`` to go through; without it, all.
    """

    def __init__(
        self,
        network: Network,
        learn: Frozen,
        judge: Frozen,
        soft_weight: float,
        only: Sequence[int] | None = None,
    ) -> None:
        self._network = network
        self._learn = learn
        self._judge = judge
        self._soft_weight = soft_weight
        self._only = only

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """LoRA of the block below the risk layer, and the head."""
        return self._network.risk_parameters()

    @property
    def rates(self) -> dict[str, float]:
        """The head starts at its optimum on frozen features and follows slowly."""
        return {name: _HEAD_RATE for name in self.parameters if name.startswith("head.")}

    def batches(self, size: int, seed: tuple[int, int]) -> list[tuple[int, ...]]:
        """Batches of one pass over the training part, or what of it is gone through."""
        return self._learn.batches(size, seed, self._only)

    def loss(self, chosen: Sequence[int]) -> Tensor:
        """Mean cross-entropy a case, in nats."""
        examples = [self._learn.examples[index] for index in chosen]
        soft = torch.tensor([item.target for item in examples])
        hard = torch.tensor([float(item.rare) for item in examples])
        mixed = self._soft_weight * soft + (1 - self._soft_weight) * hard
        logits = _risk_logits(self._network, self._learn, chosen)
        return functional.binary_cross_entropy_with_logits(logits, mixed)

    def validate(self) -> tuple[float, dict[str, float]]:
        """Log loss of the labels (nats a case, uncalibrated), and the AUROC."""
        from sklearn.metrics import log_loss, roc_auc_score

        rare = [item.rare for item in self._judge.examples]
        logits = logits_of(self._network, self._judge)
        risk = 1 / (1 + np.exp(-logits))
        loss = float(log_loss(rare, risk, labels=[False, True]))
        return loss, {"valid_auroc": float(roc_auc_score(rare, logits))}


class RationaleTask:
    """Cross-entropy of the rationale's tokens, given the visit and the opening.

    At work the opening follows from the risk, so there is nothing in it to learn.
    """

    def __init__(self, network: Network, learn: Frozen, judge: Frozen) -> None:
        self._network = network
        self._learn = learn
        self.judge = judge

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """LoRA of the layers at the top."""
        return self._network.rationale_parameters()

    @property
    def rates(self) -> dict[str, float]:
        """All learn at one rate."""
        return {}

    def batches(self, size: int, seed: tuple[int, int]) -> list[tuple[int, ...]]:
        """Batches of one pass over the examples with a rationale."""
        return self._learn.batches(size, seed)

    def loss(self, chosen: Sequence[int]) -> Tensor:
        """Mean cross-entropy a token, in nats."""
        return _token_losses(self._network, self._learn, chosen).mean()

    def validate(self) -> tuple[float, dict[str, float]]:
        """Mean cross-entropy a token (nats) of rationales that were not learnt."""
        with torch.no_grad():
            losses = [
                _token_losses(self._network, self.judge, chosen)
                for chosen in self.judge.batches(_JUDGE_BATCH)
            ]
        return float(torch.cat(losses).mean()), {}


def logits_of(network: Network, part: Frozen) -> NDArray[np.float64]:
    """Uncalibrated logits of a frozen part, shape ``(n_examples,)``."""
    logits = np.zeros(len(part.examples))
    with torch.no_grad():
        for chosen in part.batches(_JUDGE_BATCH):
            logits[list(chosen)] = _risk_logits(network, part, chosen).double().numpy()
    return logits


def _risk_logits(network: Network, part: Frozen, chosen: Sequence[int]) -> Tensor:
    trunk = network.trunk
    lengths = torch.from_numpy(part.lengths[list(chosen)])
    states = trunk.run(part.batch(chosen), trunk.block_start, trunk.risk_layer, lengths)
    states = trunk.read_out(states, part.denied(chosen), lengths)
    words = torch.from_numpy(part.words[list(chosen)])
    return network.risk_logits(states, words, lengths)


def _token_losses(network: Network, part: Frozen, chosen: Sequence[int]) -> Tensor:
    """The loss of each rationale token of a batch behind its opening, shape ``(tokens,)``."""
    trunk = network.trunk
    lengths = torch.from_numpy(part.lengths[list(chosen)])
    top = trunk.run(part.batch(chosen), trunk.voice_start, trunk.depth, lengths)
    places: list[Tensor] = []
    answers: list[int] = []
    for row, index in enumerate(chosen):
        item = part.examples[index]
        start, length = len(item.prompt) + item.given, len(item.ids)
        places.append(top[row, start - 1 : length - 1])
        answers.extend(item.ids[start:])
    # logits only where a rationale's token is told: the vocabulary is the widest product of all
    logits = trunk.logits(torch.cat(places))
    told = torch.tensor(answers, device=logits.device)
    return functional.cross_entropy(logits, told, reduction="none").cpu()
