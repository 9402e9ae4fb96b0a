"""Batched greedy writing with the prompt's common beginning computed once."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rarealert.language.base import BaseModel
from rarealert.teachers.local.script import CLOSING, GAPS, MAX_VISIT_TOKENS, OPENING, RISK_LINE


@dataclass(frozen=True)
class Written:
    """What the model wrote of one visit, and its probabilities of the digits 0 to 9."""

    lines: tuple[tuple[str, str], ...]
    """``(kind, text)`` in the order of ``script.GAPS``."""
    digits: tuple[float, ...]
    tokens_read: int
    tokens_written: int


class Writer:
    """Fills the gaps of the script for many visits at once."""

    def __init__(self, base: BaseModel):
        self._base = base
        self._newline = self._ids("\n")[-1]
        self._digit_ids = [self._ids(str(digit))[-1] for digit in range(10)]
        self._opening: Any = None

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._base.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def write(self, visits: Sequence[str]) -> list[Written]:
        """Fill the script for each of ``visits`` (rendered texts); no gradient, fp32."""
        import torch

        with torch.inference_mode():
            batch = _Batch(self._base, self._prefix(), len(visits))
            quoted = [self._ids(json.dumps(visit, ensure_ascii=False)) for visit in visits]
            closing = self._ids(CLOSING)
            batch.read([ids[:MAX_VISIT_TOKENS] + closing for ids in quoted])
            lines: list[list[tuple[str, str]]] = [[] for _ in visits]
            begun: list[set[int]] = [set() for _ in visits]
            for gap in GAPS:
                batch.read([self._ids(gap.before)] * len(visits))
                for row, ids in enumerate(batch.line(gap.tokens, self._newline, begun)):
                    begun[row].update(ids[:1])
                    text = str(self._base.tokenizer.decode(ids, skip_special_tokens=True))
                    lines[row].append((gap.kind, " ".join(text.split())))
            batch.read([self._ids(RISK_LINE)] * len(visits))
            chances = torch.softmax(batch.logits[:, self._digit_ids], dim=-1).tolist()
        return [
            Written(tuple(said), tuple(chance), batch.read_tokens[row], batch.written[row])
            for row, (said, chance) in enumerate(zip(lines, chances, strict=True))
        ]

    def _prefix(self) -> Any:
        if self._opening is None:
            import torch

            ids = torch.tensor([self._ids(OPENING)])
            self._opening = self._base.model(ids, use_cache=True, logits_to_keep=1)
        return self._opening.past_key_values


class _Batch:
    """Rows of different length on one key-value cache: gaps in a row are masked out.

    ``logits`` holds each row's scores of its next token, shape ``(n_rows, n_vocabulary)``.
    """

    def __init__(self, base: BaseModel, prefix: Any, rows: int):
        import copy

        import torch

        self._model = base.model
        self._fill = base.tokenizer.pad_token_id
        self._end = base.tokenizer.eos_token_id
        self._cache = copy.deepcopy(prefix)
        self._cache.batch_repeat_interleave(rows)
        length = prefix.get_seq_length()
        self._mask = torch.ones((rows, length), dtype=torch.long)
        self._position = torch.full((rows,), length)
        self.logits = torch.empty(0)
        self.read_tokens = [length] * rows
        self.written = [0] * rows

    def read(self, rows: Sequence[Sequence[int]]) -> None:
        """Append tokens to each row, in one pass; ``logits`` then follow the last of each."""
        import torch

        width = max(len(ids) for ids in rows)
        tokens = torch.full((len(rows), width), self._fill)
        seen = torch.zeros((len(rows), width), dtype=torch.long)
        for row, ids in enumerate(rows):  # padded on the left, so that all end in one column
            tokens[row, width - len(ids) :] = torch.tensor(ids)
            seen[row, width - len(ids) :] = 1
            self.read_tokens[row] += len(ids)
        self._step(tokens, seen)

    def line(self, most: int, newline: int, banned_first: Sequence[set[int]]) -> list[list[int]]:
        """Let each row write one line of at most ``most`` tokens, greedily.

        A line doesn't begin with a token in its row's ``banned_first``, nor end before it began.
        """
        import torch

        said: list[list[int]] = [[] for _ in banned_first]
        open_rows = set(range(len(said)))
        for _ in range(most):
            scores = self.logits.clone()
            scores[:, [self._end]] = -torch.inf
            for row in open_rows:
                if not said[row]:
                    scores[row, [newline, *banned_first[row]]] = -torch.inf
            chosen = scores.argmax(dim=-1).tolist()
            open_rows -= {row for row in open_rows if chosen[row] == newline}
            if not open_rows:
                break
            tokens = torch.full((len(said), 1), self._fill)
            seen = torch.zeros((len(said), 1), dtype=torch.long)
            for row in open_rows:
                said[row].append(chosen[row])
                self.written[row] += 1
                tokens[row, 0], seen[row, 0] = chosen[row], 1
            self._step(tokens, seen)
        return said

    def _step(self, tokens: Any, seen: Any) -> None:
        import torch

        positions = (self._position[:, None] + seen.cumsum(dim=1) - 1).clamp(min=0)
        self._mask = torch.cat([self._mask, seen], dim=1)
        self._position = self._position + seen.sum(dim=1)
        out = self._model(
            tokens,
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.logits = out.logits[:, -1]
