"""What the student learns, one task after the other: the risk of a visit, then to tell why.

Both at once cost a pass through the whole trunk for every rationale and pulled the risk below its
start (docs/decisions/0004). One after the other, each task trains the block it needs on states
that were computed once.

What tune and distil train in: a base model, both parts' frozen activations, a started head.

The readout's start: a logistic fit on frozen features, before any adapter is trained.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rarealert.errors import BadInputError
from rarealert.language.base import BaseModel, load_base
from rarealert.params import DistilParams
from rarealert.student.activations import Example, Frozen, freeze_prompts, freeze_told
from rarealert.student.encoding import Encoder
from rarealert.student.examples import Lessons, Round, find_errors
from rarealert.student.network import (
    Network,
    RiskHead,
    Settings,
    Trunk,
    Voice,
    add_adapter,
    remove_adapter,
)

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


@dataclass(frozen=True)
class Desk:
    """A loaded base with its encoder, before any example is seen."""

    base: BaseModel
    trunk: Trunk
    encoder: Encoder
    voice: Voice


def open_desk(chosen: DistilParams) -> Desk:
    """Load the base and lay out its blocks.

    Raises:
        BadInputError: the base model is not here, the layers do not fit it, or visits may be
            longer than it reads.
    """
    base = load_base(chosen.base_model, dtype=chosen.dtype, device=chosen.device)
    longest = int(getattr(base.model.config, "max_position_embeddings", 0))
    wanted = chosen.max_prompt_tokens + chosen.max_rationale_tokens
    if wanted > longest > 0:
        raise BadInputError(
            f"distil.max_prompt_tokens and max_rationale_tokens make {wanted} tokens, but "
            f"{chosen.base_model} reads {longest}; lower them."
        )
    trunk = Trunk(
        base.model,
        chosen.risk_layer,
        chosen.lora_layers,
        chosen.rationale_layers,
        packed_tokens=chosen.packed_tokens,
        checkpointing=chosen.gradient_checkpointing,
        readout=chosen.readout,
    )
    voice = Voice(chosen.rationale_modules, chosen.rationale_rank)
    encoder = Encoder(base.tokenizer, chosen.max_prompt_tokens, chosen.prompt)
    return Desk(base, trunk, encoder, voice)


class Classroom:
    """Frozen activations of both parts, and the tasks that are learnt on them."""

    def __init__(
        self,
        desk: Desk,
        train: Lessons,
        valid: Lessons,
        folder: Path,
        batch_size: int,
    ) -> None:
        """Run both parts through the frozen trunk."""
        self._desk = desk
        self._folder = folder
        self._batch_size = batch_size
        self._pad = int(desk.base.tokenizer.pad_token_id)
        self._lessons = train
        self.judged = valid
        self.train = self._freeze(train, "train")
        self.valid = self._freeze(valid, "valid")
        width = self.train.words.shape[1]
        matched = desk.trunk.profile_match is not None
        self._rows = Rows(
            features=np.hstack([self.train.words, self.train.pooled]),
            rare=train.rare,
            target=train.target,
            groups=train.groups,
            spoken=None if desk.trunk.finding_risk is None else width - 1 - matched,
            matched=width - 1 if matched else None,
        )

    @contextmanager
    def network(self, settings: Settings, seed: int) -> Iterator[Network]:
        """A network at its start: the head fitted on frozen features, LoRA at zero."""
        desk = self._desk
        head = fit_head(self._rows, settings.soft_weight, settings.finding_share)
        head.finding_risk = desk.trunk.finding_risk
        network = add_adapter(desk.base.model, desk.trunk, head, settings, desk.voice, seed)
        try:
            yield network
        finally:
            remove_adapter(network)

    @property
    def can_tell(self) -> bool:
        """Whether both parts hold a rationale, one to learn from and one to judge by."""
        return bool(self._lessons.told and self.judged.told)

    def risk_task(
        self, network: Network, settings: Settings, only: Sequence[int] | None = None
    ) -> RiskTask:
        """Learning the risk of the training part, or of the examples ``only`` of it."""
        return RiskTask(network, self.train, self.valid, settings.soft_weight, only)

    def errors(self, network: Network, settings: Settings, seed: int) -> Round:
        """What ``network`` judges wrongly of the training part, and what is replayed beside it."""
        logits = logits_of(network, self.train)
        return find_errors(logits, self._lessons, settings.tau, settings.replay_share, seed)

    def rationale_task(
        self,
        network: Network,
        learn: Sequence[Example] | None = None,
        judge: Frozen | None = None,
    ) -> RationaleTask:
        """Learning the told rationales, on states of ``network`` as its risk block is now.

        ``learn`` are other examples with a rationale than those of the training part; what is
        judged by stays the same. ``judge`` are its states, from a task that was made since the
        risk block last changed.
        """
        told = learn or [item for item in self._lessons.examples if item.rationale]
        if judge is None:
            judged = [item for item in self.judged.examples if item.rationale]
            judge = self._freeze_told(judged, "valid")
        return RationaleTask(network, self._freeze_told(told, "train"), judge)

    def _freeze_told(self, examples: Sequence[Example], name: str) -> Frozen:
        file = self._folder / f"told-{name}.f16"
        return freeze_told(self._desk.trunk, examples, self._pad, file, self._batch_size)

    def _freeze(self, lessons: Lessons, name: str) -> Frozen:
        file = self._folder / f"{name}.f16"
        return freeze_prompts(self._desk.trunk, lessons.examples, self._pad, file, self._batch_size)


_STRENGTHS = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)  # inverse penalties, from few columns' worth to many
_FOLDS = 5
_MATCH_TRUST = 10.0  # times a column of the states; validation is flat from 10 to 30
_TOLERANCE = 1e-6  # of the gradient; leaves logits within 0.0001 of the minimum's
_ITERATIONS = 1000  # of L-BFGS, a bound; some 20 to 70 reach the tolerance

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """What a head is fitted on: ``features`` of shape ``(n, columns)``, the rest ``(n,)``.

    ``target`` is the risk 0-1 to imitate, ``rare`` the label, ``groups`` names the disease.
    ``spoken`` is the column of ``features`` that holds what knowledge says of findings, and
    ``matched`` the one that says how profiles match the visit, if any does.
    """

    features: Floats
    rare: NDArray[np.bool_]
    target: NDArray[np.float64]
    groups: Sequence[str]
    spoken: int | None = None
    matched: int | None = None


def fit_head(rows: Rows, soft_weight: float, finding_share: float) -> RiskHead:
    """A ridge-logistic head on standardised features.

    Its loss is the cross-entropy against ``w * target + (1 - w) * rare``, ``w`` being
    ``soft_weight``. The penalty is the one with the best AUROC of the labels on folds grouped by
    disease. How well profiles match is one column beside a thousand and bears a hundredth of their
    penalty. What knowledge says of findings was learnt without these cases and joins with a fixed
    weight, by which it moves the logit ``finding_share / (1 - finding_share)`` times as much as
    words and states do: fitted, it would be trusted too much, because it was learnt from the
    profiles of these cases' diseases.
    """
    mean = rows.features.mean(axis=0)
    scale = rows.features.std(axis=0) + 1e-6
    scaled = (rows.features - mean) / scale
    spoken, matched = (_marked(scaled.shape[1], one) for one in (rows.spoken, rows.matched))
    trust = np.where(matched, np.float32(_MATCH_TRUST), np.float32(1))
    share = soft_weight * rows.target + (1 - soft_weight) * rows.rare
    fitted = ~spoken
    asked = np.ascontiguousarray((scaled * trust)[:, fitted])
    found = _fit(asked, share, (_choose_strength(rows, asked, share),))[0]
    weights = np.zeros(len(trust))
    weights[fitted] = trust[fitted] * found[:-1]
    if spoken.any():
        read = fitted & ~matched
        weights[spoken] = finding_share * float((scaled[:, read] @ weights[read]).std())
        weights[read] *= 1 - finding_share
    return _head(mean, scale, weights, found[-1:])


def _marked(width: int, column: int | None) -> NDArray[np.bool_]:
    marks = np.zeros(width, dtype=bool)
    if column is not None:
        marks[column] = True
    return marks


def _head(mean: Floats, scale: Floats, weights: Doubles, bias: Doubles) -> RiskHead:
    head = RiskHead(len(weights))
    with torch.no_grad():
        head.mean.copy_(torch.from_numpy(mean))
        head.scale.copy_(torch.from_numpy(scale))
        head.linear.weight.copy_(torch.from_numpy(weights[None]))
        head.linear.bias.copy_(torch.from_numpy(bias))
    return head


def _choose_strength(rows: Rows, scaled: Floats, share: NDArray[np.float64]) -> float:
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold

    split = StratifiedGroupKFold(
        n_splits=min(_FOLDS, len(set(rows.groups))), shuffle=True, random_state=0
    )
    scores = np.zeros((len(_STRENGTHS), len(rows.rare)))
    for fit, held in split.split(scaled, rows.rare, rows.groups):
        fitted = _fit(scaled[fit], share[fit], _STRENGTHS)
        scores[:, held] = (scaled[held] @ fitted[:, :-1].T + fitted[:, -1]).T
    aurocs = [roc_auc_score(rows.rare, row) for row in scores]
    return _STRENGTHS[int(np.argmax(aurocs))]


def _fit(
    scaled: Floats,
    share: NDArray[np.float64],
    strengths: Sequence[float],
) -> NDArray[np.float64]:
    """Weights and last the bias for each of ``strengths``, shape ``(strengths, columns + 1)``.

    Minimises ``strength * sum(cross-entropy) + |weights|² / 2``, the bias free.
    Cross-entropy against a share is that of both labels, weighed by the share and its rest, so
    every row stands twice. The penalty doesn't see a rotation, so what is fitted are the rows'
    coordinates in the space that they span, which is smaller than theirs where columns are many.
    Each strength starts from the solution of the one before.
    """
    from sklearn.linear_model import LogisticRegression

    left, lengths, axes = np.linalg.svd(scaled, full_matrices=False)
    inside = (left * lengths).astype(np.float64)
    twice = np.concatenate([inside, inside])
    label = np.arange(len(twice)) < len(inside)
    weight = np.concatenate([share, 1 - share])
    fit = LogisticRegression(warm_start=True, tol=_TOLERANCE, max_iter=_ITERATIONS)
    found = []
    for strength in strengths:
        fit.set_params(C=strength).fit(twice, label, sample_weight=weight)
        found.append(np.append(fit.coef_[0] @ axes, fit.intercept_))
    return np.stack(found)
