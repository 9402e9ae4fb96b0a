"""What tune and distil train with: a base model, both parts' activations, a started head."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rarealert.errors import BadInputError
from rarealert.language.base import BaseModel, load_base
from rarealert.params import DistilParams
from rarealert.student.activations import Activations, Example, freeze_prompts, freeze_rationales
from rarealert.student.encoding import Encoder
from rarealert.student.examples import CorrectionCases, ExampleSet, find_wrong_cases
from rarealert.student.finding_risk import load_finding_risk
from rarealert.student.head import HeadData, fit_head
from rarealert.student.network import (
    Network,
    RationaleLora,
    Settings,
    Trunk,
    add_adapter,
    remove_adapter,
)
from rarealert.student.profile_match import ProfileMatch, packaged_library
from rarealert.student.tasks import RationaleTask, RiskTask, logits_of


@dataclass(frozen=True)
class TrainingBase:
    """A loaded base model with its encoder, before any example is read."""

    base: BaseModel
    trunk: Trunk
    encoder: Encoder
    rationale: RationaleLora


def load_training_base(chosen: DistilParams) -> TrainingBase:
    """Load the base and lay out its blocks.

    Raises:
        BadInputError: the base model is not on this machine, the layers do not fit it, or visits
            may be longer than it reads.
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
        checkpointing=chosen.gradient_checkpointing,
        readout=chosen.readout,
    )
    rationale = RationaleLora(chosen.rationale_modules, chosen.rationale_rank)
    encoder = Encoder(base.tokenizer, chosen.max_prompt_tokens, chosen.prompt)
    return TrainingBase(base, trunk, encoder, rationale)


def add_knowledge(loaded: TrainingBase, chosen: DistilParams, held_out: frozenset[str]) -> None:
    """Give the trunk finding risks and profiles, as far as ``chosen`` requests them.

    ``held_out`` are the keys of the diseases of validation and test part, from which no finding
    risk may be learnt.

    Raises:
        BadInputError: no disease is left to learn from, or the cached finding risk is damaged.
    """
    if chosen.knowledge_cases:
        digest, encoder = loaded.base.digest, loaded.encoder
        loaded.trunk.finding_risk = load_finding_risk(digest, encoder, chosen, held_out)
    if chosen.profile_match:
        loaded.trunk.profile_match = ProfileMatch(packaged_library())


class Trainer:
    """The activations of both parts below the risk block, and the tasks that learn from them."""

    def __init__(
        self,
        loaded: TrainingBase,
        train: ExampleSet,
        valid: ExampleSet,
        folder: Path,
        batch_size: int,
    ) -> None:
        """Run both parts through the frozen layers; their states are kept in ``folder``."""
        self._loaded = loaded
        self._folder = folder
        self._batch_size = batch_size
        self.train_examples, self.valid_examples = train, valid
        self.train = self._freeze(train, "train")
        self.valid = self._freeze(valid, "valid")
        last = self.train.words.shape[1] - 1
        has_match = loaded.trunk.profile_match is not None
        has_risk = loaded.trunk.finding_risk is not None
        self._head_data = HeadData(
            features=np.hstack([self.train.words, self.train.pooled]),
            rare=train.rare,
            target=train.target,
            groups=train.groups,
            finding_column=last - has_match if has_risk else None,
            match_column=last if has_match else None,
        )

    @contextmanager
    def network(self, settings: Settings, seed: int) -> Iterator[Network]:
        """A network at its start: the head fitted on frozen features, LoRA at zero."""
        loaded = self._loaded
        head = fit_head(self._head_data, settings.soft_weight, settings.finding_share)
        head.finding_risk = loaded.trunk.finding_risk
        network = add_adapter(loaded.trunk, head, settings, loaded.rationale, seed)
        try:
            yield network
        finally:
            remove_adapter(network)

    def risk_task(
        self, network: Network, settings: Settings, only: Sequence[int] | None = None
    ) -> RiskTask:
        """Learning the risk of the training part, or of its examples ``only``."""
        return RiskTask(network, self.train, self.valid, settings.soft_weight, only)

    def wrong_cases(self, network: Network, settings: Settings, seed: int) -> CorrectionCases:
        """The training cases that ``network`` judges wrongly now, and those replayed with them."""
        logits = logits_of(network, self.train)
        return find_wrong_cases(
            logits, self.train_examples, settings.tau, settings.replay_share, seed
        )

    @property
    def has_rationales(self) -> bool:
        """Whether both parts have a rationale, one to learn from and one to validate on."""
        return bool(self.train_examples.with_rationale and self.valid_examples.with_rationale)

    def rationale_task(
        self,
        network: Network,
        examples: Sequence[Example] | None = None,
        valid: Activations | None = None,
    ) -> RationaleTask:
        """Learning rationales, on states of ``network`` as its risk block is now.

        Args:
            network: the network that learns.
            examples: examples with a rationale; without them, those of the training part.
            valid: the validation part's states, from a task that was made since the risk block
                last changed; without them, they are computed.
        """
        if valid is None:
            valid = self._freeze_rationales(self.valid_examples.with_rationale, "valid")
        examples = examples or self.train_examples.with_rationale
        return RationaleTask(network, self._freeze_rationales(examples, "train"), valid)

    def _freeze(self, part: ExampleSet, name: str) -> Activations:
        file = self._folder / f"{name}.f16"
        return freeze_prompts(self._loaded.trunk, part.examples, file, self._batch_size)

    def _freeze_rationales(self, examples: Sequence[Example], name: str) -> Activations:
        file = self._folder / f"rationales-{name}.f16"
        return freeze_rationales(self._loaded.trunk, examples, file, self._batch_size)
