"""The student's network: a causal trunk run in parts, and a risk readout on pooled states.

Two blocks carry LoRA (Hu et al. 2021, arXiv:2106.09685): the ``lora_layers`` layers below
``risk_layer`` learn the risk, the ``rationale_layers`` at the top learn to tell it. What lies below
a block does not change while it learns, so it is computed once a case; layers above ``risk_layer``
run only for a rationale. Attention is causal, so padding on the right changes nothing on the left.
"""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rarealert.errors import BadInputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Trunk:
    """A decoder whose layers can be run in parts. ``depth`` is its number of layers."""

    def __init__(
        self,
        model: "PreTrainedModel",
        risk_layer: int | None,
        lora_layers: int,
        rationale_layers: int,
    ) -> None:
        """Lay out the parts; ``risk_layer`` None reads the risk just below the rationale's block.

        Raises:
            BadInputError: the two blocks do not fit the model's depth, or overlap.
        """
        self.model: Any = model
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
        return torch.as_tensor(self.decoder.embed_tokens(ids))

    def run(self, hidden: Tensor, start: int, stop: int) -> Tensor:
        """Layers ``start`` to ``stop`` (exclusive) on ``(batch, tokens, hidden)`` states.

        The final norm is applied only where ``stop`` is the trunk's depth.
        """
        if start == stop:
            return hidden
        view = copy.copy(self.decoder)  # shares every weight; only its list of layers differs
        view._modules = dict(self.decoder._modules)
        view.layers = nn.ModuleList(list(self.decoder.layers[start:stop]))
        if stop != self.depth:
            view.norm = nn.Identity()
        return torch.as_tensor(view(inputs_embeds=hidden, use_cache=False).last_hidden_state)

    def logits(self, states: Tensor) -> Tensor:
        """Next-token logits of normed top states, shape ``(positions, vocabulary)``."""
        return torch.as_tensor(self.model.lm_head(states))


def pad_right(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Token ids ``(batch, longest)`` padded on the right, and the lengths ``(batch,)``."""
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.full((len(rows), int(lengths.max())), pad, dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
    return ids, lengths


def pool(states: Tensor, lengths: Tensor) -> Tensor:
    """Mean over the first ``lengths`` positions, ``(batch, hidden)``.

    Only the prompt may be counted in ``lengths``: a pooled rationale would leak its verdict.
    """
    inside = torch.arange(states.shape[1])[None, :] < lengths[:, None]
    return (states * inside[..., None]).sum(dim=1) / lengths[:, None]


class RiskHead(nn.Module):
    """A linear readout on standardised pooled states: ``(batch, features)`` → logit ``(batch,)``.

    Features are the mean embedding (which words occur) beside the mean state at the risk layer.

    ``mean`` and ``scale`` are those of the training part and stay fixed.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.linear = nn.Linear(features, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Uncalibrated log-odds of a rare disease."""
        return torch.as_tensor(self.linear((features - self.mean) / self.scale)).squeeze(-1)
