"""What the frozen part of the trunk says of each sequence, computed once and kept on disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rarealert.student.network import Trunk, pad_right, pool


@dataclass(frozen=True)
class Example:
    """One training or validation sequence: a prompt, and the rationale to learn (may be empty).

    ``rare`` is the label, ``target`` the aligned risk 0-1 that the student imitates.
    """

    case_id: str
    prompt: tuple[int, ...]
    rationale: tuple[int, ...]
    rare: bool
    target: float

    @property
    def ids(self) -> tuple[int, ...]:
        """Prompt and rationale."""
        return self.prompt + self.rationale


class Frozen:
    """Activations below the adapted block, in fp16, memory-mapped, one row a token.

    ``words`` holds the mean embedding of each prompt, shape ``(n_examples, hidden)``, and
    ``pooled`` the mean state at the risk layer before any adapter, same shape.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        rows: NDArray[np.float16],
        words: NDArray[np.float32],
        pooled: NDArray[np.float32],
    ) -> None:
        self.examples = tuple(examples)
        self.words = words
        self.pooled = pooled
        self._rows = rows
        self._starts = _starts(examples)

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """States ``(batch, longest, hidden)``, mean embeddings, and prompt lengths ``(batch,)``."""
        lengths = [len(self.examples[index].ids) for index in indices]
        states = torch.zeros(len(indices), max(lengths), self._rows.shape[1])
        for row, (index, length) in enumerate(zip(indices, lengths, strict=True)):
            start = self._starts[index]
            part = np.asarray(self._rows[start : start + length], dtype=np.float32)
            states[row, :length] = torch.from_numpy(part)
        words = torch.from_numpy(self.words[list(indices)])
        prompts = torch.tensor([len(self.examples[index].prompt) for index in indices])
        return states, words, prompts


def freeze(
    trunk: Trunk, examples: Sequence[Example], pad: int, file: Path, batch_size: int
) -> Frozen:
    """Run the frozen layers over ``examples`` and keep their output in ``file``."""
    hidden = int(trunk.model.config.hidden_size)
    starts = _starts(examples)
    total = sum(len(item.ids) for item in examples)
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = np.memmap(file, dtype=np.float16, mode="w+", shape=(total, hidden))
    words = np.zeros((len(examples), hidden), dtype=np.float32)
    pooled = np.zeros_like(words)
    order = sorted(range(len(examples)), key=lambda index: len(examples[index].ids))
    with torch.inference_mode():
        for first in range(0, len(order), batch_size):
            chosen = order[first : first + batch_size]
            ids, lengths = pad_right([examples[index].ids for index in chosen], pad)
            prompts = torch.tensor([len(examples[index].prompt) for index in chosen])
            embedded = trunk.embed(ids)
            below = trunk.run(embedded, 0, trunk.block_start)
            words[chosen] = pool(embedded, prompts).numpy()
            at_risk = trunk.run(below, trunk.block_start, trunk.risk_layer)
            pooled[chosen] = pool(at_risk, prompts).numpy()
            for row, index in enumerate(chosen):
                length = int(lengths[row])
                rows[starts[index] : starts[index] + length] = below[row, :length].half().numpy()
    return Frozen(examples, rows, words, pooled)


def _starts(examples: Sequence[Example]) -> list[int]:
    ends = np.cumsum([0, *(len(item.ids) for item in examples)])
    return [int(end) for end in ends[:-1]]
