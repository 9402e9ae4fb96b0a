"""What the frozen part of the trunk says of each sequence, computed once and kept on disk."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rarealert.errors import RareAlertError
from rarealert.language.base import enough_memory
from rarealert.student.encoding import Facts
from rarealert.student.network import Trunk, denied_mask, pad_right, pool

_ASK_LESS = "lower distil.batch_size or distil.max_prompt_tokens"


@dataclass(frozen=True)
class Example:
    """One training or validation sequence: a prompt, and the rationale to learn (may be empty).

    ``rare`` is the label, ``target`` the aligned risk 0-1 that the student imitates, ``denied`` the
    positions of the prompt that a denial covers, ``facts`` what is told of the patient.
    The first ``given`` tokens of the rationale are its opening, which is not learnt.
    """

    case_id: str
    prompt: tuple[int, ...]
    rationale: tuple[int, ...]
    rare: bool
    target: float
    denied: tuple[int, ...] = ()
    facts: Facts = field(default_factory=Facts)
    given: int = 0

    @property
    def ids(self) -> tuple[int, ...]:
        """Prompt and rationale."""
        return self.prompt + self.rationale


@dataclass(frozen=True)
class Kept:
    """16-bit states ``(tokens, hidden)``: their bits, and what number format these are."""

    bits: NDArray[np.int16]
    dtype: torch.dtype


class Frozen:
    """States below a block, 16 bits each, memory-mapped, one row a token.

    They are kept as bfloat16 where the trunk computes in it, else as float16; ``rows`` holds the
    bits of either, which NumPy has no name for.

    ``words`` holds the mean of what each prompt's words say, shape ``(n_examples, word_width)``,
    and ``pooled`` what is read of the risk layer's states before any adapter,
    ``(n_examples, hidden)``.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        lengths: Sequence[int],
        rows: Kept,
        words: NDArray[np.float32],
        pooled: NDArray[np.float32],
    ) -> None:
        self.examples = tuple(examples)
        self.lengths = np.asarray(lengths)
        self.words = words
        self.pooled = pooled
        self._rows = rows
        self._starts = np.cumsum([0, *lengths])

    def batch(self, indices: Sequence[int]) -> Tensor:
        """States ``(batch, longest, hidden)`` of the examples ``indices``, zero where padded."""
        longest = int(self.lengths[list(indices)].max())
        states = torch.zeros(len(indices), longest, self._rows.bits.shape[1])
        for row, index in enumerate(indices):
            start, length = self._starts[index], self.lengths[index]
            part = np.array(self._rows.bits[start : start + length])
            states[row, :length] = torch.from_numpy(part).view(self._rows.dtype).float()
        return states

    def denied(self, indices: Sequence[int]) -> Tensor:
        """Which positions of the examples ``indices`` a denial covers, ``(batch, longest)``."""
        longest = int(self.lengths[list(indices)].max())
        return denied_mask([self.examples[index].denied for index in indices], longest)

    def batches(
        self,
        size: int,
        seed: tuple[int, int] | None = None,
        only: Sequence[int] | None = None,
    ) -> list[tuple[int, ...]]:
        """Batches of neighbours in length, in random order with a ``seed``, else by length.

        ``only`` names the examples to go through; without it, all.
        """
        chosen = np.arange(len(self.lengths)) if only is None else np.asarray(only)
        lengths = self.lengths[chosen].astype(float)
        random = np.random.default_rng(seed) if seed else None
        if random:
            lengths = lengths + random.uniform(0, 8, len(lengths))  # other neighbours each epoch
        order = chosen[np.argsort(lengths, kind="stable")].tolist()
        batches = [tuple(order[first : first + size]) for first in range(0, len(order), size)]
        if random:
            random.shuffle(batches)
        return batches


def freeze_prompts(
    trunk: Trunk, examples: Sequence[Example], pad: int, file: Path, batch_size: int
) -> Frozen:
    """States of the prompts below the risk block, with the features that the head starts from."""
    hidden = int(trunk.model.config.hidden_size)
    words = np.zeros((len(examples), trunk.word_width), dtype=np.float32)
    pooled = np.zeros((len(examples), hidden), dtype=np.float32)

    def below(chosen: Sequence[int], ids: Tensor, lengths: Tensor) -> Tensor:
        embedded = trunk.embed(ids)
        states = trunk.run(embedded, 0, trunk.block_start, lengths)
        at_risk = trunk.run(states, trunk.block_start, trunk.risk_layer, lengths)
        denied = denied_mask([examples[index].denied for index in chosen], ids.shape[1])
        facts = [examples[index].facts for index in chosen]
        words[chosen] = pool(trunk.words(ids, denied, facts), lengths).numpy()
        pooled[chosen] = pool(trunk.read_out(at_risk, denied, lengths), lengths).numpy()
        return states

    sequences = [item.prompt for item in examples]
    rows = run_once(sequences, below, hidden, pad, file, batch_size)
    return Frozen(examples, [len(ids) for ids in sequences], rows, words, pooled)


def freeze_told(
    trunk: Trunk, examples: Sequence[Example], pad: int, file: Path, batch_size: int
) -> Frozen:
    """States of prompts with their rationales below the rationale's block, as the risk block is."""
    hidden = int(trunk.model.config.hidden_size)

    def below(_chosen: Sequence[int], ids: Tensor, lengths: Tensor) -> Tensor:
        return trunk.run(trunk.embed(ids), 0, trunk.voice_start, lengths)

    sequences = [item.ids for item in examples]
    rows = run_once(sequences, below, hidden, pad, file, batch_size)
    nothing = np.zeros((len(examples), 0), dtype=np.float32)
    return Frozen(examples, [len(ids) for ids in sequences], rows, nothing, nothing)


def run_once(
    sequences: Sequence[Sequence[int]],
    below: Callable[[Sequence[int], Tensor, Tensor], Tensor],
    hidden: int,
    pad: int,
    file: Path,
    batch_size: int,
) -> Kept:
    """The states that ``below`` gives of each sequence, one after the other, in ``file``.

    Raises:
        NotEnoughMemoryError: a batch doesn't fit.
        RareAlertError: a state is not a number, or too large for 16 bits.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    starts = np.cumsum([0, *(len(ids) for ids in sequences)])
    bits = np.memmap(file, dtype=np.int16, mode="w+", shape=(int(starts[-1]), hidden))
    dtype = torch.float16
    order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
    with torch.inference_mode(), enough_memory("a pass through the frozen layers", _ASK_LESS):
        for first in range(0, len(order), batch_size):
            chosen = order[first : first + batch_size]
            ids, lengths = pad_right([sequences[index] for index in chosen], pad)
            states = below(chosen, ids, lengths).cpu()
            dtype = torch.bfloat16 if states.dtype == torch.bfloat16 else torch.float16
            states = states.to(dtype)
            if not bool(torch.isfinite(states).all()):
                raise RareAlertError(
                    "a state of the base model is not a number, or too large for 16 bits; set "
                    "distil.dtype to bfloat16, or name another distil.base_model."
                )
            kept = states.view(torch.int16).numpy()
            for row, index in enumerate(chosen):
                bits[starts[index] : starts[index + 1]] = kept[row, : int(lengths[row])]
    return Kept(bits, dtype)
