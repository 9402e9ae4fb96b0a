"""The student's network: a causal trunk run in parts, LoRA in two blocks, and a risk readout.

The ``lora_layers`` layers below ``risk_layer`` learn the risk, the ``rationale_layers`` at the top
learn the rationale, both with LoRA (Hu et al. 2021, arXiv:2106.09685). The layers below a block do
not change while it learns, so they run once a case; the layers above ``risk_layer`` run only for a
rationale. Attention is causal, so padding on the right does not change the states on its left.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rarealert.errors import BadInputError
from rarealert.language.machine import quiet
from rarealert.student.encoding import Facts, PromptTokens, Readout
from rarealert.student.finding_risk import FindingRisk
from rarealert.student.profile_match import ProfileMatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from rarealert.student.activations import Activations

_CACHED_POSITIONS = 768  # tokens; the states of more leave a processor's cache between products


class PromptBatch(NamedTuple):
    """Prompts side by side: ``ids`` padded on the right, ``(batch, width)``, ``lengths (batch,)``.

    ``denied`` marks the positions that a denial covers, ``(batch, width)``.
    """

    ids: Tensor
    lengths: Tensor
    denied: Tensor
    facts: tuple[Facts, ...]


def batch_prompts(prompts: Sequence[PromptTokens]) -> PromptBatch:
    """``prompts`` as one batch."""
    ids, lengths = pad_right([prompt.ids for prompt in prompts])
    denied = torch.zeros(ids.shape, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        denied[row, list(prompt.denied)] = True
    return PromptBatch(ids, lengths, denied, tuple(prompt.facts for prompt in prompts))


def pad_right(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids ``(batch, longest)`` with zeros on the right, and the lengths ``(batch,)``."""
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
    return ids, lengths


def pool(states: Tensor, lengths: Tensor) -> Tensor:
    """Mean over the first ``lengths`` positions, ``(batch, hidden)``, in fp32 on the CPU.

    ``lengths`` may count the prompt only: a pooled rationale would leak its verdict.
    """
    lengths = lengths.to(states.device)
    inside = torch.arange(states.shape[1], device=states.device)[None, :] < lengths[:, None]
    mean = (states.float() * inside[..., None]).sum(dim=1) / lengths[:, None]
    return mean.cpu()  # the readout is small; it runs on the CPU, in fp32


class Trunk:
    """A decoder whose layers can be run in parts.

    ``depth`` is its number of layers; the layers from ``block_start`` to ``risk_layer`` learn the
    risk, those from ``rationale_start`` on the rationale. ``finding_risk`` and ``profile_match``
    are the knowledge that is looked up for each finding, ``None`` without.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        risk_layer: int,
        lora_layers: int,
        rationale_layers: int,
        checkpointing: bool = False,
        readout: Readout = "mean",
    ) -> None:
        """Lay out the blocks.

        With ``checkpointing``, only each layer's input is kept for the backward pass, and the layer
        is run again there (Chen et al. 2016, arXiv:1604.06174).

        Raises:
            BadInputError: the two blocks do not fit the model's depth, or overlap.
        """
        self.model: Any = model
        self.decoder: Any = model.model
        self.checkpointing = checkpointing
        self.readout = readout
        self.finding_risk: FindingRisk | None = None
        self.profile_match: ProfileMatch | None = None
        self.depth: int = len(self.decoder.layers)
        self.risk_layer = risk_layer
        self.block_start = risk_layer - lora_layers
        self.rationale_start = self.depth - rationale_layers
        if not 0 <= self.block_start < risk_layer <= self.rationale_start < self.depth:
            raise BadInputError(
                f"distil: lora_layers {lora_layers} below risk_layer {risk_layer} and "
                f"rationale_layers {rationale_layers} at the top don't fit a base model of "
                f"{self.depth} layers; lora_layers ≤ risk_layer ≤ {self.depth} - rationale_layers."
            )

    def embed(self, ids: Tensor) -> Tensor:
        """Token embeddings, shape ``(batch, tokens, hidden)``."""
        embedding = self.decoder.embed_tokens
        return torch.as_tensor(embedding(ids.to(embedding.weight.device)))

    @property
    def word_width(self) -> int:
        """Columns of ``words``."""
        return int(self.model.config.hidden_size) + len(self._knowledge)

    @property
    def _knowledge(self) -> Sequence[FindingRisk | ProfileMatch]:
        sources = (self.finding_risk, self.profile_match)
        return [source for source in sources if source is not None]

    def words(self, batch: PromptBatch) -> Tensor:
        """The readout's input that needs no layer, shape ``(batch, tokens, word_width)``.

        Embeddings, zero where denied, then a column for each source of knowledge: finding risk,
        profile match. With knowledge it is in fp32 on the CPU, as the head is.
        """
        embedded = _without_denied(self.embed(batch.ids), batch.denied)
        if not self._knowledge:
            return embedded
        width = batch.ids.shape[1]
        known = [torch.from_numpy(source.at(batch.facts, width)) for source in self._knowledge]
        return torch.cat([embedded.float().cpu(), *(one[..., None] for one in known)], dim=2)

    def read_out(self, states: Tensor, batch: PromptBatch) -> Tensor:
        """The readout's input from states at the risk layer, ``(batch, tokens, hidden)``.

        The head reads its mean over the prompt; denied tokens are zero in it. Where only the last
        token is read, its state is multiplied by the length and all others are zero, so that the
        mean is that state and the share of each position stays exact.
        """
        if self.readout == "mean":
            return _without_denied(states, batch.denied)
        last = (torch.arange(len(states)), batch.lengths - 1)
        alone = torch.zeros_like(states, dtype=torch.float32)
        alone[last] = states[last].float() * batch.lengths.to(states.device)[:, None]
        return alone

    def run(self, hidden: Tensor, start: int, stop: int) -> Tensor:
        """Layers ``start`` to ``stop`` (exclusive) on ``(batch, tokens, hidden)`` states.

        The final norm is applied only where ``stop`` is the trunk's depth.
        """
        if start == stop:
            return hidden
        weights = self.decoder.embed_tokens.weight
        hidden = hidden.to(weights.device, weights.dtype)
        return torch.cat([self._layers(part, start, stop) for part in _parts(hidden)])

    def logits(self, states: Tensor) -> Tensor:
        """Next-token logits of normed top states, shape ``(positions, vocabulary)``, in fp32."""
        return torch.as_tensor(self.model.lm_head(states)).float()

    def _layers(self, hidden: Tensor, start: int, stop: int) -> Tensor:
        if not (self.checkpointing and torch.is_grad_enabled()):
            return self._pass(hidden, start, stop)
        for layer in range(start, stop):
            done = checkpoint(self._pass, hidden, layer, layer + 1, use_reentrant=False)
            hidden = torch.as_tensor(done)
        return hidden

    def _pass(self, hidden: Tensor, start: int, stop: int) -> Tensor:
        view = copy.copy(self.decoder)  # shares every weight; only its list of layers differs
        view._modules = dict(self.decoder._modules)
        view.layers = nn.ModuleList(list(self.decoder.layers[start:stop]))
        if stop != self.depth:
            view.norm = nn.Identity()
        outcome = view(inputs_embeds=hidden, use_cache=False)
        return torch.as_tensor(outcome.last_hidden_state)


def _without_denied(states: Tensor, denied: Tensor) -> Tensor:
    """``states`` with zeros wherever a denial covers the token.

    A mean over positions can't distinguish "no fever" from "fever"; without this the readout took a
    denial for the finding (docs/decisions/0006).
    """
    return states.masked_fill(denied.to(states.device)[..., None], 0.0)


def _parts(hidden: Tensor) -> Sequence[Tensor]:
    """Rows of ``hidden`` that a processor runs together; a GPU takes all at once."""
    if hidden.device.type != "cpu":
        return (hidden,)
    return torch.split(hidden, max(1, _CACHED_POSITIONS // hidden.shape[1]))


class RiskHead(nn.Module):
    """A linear readout on standardised pooled inputs: ``(batch, features)`` → logit ``(batch,)``.

    Features are the means of ``Trunk.words`` and of ``Trunk.read_out``. ``mean`` and ``scale`` are
    those of the training part and stay fixed. ``terms`` and ``log_odds``, shape ``(n_terms,)``, are
    the finding risk, which is stored with the head.
    """

    mean: Tensor
    scale: Tensor
    terms: Tensor
    log_odds: Tensor

    def __init__(self, features: int, n_terms: int = 0) -> None:
        super().__init__()
        self.register_buffer("terms", torch.zeros(n_terms, dtype=torch.long))
        self.register_buffer("log_odds", torch.zeros(n_terms))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.linear = nn.Linear(features, 1)

    @property
    def finding_risk(self) -> FindingRisk | None:
        """The finding risk, ``None`` for a student without."""
        if not self.terms.numel():
            return None
        return FindingRisk(self.terms.cpu().numpy(), self.log_odds.cpu().numpy())

    @finding_risk.setter
    def finding_risk(self, known: FindingRisk | None) -> None:
        self.terms = torch.from_numpy(known.terms.copy()) if known else torch.zeros(0).long()
        self.log_odds = torch.from_numpy(known.log_odds.copy()) if known else torch.zeros(0)

    def forward(self, features: Tensor) -> Tensor:
        """Uncalibrated log-odds of a rare disease."""
        return torch.as_tensor(self.linear((features - self.mean) / self.scale)).squeeze(-1)


Modules = Literal["attention", "all"]
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_TARGET_MODULES: dict[Modules, tuple[str, ...]] = {
    "attention": _ATTENTION,
    "all": (*_ATTENTION, "gate_proj", "up_proj", "down_proj"),
}
_RATIONALE_ALPHA_RATIO = 2  # alpha over rank; the learning rate sets the rest of the step


@dataclass(frozen=True)
class Settings:
    """The tuned settings of the risk.

    ``alpha_ratio`` is LoRA's alpha over its rank, ``adapted_layers`` how many layers at the top of
    the risk's block carry it, ``modules`` which of their matrices. ``soft_weight`` is the aligned
    risk's share 0-1 of the target, the label being the rest, and ``finding_share`` the share 0-1 of
    the logit that the finding risk moves at the start. In the correction round, a case whose risk
    is further than ``tau`` from the aligned one counts as wrong, and ``replay_share`` of the cases
    are ones that do not.
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
class RationaleLora:
    """LoRA of the rationale's block, which is not tuned: its matrices, and its rank."""

    modules: Modules
    rank: int


@dataclass
class Network:
    """Trunk with LoRA inside, peft's handle on it, and the head."""

    trunk: Trunk
    peft_model: Any
    head: RiskHead

    def risk_parameters(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that learn the risk, by name: LoRA below the risk layer, and the head."""
        lora = self._lora(self.trunk.block_start, self.trunk.risk_layer)
        return lora | {f"head.{name}": value for name, value in self.head.named_parameters()}

    def rationale_parameters(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that learn the rationale, by name: LoRA of the layers at the top."""
        return self._lora(self.trunk.rationale_start, self.trunk.depth)

    def risk_logits(self, part: "Activations", chosen: Sequence[int]) -> Tensor:
        """Uncalibrated logits ``(batch,)`` of the examples ``chosen``."""
        states = self.risk_states(part, chosen)
        words = torch.from_numpy(part.words[list(chosen)])
        lengths = torch.from_numpy(part.lengths[list(chosen)])
        return torch.as_tensor(self.head(torch.cat([words, pool(states, lengths)], dim=1)))

    def risk_states(self, part: "Activations", chosen: Sequence[int]) -> Tensor:
        """``Trunk.read_out`` of the examples ``chosen``, from their states below the block."""
        trunk = self.trunk
        states = trunk.run(part.states(chosen), trunk.block_start, trunk.risk_layer)
        return trunk.read_out(states, part.prompts(chosen))

    def _lora(self, start: int, stop: int) -> dict[str, torch.nn.Parameter]:
        inside = tuple(f".layers.{layer}." for layer in range(start, stop))
        return {
            name: value
            for name, value in self.peft_model.named_parameters()
            if value.requires_grad and any(part in name for part in inside)
        }


def add_adapter(
    trunk: Trunk, head: RiskHead, settings: Settings, rationale: RationaleLora, seed: int
) -> Network:
    """Put a fresh LoRA into both blocks; undo it with ``remove_adapter``."""
    from peft import LoraConfig, get_peft_model

    start = max(trunk.block_start, trunk.risk_layer - settings.adapted_layers)
    risk_block = _pattern(range(start, trunk.risk_layer), settings.modules)
    rationale_block = _pattern(range(trunk.rationale_start, trunk.depth), rationale.modules)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=round(settings.rank * settings.alpha_ratio),
        target_modules=rf".*\.(?:{risk_block}|{rationale_block})",
        rank_pattern={rationale_block: rationale.rank},
        alpha_pattern={rationale_block: _RATIONALE_ALPHA_RATIO * rationale.rank},
        task_type="CAUSAL_LM",
    )
    with quiet(), torch.random.fork_rng():
        torch.manual_seed(seed)
        adapted = get_peft_model(trunk.model, config)
    adapted.eval()  # no dropout anywhere: a pass is the same function in training and at work
    return Network(trunk=trunk, peft_model=adapted, head=head)


def remove_adapter(network: Network) -> None:
    """Take the LoRA out again, which leaves the base model as it was loaded."""
    network.peft_model.unload()


def _pattern(layers: range, modules: Modules) -> str:
    """The regular expression by which peft finds the ``modules`` of ``layers``."""
    numbers, names = "|".join(map(str, layers)), "|".join(_TARGET_MODULES[modules])
    return rf"layers\.(?:{numbers})\.\w+\.(?:{names})"
