"""LoRA in both blocks and the risk's head: what is trained, beside a trunk that is not."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from rarealert.language.offline import quiet
from rarealert.student.network import RiskHead, Trunk, pool

Modules = Literal["attention", "all"]
_VOICE_ALPHA_RATIO = 2  # alpha over rank; the learning rate sets the rest of the step
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_TARGET_MODULES: dict[Modules, tuple[str, ...]] = {
    "attention": _ATTENTION,
    "all": (*_ATTENTION, "gate_proj", "up_proj", "down_proj"),
}


@dataclass(frozen=True)
class Settings:
    """What is tuned.

    ``alpha_ratio`` is LoRA's alpha over its rank, ``adapted_layers`` how many layers at the top of
    the risk's block carry it, ``modules`` which of their matrices; ``soft_weight`` is the aligned
    risk's share 0-1 of the target, the label's being the rest; ``finding_share``, 0-1, what
    knowledge of findings moves of the logit at the start. A case is judged wrongly also where its
    risk is further than ``tau`` from the aligned one, and ``replay_share`` of the second round are
    others.
    """

    learning_rate: float
    rank: int
    alpha_ratio: float
    soft_weight: float
    finding_share: float
    adapted_layers: int
    modules: Modules
    tau: float
    replay_share: float


@dataclass(frozen=True)
class Voice:
    """LoRA of the rationale's block, which the study of the risk has no say in.

    ``modules`` are the matrices that carry it, ``rank`` its rank.
    """

    modules: Modules
    rank: int


@dataclass
class Network:
    """The parts that work together: trunk with LoRA inside, peft's handle on it, the head."""

    trunk: Trunk
    peft_model: Any
    head: RiskHead

    def risk_parameters(self) -> dict[str, torch.nn.Parameter]:
        """What learns the risk, by name: LoRA of the block below the risk layer, and the head."""
        lora = self._lora(self.trunk.block_start, self.trunk.risk_layer)
        return lora | {f"head.{name}": value for name, value in self.head.named_parameters()}

    def rationale_parameters(self) -> dict[str, torch.nn.Parameter]:
        """What learns the rationale, by name: LoRA of the layers at the top."""
        return self._lora(self.trunk.voice_start, self.trunk.depth)

    def risk_logits(self, states: Tensor, words: Tensor, prompts: Tensor) -> Tensor:
        """Logits ``(batch,)`` from states at the risk layer and mean embeddings."""
        return torch.as_tensor(self.head(torch.cat([words, pool(states, prompts)], dim=1)))

    def _lora(self, start: int, stop: int) -> dict[str, torch.nn.Parameter]:
        inside = tuple(f".layers.{layer}." for layer in range(start, stop))
        return {
            name: value
            for name, value in self.peft_model.named_parameters()
            if value.requires_grad and any(part in name for part in inside)
        }


def add_adapter(
    model: Any, trunk: Trunk, head: RiskHead, settings: Settings, voice: Voice, seed: int
) -> Network:
    """Put a fresh LoRA into both blocks; undo it with ``remove_adapter``."""
    from peft import LoraConfig, get_peft_model

    start = max(trunk.block_start, trunk.risk_layer - settings.adapted_layers)
    below_risk = _pattern(range(start, trunk.risk_layer), settings.modules)
    telling = _pattern(range(trunk.voice_start, trunk.depth), voice.modules)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=round(settings.rank * settings.alpha_ratio),
        target_modules=rf".*\.(?:{below_risk}|{telling})",
        rank_pattern={telling: voice.rank},
        alpha_pattern={telling: _VOICE_ALPHA_RATIO * voice.rank},
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


def _pattern(layers: range, modules: Modules) -> str:
    """What names the ``modules`` of ``layers``, from the layers' list on, as peft looks for it."""
    numbers, names = "|".join(map(str, layers)), "|".join(_TARGET_MODULES[modules])
    return rf"layers\.(?:{numbers})\.\w+\.(?:{names})"
