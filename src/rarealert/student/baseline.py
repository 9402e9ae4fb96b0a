"""The encoder that the student is compared with: packaged MiniLM, LoRA and the same readout.

MiniLM reads a visit in both directions and was trained on sentence similarity (Wang et al. 2020,
NeurIPS 33:5776; Reimers & Gurevych 2019, EMNLP 2019:3982). It is the stronger encoder for its size,
but can't write a rationale. It learns from the student's cases and targets, without knowledge.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rarealert.calibration.calibrators import fit_calibrator
from rarealert.language.machine import quiet
from rarealert.language.sentences import DIMENSIONS, load_encoder
from rarealert.student.activations import Activations, Example, store_states
from rarealert.student.data import LabelledReading, with_targets
from rarealert.student.encoding import PromptTokens, shorten
from rarealert.student.head import HeadData, fit_head
from rarealert.student.network import RiskHead, pool
from rarealert.student.tasks import RiskTask, logits_of
from rarealert.student.training import Schedule, train
from rarealert.visits.reading import Reading

_LORA_LAYERS = 1  # of six, at the top; the five below run once a case
_TARGET_MODULES = ("query", "key", "value", "dense")
_BATCH = 16  # cases a pass; larger ones gain nothing on two cores


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

    ``targets`` are out-of-fold aligned risks; a training case without one, which no teacher
    answered, is left out. Validation chooses the epoch and the calibration.

    Raises:
        BadInputError: no training case has an aligned risk.
    """
    train_cases = with_targets(train_cases, targets)
    with tempfile.TemporaryDirectory(prefix="rarealert-") as folder:
        encoder = _Encoder(Path(folder), recipe.max_tokens)
        fitted = encoder.freeze([encoder.example(item, targets) for item in train_cases], "train")
        valid = encoder.freeze([encoder.example(item) for item in valid_cases], "valid")
        read = encoder.freeze([encoder.unlabelled(reading) for reading in others], "others")
        network = _start(encoder, fitted, [item.label.disease_id for item in train_cases], recipe)
        task = RiskTask(network, fitted, valid, recipe.soft_weight)
        train(task, recipe.learning_rate, Schedule(recipe.epochs, _BATCH, recipe.seed))
        logits = {"valid": logits_of(network, valid), "others": logits_of(network, read)}
    rare = np.array([item.rare for item in valid.examples])
    groups = [item.label.disease_id for item in valid_cases]
    calibrator = fit_calibrator(logits["valid"], rare, groups, recipe.seed)
    return {
        item.case_id: float(risk)
        for part, of_part in ((valid, logits["valid"]), (read, logits["others"]))
        for item, risk in zip(part.examples, calibrator.risk(of_part), strict=True)
    }


class _Encoder:
    """MiniLM run in parts. Attention is bidirectional, so padding has to be masked."""

    def __init__(self, folder: Path, max_tokens: int) -> None:
        self.model: Any
        self.model, self._tokenizer = load_encoder()
        self.depth = len(self.model.encoder.layer)
        self.start = self.depth - _LORA_LAYERS
        self._folder = folder
        self._max_tokens = max_tokens

    def example(self, item: LabelledReading, targets: Mapping[str, float] | None = None) -> Example:
        """A labelled case; ``targets`` are needed for training only."""
        plain = self.unlabelled(item.reading)
        target = targets[plain.case_id] if targets else 0.0
        return replace(plain, rare=item.is_rare, target=target)

    def unlabelled(self, reading: Reading) -> Example:
        """A case to predict."""
        tokens = PromptTokens(self._ids(reading))
        return Example(reading.case.case_id, tokens, (), rare=False, target=0.0)

    def freeze(self, examples: Sequence[Example], name: str) -> Activations:
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

        sequences = [item.prompt.ids for item in examples]
        file = self._folder / f"{name}.f16"
        states = store_states(sequences, below, DIMENSIONS, file, _BATCH)
        return Activations(examples, [len(ids) for ids in sequences], states, words, pooled)

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

    def risk_parameters(self) -> dict[str, torch.nn.Parameter]:
        """LoRA of the upper layers, and the head."""
        lora = {
            name: value for name, value in self.peft_model.named_parameters() if value.requires_grad
        }
        return lora | {f"head.{name}": value for name, value in self.head.named_parameters()}

    def risk_logits(self, part: Activations, chosen: Sequence[int]) -> Tensor:
        """Uncalibrated logits ``(batch,)`` of the examples ``chosen``."""
        encoder, lengths = self.encoder, torch.from_numpy(part.lengths[list(chosen)])
        states = encoder.run(part.states(chosen), lengths, encoder.start, encoder.depth)
        words = torch.from_numpy(part.words[list(chosen)])
        return torch.as_tensor(self.head(torch.cat([words, pool(states, lengths)], dim=1)))


def _start(
    encoder: _Encoder, fitted: Activations, groups: Sequence[str], recipe: Recipe
) -> _Network:
    """The head fitted on frozen features, LoRA at zero."""
    from peft import LoraConfig, get_peft_model

    rare = np.array([item.rare for item in fitted.examples])
    target = np.array([item.target for item in fitted.examples])
    features = np.hstack([fitted.words, fitted.pooled])
    head = fit_head(HeadData(features, rare, target, groups), recipe.soft_weight, finding_share=0.0)
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
