"""What tune and distil set up alike: base model, frozen activations, a network per attempt."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rarealert.language.base import BaseModel, load_base
from rarealert.student.activations import Frozen, freeze
from rarealert.student.encoding import Encoder
from rarealert.student.head import choose_strength, fit_head
from rarealert.student.lessons import Lessons
from rarealert.student.network import Trunk
from rarealert.student.training import Network, Settings, add_adapter, remove_adapter


@dataclass(frozen=True)
class Desk:
    """A loaded base with its encoder, before any example is seen."""

    base: BaseModel
    trunk: Trunk
    encoder: Encoder


def open_desk(
    base_model: str, risk_layer: int | None, lora_layers: int, max_prompt_tokens: int
) -> Desk:
    """Load the base; ``risk_layer`` None reads the risk from the top layer.

    Raises:
        BadInputError: the base model is not here, or the layers do not fit it.
    """
    base = load_base(base_model)
    layers = risk_layer or int(base.model.config.num_hidden_layers)
    trunk = Trunk(base.model, layers, lora_layers)
    return Desk(base, trunk, Encoder(base.tokenizer, max_prompt_tokens))


class Classroom:
    """Frozen activations of both parts, and the strength of the head's penalty."""

    def __init__(
        self, desk: Desk, train: Lessons, valid: Lessons, folder: Path, batch_size: int
    ) -> None:
        self._desk = desk
        self.lessons = train
        pad = int(desk.base.tokenizer.pad_token_id)
        self.train: Frozen = freeze(
            desk.trunk, train.examples, pad, folder / "train.f16", batch_size
        )
        self.valid: Frozen = freeze(
            desk.trunk, valid.examples, pad, folder / "valid.f16", batch_size
        )
        self._features: NDArray[np.float32] = np.hstack([self.train.words, self.train.pooled])
        self._strength = choose_strength(self._features, train.rare, train.groups)

    @contextmanager
    def network(self, settings: Settings, seed: int) -> Iterator[Network]:
        """A network at its start: the head fitted on frozen features, LoRA at zero."""
        lessons = self.lessons
        head = fit_head(
            self._features, lessons.rare, lessons.target, settings.soft_weight, self._strength
        )
        network = add_adapter(self._desk.base.model, self._desk.trunk, head, settings, seed)
        try:
            yield network
        finally:
            remove_adapter(network)
