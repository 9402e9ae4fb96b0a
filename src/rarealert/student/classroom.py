"""What tune and distil train in: a base model, both parts' frozen activations, a started head."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rarealert.errors import BadInputError
from rarealert.language.base import BaseModel, load_base
from rarealert.params import DistilParams
from rarealert.student.activations import Example, Frozen, freeze_prompts, freeze_told
from rarealert.student.adapter import Network, Settings, Voice, add_adapter, remove_adapter
from rarealert.student.correction import Round, find_errors
from rarealert.student.encoding import Encoder
from rarealert.student.head import Rows, fit_head
from rarealert.student.lessons import Lessons
from rarealert.student.network import Trunk
from rarealert.student.tasks import RationaleTask, RiskTask, logits_of


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
