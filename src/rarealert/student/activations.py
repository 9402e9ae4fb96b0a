"""Activations of the frozen part of the trunk, computed once a case and kept on disk."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rarealert.errors import RareAlertError
from rarealert.language.machine import enough_memory
from rarealert.student.encoding import PromptTokens
from rarealert.student.network import PromptBatch, Trunk, batch_prompts, pad_right, pool

_ASK_LESS = "lower distil.batch_size or distil.max_prompt_tokens"
_LENGTH_NOISE = 8  # tokens; sorts batches by length, with other neighbours each epoch


@dataclass(frozen=True)
class Example:
    """One training or validation case: a prompt, and the rationale to learn (may be empty).

    ``rare`` is the label, ``target`` the aligned risk 0-1 that the student imitates. The first
    ``given`` tokens of the rationale are its opening, which is not learnt.
    """

    case_id: str
    prompt: PromptTokens
    rationale: tuple[int, ...]
    rare: bool
    target: float
    given: int = 0

    @property
    def ids(self) -> tuple[int, ...]:
        """Prompt and rationale."""
        return self.prompt.ids + self.rationale


@dataclass(frozen=True)
class StoredStates:
    """16-bit states, a row a token: their bits, ``(tokens, hidden)``, and their number format.

    The format is bfloat16 where the trunk computes in it, else float16; NumPy has no bfloat16.
    """

    bits: NDArray[np.int16]
    dtype: torch.dtype


class Activations:
    """The states of ``examples`` below a block, memory-mapped.

    ``words`` are the means of ``Trunk.words``, shape ``(n_examples, word_width)``, and ``pooled``
    those of ``Trunk.read_out`` before any adapter, ``(n_examples, hidden)``.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        lengths: Sequence[int],
        states: StoredStates,
        words: NDArray[np.float32],
        pooled: NDArray[np.float32],
    ) -> None:
        self.examples = tuple(examples)
        self.lengths = np.asarray(lengths)
        self.words = words
        self.pooled = pooled
        self._states = states
        self._starts = np.cumsum([0, *lengths])

    def states(self, chosen: Sequence[int]) -> Tensor:
        """States ``(batch, longest, hidden)`` of the examples ``chosen``, zero where padded."""
        longest = int(self.lengths[list(chosen)].max())
        states = torch.zeros(len(chosen), longest, self._states.bits.shape[1])
        for row, index in enumerate(chosen):
            start, length = self._starts[index], self.lengths[index]
            bits = np.array(self._states.bits[start : start + length])
            states[row, :length] = torch.from_numpy(bits).view(self._states.dtype).float()
        return states

    def prompts(self, chosen: Sequence[int]) -> PromptBatch:
        """The prompts of the examples ``chosen``."""
        return batch_prompts([self.examples[index].prompt for index in chosen])

    def batches(
        self,
        size: int,
        seed: tuple[int, int] | None = None,
        only: Sequence[int] | None = None,
    ) -> list[tuple[int, ...]]:
        """Batches of neighbours in length, in random order with a ``seed``, else by length.

        ``only`` are the examples to go through; without it, all.
        """
        chosen = np.arange(len(self.lengths)) if only is None else np.asarray(only)
        lengths = self.lengths[chosen].astype(float)
        random = np.random.default_rng(seed) if seed else None
        if random:
            lengths = lengths + random.uniform(0, _LENGTH_NOISE, len(lengths))
        order = chosen[np.argsort(lengths, kind="stable")].tolist()
        batches = [tuple(order[first : first + size]) for first in range(0, len(order), size)]
        if random:
            random.shuffle(batches)
        return batches


def freeze_prompts(
    trunk: Trunk, examples: Sequence[Example], file: Path, batch_size: int
) -> Activations:
    """States of the prompts below the risk block, with the features that the head starts from."""
    hidden = int(trunk.model.config.hidden_size)
    words = np.zeros((len(examples), trunk.word_width), dtype=np.float32)
    pooled = np.zeros((len(examples), hidden), dtype=np.float32)

    def below(chosen: Sequence[int], _ids: Tensor, lengths: Tensor) -> Tensor:
        batch = batch_prompts([examples[index].prompt for index in chosen])
        states = trunk.run(trunk.embed(batch.ids), 0, trunk.block_start)
        at_risk = trunk.run(states, trunk.block_start, trunk.risk_layer)
        words[chosen] = pool(trunk.words(batch), lengths).numpy()
        pooled[chosen] = pool(trunk.read_out(at_risk, batch), lengths).numpy()
        return states

    sequences = [item.prompt.ids for item in examples]
    states = store_states(sequences, below, hidden, file, batch_size)
    return Activations(examples, [len(ids) for ids in sequences], states, words, pooled)


def freeze_rationales(
    trunk: Trunk, examples: Sequence[Example], file: Path, batch_size: int
) -> Activations:
    """States of prompts with their rationales below the rationale's block, as it is now."""
    hidden = int(trunk.model.config.hidden_size)

    def below(_chosen: Sequence[int], ids: Tensor, _lengths: Tensor) -> Tensor:
        return trunk.run(trunk.embed(ids), 0, trunk.rationale_start)

    sequences = [item.ids for item in examples]
    states = store_states(sequences, below, hidden, file, batch_size)
    nothing = np.zeros((len(examples), 0), dtype=np.float32)
    return Activations(examples, [len(ids) for ids in sequences], states, nothing, nothing)


def store_states(
    sequences: Sequence[Sequence[int]],
    below: Callable[[Sequence[int], Tensor, Tensor], Tensor],
    hidden: int,
    file: Path,
    batch_size: int,
) -> StoredStates:
    """The states that ``below`` computes of each sequence, one after the other, in ``file``.

    ``below`` takes the indices of a batch, its padded ids and its lengths.

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
            ids, lengths = pad_right([sequences[index] for index in chosen])
            states = below(chosen, ids, lengths).cpu()
            dtype = torch.bfloat16 if states.dtype == torch.bfloat16 else torch.float16
            states = states.to(dtype)
            inside = torch.arange(states.shape[1])[None, :] < lengths[:, None]
            if not bool(torch.isfinite(states[inside]).all()):
                raise RareAlertError(
                    "a state of the base model is not a number, or too large for 16 bits; set "
                    "distil.dtype to bfloat16, or name another distil.base_model."
                )
            stored = states.view(torch.int16).numpy()
            for row, index in enumerate(chosen):
                bits[starts[index] : starts[index + 1]] = stored[row, : int(lengths[row])]
    return StoredStates(bits, dtype)
