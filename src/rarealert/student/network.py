"""The student's network: a causal trunk run in parts, and a risk readout on pooled states.

Two blocks carry LoRA (Hu et al. 2021, arXiv:2106.09685): the ``lora_layers`` layers below
``risk_layer`` learn the risk, the ``rationale_layers`` at the top learn to tell it. What lies below
a block does not change while it learns, so it is computed once a case; layers above ``risk_layer``
run only for a rationale. Attention is causal, so padding on the right changes nothing on the left.

LoRA in both blocks and the risk's head: what is trained, beside a trunk that is not.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rarealert.errors import BadInputError
from rarealert.language.base import quiet
from rarealert.student.encoding import Facts, Readout
from rarealert.student.finding_risk import FindingRisk
from rarealert.student.profile_match import ProfileMatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_CACHED_POSITIONS = 768  # tokens; the states of more leave a processor's cache between products


class Trunk:
    """A decoder whose layers can be run in parts. ``depth`` is its number of layers."""

    def __init__(
        self,
        model: "PreTrainedModel",
        risk_layer: int | None,
        lora_layers: int,
        rationale_layers: int,
        packed_tokens: int | None = None,
        checkpointing: bool = False,
        readout: Readout = "mean",
    ) -> None:
        """Lay out the parts; ``risk_layer`` None reads the risk just below the rationale's block.

        ``packed_tokens`` is the length of a row into which sequences are packed, None pads;
        ``checkpointing`` keeps only each layer's input for the backward pass and runs the layer
        again there (Chen et al. 2016, arXiv:1604.06174).

        Raises:
            BadInputError: the two blocks do not fit the model's depth, or overlap.
        """
        self.readout = readout
        self.packed_tokens = packed_tokens
        self.checkpointing = checkpointing
        self.model: Any = model
        self.finding_risk: FindingRisk | None = None
        self.profile_match: ProfileMatch | None = None
        self.decoder: Any = model.model
        self.depth: int = len(self.decoder.layers)
        self.voice_start = self.depth - rationale_layers
        self.risk_layer = self.voice_start if risk_layer is None else risk_layer
        self.block_start = self.risk_layer - lora_layers
        if not 0 <= self.block_start < self.risk_layer <= self.voice_start < self.depth:
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

    def words(self, ids: Tensor, denied: Tensor, facts: Sequence[Facts]) -> Tensor:
        """What words say by themselves, shape ``(batch, tokens, word_width)``.

        Their embeddings, then what knowledge says of the findings that they name, as far as there
        is any: what was learnt of each finding, and last how profiles match the visit. With
        knowledge all is in fp32 on the CPU, like the head that reads it. A word that is
        ``denied`` says nothing.
        """
        said = silenced(self.embed(ids), denied)
        if not self._knowledge:
            return said
        known = [torch.from_numpy(source.at(facts, ids.shape[1])) for source in self._knowledge]
        return torch.cat([said.float().cpu(), *(one[..., None] for one in known)], dim=2)

    def read_out(self, states: Tensor, denied: Tensor, lengths: Tensor) -> Tensor:
        """What the head reads of states at the risk layer, ``(batch, tokens, hidden)``.

        Its mean over the prompt is what counts, and a word that is ``denied`` says nothing in it.
        Where only the last token is read, its state stands alone, as often as the prompt has
        tokens, so that every position's share of a risk stays exact.
        """
        if self.readout == "mean":
            return silenced(states, denied)
        last = (torch.arange(len(states)), lengths - 1)
        alone = torch.zeros_like(states, dtype=torch.float32)
        alone[last] = states[last].float() * lengths.to(states.device)[:, None]
        return alone

    def run(self, hidden: Tensor, start: int, stop: int, lengths: Tensor | None = None) -> Tensor:
        """Layers ``start`` to ``stop`` (exclusive) on ``(batch, tokens, hidden)`` states.

        The final norm is applied only where ``stop`` is the trunk's depth. With ``lengths``,
        shape ``(batch,)``, a trunk that packs runs the real positions alone and leaves zeros
        behind them.
        """
        if start == stop:
            return hidden
        weights = self.decoder.embed_tokens.weight
        hidden = hidden.to(weights.device, weights.dtype)
        if self.packed_tokens is None or lengths is None:
            return torch.cat([self._layers(part, start, stop, None) for part in _parts(hidden)])
        packed, positions, places = _pack(hidden, lengths, self.packed_tokens)
        done = self._layers(packed, start, stop, positions)
        rows = torch.zeros_like(hidden, dtype=done.dtype, device=done.device)
        rows[places[0], places[1]] = done[places[2], places[3]]
        return rows

    def _layers(self, hidden: Tensor, start: int, stop: int, positions: Tensor | None) -> Tensor:
        if not (self.checkpointing and torch.is_grad_enabled()):
            return self._view(hidden, start, stop, positions)
        for layer in range(start, stop):
            said = checkpoint(self._view, hidden, layer, layer + 1, positions, use_reentrant=False)
            hidden = torch.as_tensor(said)
        return hidden

    def _view(self, hidden: Tensor, start: int, stop: int, positions: Tensor | None) -> Tensor:
        view = copy.copy(self.decoder)  # shares every weight; only its list of layers differs
        view._modules = dict(self.decoder._modules)
        view.layers = nn.ModuleList(list(self.decoder.layers[start:stop]))
        if stop != self.depth:
            view.norm = nn.Identity()
        # positions that start again tell transformers where one visit ends and another begins
        outcome = view(inputs_embeds=hidden, position_ids=positions, use_cache=False)
        return torch.as_tensor(outcome.last_hidden_state)

    def logits(self, states: Tensor) -> Tensor:
        """Next-token logits of normed top states, shape ``(positions, vocabulary)``, in fp32."""
        return torch.as_tensor(self.model.lm_head(states)).float()


def _parts(hidden: Tensor) -> Sequence[Tensor]:
    """Rows of ``hidden`` that a processor runs together; a GPU wants all at once."""
    if hidden.device.type != "cpu":
        return (hidden,)
    return torch.split(hidden, max(1, _CACHED_POSITIONS // hidden.shape[1]))


def _pack(
    hidden: Tensor, lengths: Tensor, capacity: int
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The real positions of ``hidden`` laid into rows of at most ``capacity`` tokens.

    First-fit decreasing (Johnson 1973); a sequence longer than ``capacity`` has a row to itself.
    Gives the rows, each token's position in its own sequence (what is left of a row counts as one
    more sequence), and for every token its row and column before and after.
    """
    rows: list[list[int]] = []
    filled: list[int] = []
    counts = [int(length) for length in lengths]
    for index in sorted(range(len(counts)), key=lambda index: -counts[index]):
        at = next((i for i, n in enumerate(filled) if n + counts[index] <= capacity), len(rows))
        if at == len(rows):
            rows.append([])
            filled.append(0)
        rows[at].append(index)
        filled[at] += counts[index]
    width = max(filled)
    positions = torch.zeros(len(rows), width, dtype=torch.long)
    before: list[tuple[int, int]] = []
    after: list[tuple[int, int]] = []
    for row, members in enumerate(rows):
        start = 0
        for index in members:
            count = counts[index]
            positions[row, start : start + count] = torch.arange(count)
            before += [(index, column) for column in range(count)]
            after += [(row, start + column) for column in range(count)]
            start += count
        positions[row, start:] = torch.arange(width - start)
    places = torch.tensor([(*old, *new) for old, new in zip(before, after, strict=True)])
    old_row, old_column, new_row, new_column = places.T.to(hidden.device)
    packed = hidden.new_zeros(len(rows), width, hidden.shape[2])
    packed[new_row, new_column] = hidden[old_row, old_column]
    return packed, positions.to(hidden.device), (old_row, old_column, new_row, new_column)


def pad_right(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Token ids ``(batch, longest)`` padded on the right, and the lengths ``(batch,)``."""
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.full((len(rows), int(lengths.max())), pad, dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
    return ids, lengths


def denied_mask(positions: Sequence[Sequence[int]], width: int) -> Tensor:
    """Where each row's ``positions`` lie, ``(rows, width)``; those behind the width are dropped."""
    mask = torch.zeros(len(positions), width, dtype=torch.bool)
    for row, places in enumerate(positions):
        mask[row, [place for place in places if place < width]] = True
    return mask


def silenced(states: Tensor, denied: Tensor) -> Tensor:
    """``states``, ``(batch, tokens, hidden)``, with zeros wherever a denial covers the token.

    A mean over positions can't tell "no fever" from "fever"; without this the readout took a
    denial for the finding (docs/decisions/0006).
    """
    return states.masked_fill(denied.to(states.device)[..., None], 0.0)


def pool(states: Tensor, lengths: Tensor) -> Tensor:
    """Mean over the first ``lengths`` positions, ``(batch, hidden)``, in fp32 on the CPU.

    Only the prompt may be counted in ``lengths``: a pooled rationale would leak its verdict.
    """
    lengths = lengths.to(states.device)
    inside = torch.arange(states.shape[1], device=states.device)[None, :] < lengths[:, None]
    mean = (states.float() * inside[..., None]).sum(dim=1) / lengths[:, None]
    return mean.cpu()  # the readout is small; it learns and answers on the CPU, in fp32


class RiskHead(nn.Module):
    """A linear readout on standardised pooled states: ``(batch, features)`` → logit ``(batch,)``.

    Features are the means of ``Trunk.words`` (which words occur) and of ``Trunk.read_out`` at the
    risk layer. ``mean`` and ``scale`` are those of the training part and stay fixed, as does what
    knowledge says of ``terms``, which travels with the head; both have shape ``(n_terms,)``, 0
    without knowledge.
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
        """What knowledge says of findings, if any was learnt from."""
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
