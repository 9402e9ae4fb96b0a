"""What tune and distil train in: a base model, both parts' frozen activations, a started head."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rarealert.errors import BadInputError
from rarealert.language.base import BaseModel, load_base
from rarealert.params import DistilParams
from rarealert.student.activations import Frozen, freeze_prompts, freeze_told
from rarealert.student.adapter import Network, Settings, add_adapter, remove_adapter
from rarealert.student.encoding import Encoder
from rarealert.student.head import Rows, fit_head
from rarealert.student.knowledge import Knowledge
from rarealert.student.lessons import Lessons
from rarealert.student.network import Trunk
from rarealert.student.tasks import RationaleTask, RiskTask


@dataclass(frozen=True)
class Desk:
    """A loaded base with its encoder, before any example is seen."""

    base: BaseModel
    trunk: Trunk
    encoder: Encoder


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
    )
    return Desk(base, trunk, Encoder(base.tokenizer, chosen.max_prompt_tokens))


class Classroom:
    """Frozen activations of both parts, and the tasks that are learnt on them."""

    def __init__(
        self,
        desk: Desk,
        train: Lessons,
        valid: Lessons,
        folder: Path,
        batch_size: int,
        knowledge: Knowledge | None = None,
    ) -> None:
        """Run both parts through the frozen trunk; ``knowledge`` joins the head's start."""
        self._desk = desk
        self._folder = folder
        self._batch_size = batch_size
        self._pad = int(desk.base.tokenizer.pad_token_id)
        self._lessons = train
        self._judged = valid
        self.train = self._freeze(train, "train")
        self.valid = self._freeze(valid, "valid")
        self._rows = _rows(np.hstack([self.train.words, self.train.pooled]), train, knowledge)

    @contextmanager
    def network(self, settings: Settings, seed: int) -> Iterator[Network]:
        """A network at its start: the head fitted on frozen features, LoRA at zero."""
        head = fit_head(self._rows, settings.soft_weight, settings.knowledge_weight)
        network = add_adapter(self._desk.base.model, self._desk.trunk, head, settings, seed)
        try:
            yield network
        finally:
            remove_adapter(network)

    @property
    def can_tell(self) -> bool:
        """Whether both parts hold a rationale, one to learn from and one to judge by."""
        return bool(self._lessons.told and self._judged.told)

    def risk_task(self, network: Network, settings: Settings) -> RiskTask:
        """Learning the risk of the training part."""
        return RiskTask(network, self.train, self.valid, settings.soft_weight)

    def rationale_task(self, network: Network) -> RationaleTask:
        """Learning the told rationales, on states of ``network`` as its risk block is now."""
        parts = [
            freeze_told(
                self._desk.trunk,
                [item for item in lessons.examples if item.rationale],
                self._pad,
                self._folder / f"told-{name}.f16",
                self._batch_size,
            )
            for name, lessons in (("train", self._lessons), ("valid", self._judged))
        ]
        return RationaleTask(network, *parts)

    def _freeze(self, lessons: Lessons, name: str) -> Frozen:
        file = self._folder / f"{name}.f16"
        return freeze_prompts(self._desk.trunk, lessons.examples, self._pad, file, self._batch_size)


def _rows(features: NDArray[np.float32], lessons: Lessons, knowledge: Knowledge | None) -> Rows:
    """The cases, and below them what is known beyond them; its label is all that it aims at."""
    judged = np.ones(len(features), dtype=bool)
    if knowledge is None:
        return Rows(features, lessons.rare, lessons.target, lessons.groups, judged)
    return Rows(
        features=np.vstack([features, knowledge.features]),
        rare=np.concatenate([lessons.rare, knowledge.rare]),
        target=np.concatenate([lessons.target, knowledge.rare.astype(float)]),
        groups=(*lessons.groups, *knowledge.groups),
        judged=np.concatenate([judged, np.zeros(len(knowledge.rare), dtype=bool)]),
    )
