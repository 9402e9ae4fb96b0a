"""The encoder that the student is measured against: packaged MiniLM, LoRA and the same readout.

MiniLM reads a visit in both directions and was trained to tell sentences apart (Wang et al. 2020,
NeurIPS 33:5776; Reimers & Gurevych 2019, EMNLP 2019:3982), so it is the stronger encoder for its
size, and can't tell why. It learns from the student's cases and targets, without the examples made
of knowledge.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rarealert.calibration.calibrators import fit_calibrator
from rarealert.language.base import quiet
from rarealert.language.sentences import DIMENSIONS, load_encoder
from rarealert.student.activations import Example, Frozen, run_once
from rarealert.student.encoding import shorten
from rarealert.student.examples import LabelledReading, with_targets
from rarealert.student.network import RiskHead, pool
from rarealert.student.tasks import Rows, fit_head
from rarealert.student.training import Schedule, train
from rarealert.visits.reading import Reading

_LORA_LAYERS = 1  # of six, at the top; the five below run once a case
_TARGET_MODULES = ("query", "key", "value", "dense")
_BATCH = 16  # cases a pass; larger ones gain nothing on two cores
_HEAD_RATE = 0.1  # of the adapter's, as for the student


@dataclass(frozen=True)
class Recipe:
    """How the baseline learns. ``soft_weight`` is the share 0-1 of the aligned risk in a target.

    ``max_tokens`` counts word pieces; what is longer loses history first.
    """

    max_tokens: int
    epochs: int
    learning_rate: float
    rank: int
    soft_weight: float
    seed: int


def minilm_risks(
    train_cases: Sequence[LabelledReading],
    valid_cases: Sequence[LabelledReading],
    targets: Mapping[str, float],
    others: Sequence[Reading],
    recipe: Recipe,
) -> dict[str, float]:
    """Calibrated risk 0-1 by case id of ``valid_cases`` and ``others``.

    ``targets`` holds out-of-fold aligned risks; a training case without one, which no teacher
    answered, is left out. Validation chooses the epoch and the calibration; ``others`` are only
    read.

    Raises:
        BadInputError: no training case has an aligned risk.
    """
    train_cases = with_targets(train_cases, targets)
    with tempfile.TemporaryDirectory(prefix="rarealert-") as folder:
        encoder = _Encoder(Path(folder), recipe.max_tokens)
        learn = encoder.freeze([encoder.example(item, targets) for item in train_cases], "train")
        judge = encoder.freeze([encoder.example(item) for item in valid_cases], "valid")
        read = encoder.freeze([encoder.unlabelled(reading) for reading in others], "others")
        network = _start(encoder, learn, [item.label.disease_id for item in train_cases], recipe)
        task = _BaselineTask(network, learn, judge, recipe.soft_weight)
        train(task, recipe.learning_rate, Schedule(recipe.epochs, _BATCH, recipe.seed))
        logits = {"valid": _logits(network, judge), "others": _logits(network, read)}
    rare = np.array([item.rare for item in judge.examples])
    groups = [item.label.disease_id for item in valid_cases]
    calibrator = fit_calibrator(logits["valid"], rare, groups, recipe.seed)
    return {
        item.case_id: float(risk)
        for part, of_part in ((judge, logits["valid"]), (read, logits["others"]))
        for item, risk in zip(part.examples, calibrator.risk(of_part), strict=True)
    }


class _Encoder:
    """MiniLM run in parts. Attention looks both ways, so padding has to be masked."""

    def __init__(self, folder: Path, max_tokens: int) -> None:
        self.model: Any
        self.model, self._tokenizer = load_encoder()
        self.depth = len(self.model.encoder.layer)
        self.start = self.depth - _LORA_LAYERS
        self._folder = folder
        self._max_tokens = max_tokens

    def example(self, item: LabelledReading, targets: Mapping[str, float] | None = None) -> Example:
        """A labelled case; without ``targets`` it is one to judge by."""
        plain = self.unlabelled(item.reading)
        target = targets[plain.case_id] if targets else 0.0
        return replace(plain, rare=item.label.label == "rare", target=target)

    def unlabelled(self, reading: Reading) -> Example:
        """A case that is only read."""
        return Example(reading.case.case_id, self._ids(reading), (), rare=False, target=0.0)

    def freeze(self, examples: Sequence[Example], name: str) -> Frozen:
        """States below the LoRA layer; of the part ``train`` also what the head starts from."""
        words = np.zeros((len(examples), DIMENSIONS), dtype=np.float32)
        pooled = np.zeros_like(words)

        def below(chosen: Sequence[int], ids: Tensor, lengths: Tensor) -> Tensor:
            embedded = self.model.embeddings(ids)
            states = self.run(embedded, lengths, 0, self.start)
            words[chosen] = pool(embedded, lengths).numpy()
            if name == "train":
                top = self.run(states, lengths, self.start, self.depth)
                pooled[chosen] = pool(top, lengths).numpy()
            return states

        sequences = [item.prompt for item in examples]
        file = self._folder / f"{name}.f16"
        rows = run_once(sequences, below, DIMENSIONS, self._tokenizer.pad_token_id, file, _BATCH)
        return Frozen(examples, [len(ids) for ids in sequences], rows, words, pooled)

    def run(self, states: Tensor, lengths: Tensor, start: int, stop: int) -> Tensor:
        """Layers ``start`` to ``stop`` (exclusive) on ``(batch, tokens, hidden)`` states."""
        inside = torch.arange(states.shape[1])[None, :] < lengths[:, None]
        for layer in self.model.encoder.layer[start:stop]:
            states = layer(states, inside[:, None, None, :])
        return states

    def _ids(self, reading: Reading) -> tuple[int, ...]:
        def tokens(text: str) -> list[int]:
            ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
            return ids

        _, body, _ = shorten(reading, tokens, self._max_tokens - 2)
        return (self._tokenizer.cls_token_id, *body, self._tokenizer.sep_token_id)


@dataclass(frozen=True)
class _Network:
    encoder: _Encoder
    peft_model: Any
    head: RiskHead

    def logits(self, part: Frozen, chosen: Sequence[int]) -> Tensor:
        """Logits ``(batch,)`` of the examples ``chosen``."""
        encoder, lengths = self.encoder, torch.from_numpy(part.lengths[list(chosen)])
        states = encoder.run(part.batch(chosen), lengths, encoder.start, encoder.depth)
        words = torch.from_numpy(part.words[list(chosen)])
        return torch.as_tensor(self.head(torch.cat([words, pool(states, lengths)], dim=1)))


class _BaselineTask:
    """Cross-entropy with aligned risk and label, as the student's risk is learnt."""

    def __init__(self, network: _Network, learn: Frozen, judge: Frozen, soft_weight: float) -> None:
        self._network = network
        self._learn = learn
        self._judge = judge
        self._soft_weight = soft_weight

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """LoRA of the upper layers, and the head."""
        lora = {
            name: value
            for name, value in self._network.peft_model.named_parameters()
            if value.requires_grad
        }
        head = self._network.head.named_parameters()
        return lora | {f"head.{name}": value for name, value in head}

    @property
    def rates(self) -> dict[str, float]:
        """The head starts at its optimum on frozen features and follows slowly."""
        return {name: _HEAD_RATE for name in self.parameters if name.startswith("head.")}

    def batches(self, size: int, seed: tuple[int, int]) -> list[tuple[int, ...]]:
        """Batches of one pass over the training part."""
        return self._learn.batches(size, seed)

    def loss(self, chosen: Sequence[int]) -> Tensor:
        """Mean cross-entropy a case, in nats."""
        examples = [self._learn.examples[index] for index in chosen]
        soft = torch.tensor([item.target for item in examples])
        hard = torch.tensor([float(item.rare) for item in examples])
        mixed = self._soft_weight * soft + (1 - self._soft_weight) * hard
        logits = self._network.logits(self._learn, chosen)
        return functional.binary_cross_entropy_with_logits(logits, mixed)

    def validate(self) -> tuple[float, dict[str, float]]:
        """Log loss of the labels, nats a case."""
        hard = torch.tensor([float(item.rare) for item in self._judge.examples])
        logits = torch.from_numpy(_logits(self._network, self._judge)).float()
        return float(functional.binary_cross_entropy_with_logits(logits, hard)), {}


def _start(encoder: _Encoder, learn: Frozen, groups: Sequence[str], recipe: Recipe) -> _Network:
    """The head fitted on frozen features, LoRA at zero."""
    from peft import LoraConfig, get_peft_model

    rare = np.array([item.rare for item in learn.examples])
    target = np.array([item.target for item in learn.examples])
    features = np.hstack([learn.words, learn.pooled])
    head = fit_head(Rows(features, rare, target, groups), recipe.soft_weight, finding_share=0.0)
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=2 * recipe.rank,
        target_modules=list(_TARGET_MODULES),
        layers_to_transform=list(range(encoder.start, encoder.depth)),
        layers_pattern="layer",
    )
    with quiet(), torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        adapted = get_peft_model(encoder.model, config)
    adapted.eval()
    return _Network(encoder, adapted, head)


def _logits(network: _Network, part: Frozen) -> NDArray[np.float64]:
    logits = np.zeros(len(part.examples))
    with torch.no_grad():
        for chosen in part.batches(_BATCH):
            logits[list(chosen)] = network.logits(part, chosen).double().numpy()
    return logits
