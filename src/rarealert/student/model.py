"""The packaged student at work: a calibrated risk for every visit, and a checked rationale."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from rarealert.calibration.bands import Band
from rarealert.language.machine import enough_memory
from rarealert.student.encoding import Encoder, Prompt
from rarealert.student.evidence import TokenLogits
from rarealert.student.package import Card, load_package
from rarealert.student.rationale import choices, evidence_list, grounded_part, is_sound, opening
from rarealert.visits.reading import Reading

if TYPE_CHECKING:
    from torch import Tensor

    from rarealert.language.base import BaseModel
    from rarealert.student.network import RiskHead
    from rarealert.student.profile_match import ProfileMatch

_RATIONALE_BATCH = 8  # visits generated side by side

Origin = Literal["free", "guided", "listed"]
"""Where a rationale comes from: free words, without what names no finding of the visit; the
student's choice among ``choices``, after free words failed their check; or a plain list, where
there was nothing to choose from."""


@dataclass(frozen=True)
class Rationale:
    """Why the risk is what it is, and where the text comes from."""

    text: str
    origin: Origin


@dataclass(frozen=True, eq=False)
class Prediction:
    """The student's result for one visit.

    ``risk`` is calibrated, 0 to 1, ``logit`` the uncalibrated log-odds, ``features`` the head's
    input, shape ``(d,)``. ``tokens`` are the log-odds of each token, from which ``find_evidence``
    takes the weights. ``truncated`` marks a visit that was longer than the student reads.
    """

    case_id: str
    risk: float
    logit: float
    band: Band
    truncated: bool
    features: NDArray[np.float64]
    tokens: TokenLogits


class Student:
    """A trained student; make one with ``Student.load``."""

    def __init__(
        self, card: Card, base: "BaseModel", head: "RiskHead", match: "ProfileMatch | None"
    ) -> None:
        from rarealert.student.network import Trunk

        self.card = card
        layers = card.risk_layer, card.lora_layers, card.rationale_layers
        self._trunk = Trunk(base.model, *layers, readout=card.readout)
        self._head = head
        self._trunk.finding_risk = head.finding_risk
        self._trunk.profile_match = match
        self._encoder = Encoder(base.tokenizer, card.max_prompt_tokens, card.prompt)
        self._pad: int = int(base.tokenizer.pad_token_id)
        self._end: int = int(base.tokenizer.eos_token_id)

    @classmethod
    def load(cls, folder: Path) -> "Student":
        """The student that ``distil`` left in ``folder``, its LoRA merged into the base.

        Raises:
            BadInputError: a file is missing or damaged, or the base model is not the one it was
                trained on.
        """
        return cls(*load_package(folder))

    def predict(self, readings: Sequence[Reading], batch_size: int) -> list[Prediction]:
        """One prediction a reading, in order; a risk does not depend on the batch it is in.

        Raises:
            NotEnoughMemoryError: a batch doesn't fit.
        """
        import torch

        prompts = [self._encoder.prompt(reading) for reading in readings]
        logits = np.zeros(len(prompts))
        details: dict[int, tuple[NDArray[np.float64], TokenLogits]] = {}
        with enough_memory("a batch of visits", "lower score.batch_size, or send fewer at once,"):
            for chosen, features, words, states in self._passes(prompts, batch_size):
                logits[chosen] = self._head(features).double().numpy()
                by_token = torch.cat([words.cpu(), states.cpu()], dim=2).float()
                alone = self._head(by_token).double().numpy()
                for row, index in enumerate(chosen):
                    tokens = self._token_logits(prompts[index], alone[row])
                    details[index] = features[row].double().numpy(), tokens
        risks = self.card.calibrator.risk(logits)
        return [
            Prediction(
                reading.case.case_id,
                float(risk),
                float(logits[index]),
                self.card.bands.band(float(risk)),
                prompts[index].truncated,
                *details[index],
            )
            for index, (reading, risk) in enumerate(zip(readings, risks, strict=True))
        ]

    def rationales(self, readings: Sequence[Reading], bands: Sequence[Band]) -> list[Rationale]:
        """One short rationale a reading; its direction is that of the visit's band.

        Every finding that it cites is in the visit. Where free words fail this check, loop or are
        empty, the student chooses among the findings of the visit instead; where none was
        recognised, a plain sentence states that.
        """
        written = self._generate(readings, bands)
        grounded = [grounded_part(*pair) for pair in zip(written, readings, strict=True)]
        weak = [index for index, text in enumerate(grounded) if not is_sound(text, readings[index])]
        rationales = [
            Rationale(f"{opening(band)} {text}", "free")
            for band, text in zip(bands, grounded, strict=True)
        ]
        allowed = {index: choices(readings[index], bands[index]) for index in weak}
        guided = [index for index in weak if allowed[index]]
        chosen = self._generate(
            [readings[index] for index in guided],
            [bands[index] for index in guided],
            [allowed[index] for index in guided],
        )
        for index in weak:
            rationales[index] = Rationale(evidence_list(readings[index], bands[index]), "listed")
        for index, text in zip(guided, chosen, strict=True):
            if is_sound(text, readings[index]):
                rationales[index] = Rationale(f"{opening(bands[index])} {text}", "guided")
        return rationales

    def _passes(
        self, prompts: Sequence[Prompt], batch_size: int
    ) -> "Iterator[tuple[list[int], Tensor, Tensor, Tensor]]":
        """Per batch of similar lengths: indices, head features, and both token inputs of these."""
        import torch

        from rarealert.student.network import batch_prompts, pool

        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index].tokens.ids))
        with torch.inference_mode():
            for first in range(0, len(order), batch_size):
                chosen = order[first : first + batch_size]
                batch = batch_prompts([prompts[index].tokens for index in chosen])
                words = self._trunk.words(batch)
                states = self._trunk.run(self._trunk.embed(batch.ids), 0, self._trunk.risk_layer)
                states = self._trunk.read_out(states, batch)
                pooled = pool(words, batch.lengths), pool(states, batch.lengths)
                features = torch.cat(pooled, dim=1)
                yield chosen, features, words, states

    def _token_logits(self, prompt: Prompt, alone: "NDArray[np.float64]") -> TokenLogits:
        before, after = self._encoder.frame
        length = len(prompt.tokens.ids)
        spans = np.array(prompt.spans, dtype=np.int64).reshape(-1, 2)
        return TokenLogits(prompt.reading, spans, alone[before : length - after], length)

    def _generate(
        self,
        readings: Sequence[Reading],
        bands: Sequence[Band],
        allowed: Sequence[Sequence[str]] | None = None,
    ) -> list[str]:
        """Greedy continuation of prompt and opening, one text a reading, without the opening.

        With ``allowed``, each text is the one of its list that greedy steps lead to.
        """
        import torch

        starts = [
            [*self._encoder.prompt(reading).tokens.ids, *self._encoder.tokens(" " + opening(band))]
            for reading, band in zip(readings, bands, strict=True)
        ]
        texts = [""] * len(starts)
        order = sorted(range(len(starts)), key=lambda index: len(starts[index]))
        for first in range(0, len(order), _RATIONALE_BATCH):
            chosen = order[first : first + _RATIONALE_BATCH]
            width = max(len(starts[index]) for index in chosen)
            ids = torch.full((len(chosen), width), self._pad)
            mask = torch.zeros_like(ids)
            for row, index in enumerate(chosen):
                length = len(starts[index])
                ids[row, width - length :] = torch.tensor(starts[index])
                mask[row, width - length :] = 1
            guide = self._guide([allowed[index] for index in chosen], width) if allowed else None
            with torch.inference_mode():
                out = self._trunk.model.generate(
                    input_ids=ids.to(self._trunk.model.device),
                    attention_mask=mask.to(self._trunk.model.device),
                    max_new_tokens=self.card.max_rationale_tokens,
                    do_sample=False,
                    prefix_allowed_tokens_fn=guide,
                    pad_token_id=self._pad,
                    eos_token_id=self._end,
                )
            for row, index in enumerate(chosen):
                texts[index] = self._encoder.decode(out[row, width:].tolist())
        return texts

    def _guide(
        self, allowed: Sequence[Sequence[str]], width: int
    ) -> "Callable[[int, Tensor], list[int]]":
        """Which tokens may follow in a row, so that it ends as one of its allowed texts."""
        follow: list[dict[tuple[int, ...], set[int]]] = []
        for texts in allowed:
            after: dict[tuple[int, ...], set[int]] = {}
            for text in texts:
                ids = [*self._encoder.tokens(" " + text), self._end]
                for place, token in enumerate(ids):
                    after.setdefault(tuple(ids[:place]), set()).add(token)
            follow.append(after)

        def tokens(row: int, ids: "Tensor") -> list[int]:
            return sorted(follow[row].get(tuple(ids[width:].tolist()), {self._end}))

        return tokens
