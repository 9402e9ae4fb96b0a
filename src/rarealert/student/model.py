"""The student at work: a calibrated risk for every visit, a checked rationale on demand."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rarealert.cases.case import Case
from rarealert.student.calibration import Band
from rarealert.student.encoding import Encoder, Prompt
from rarealert.student.package import Card, load_package
from rarealert.student.rationale import evidence_list, is_sound, opening

if TYPE_CHECKING:
    from rarealert.language.base import BaseModel
    from rarealert.student.network import RiskHead

_REPETITION_PENALTY = 1.3  # the second try of a rationale that failed its check


@dataclass(frozen=True)
class StudentRisk:
    """What the student says of one visit. ``risk`` is calibrated, 0 to 1.

    ``logit`` is the uncalibrated log-odds; ``truncated`` says that the visit was longer than the
    student reads and was cut.
    """

    case_id: str
    risk: float
    logit: float
    band: Band
    truncated: bool


class Student:
    """A trained student; make one with ``Student.load``."""

    def __init__(self, card: Card, base: "BaseModel", head: "RiskHead") -> None:
        from rarealert.student.network import Trunk

        self.card = card
        self._trunk = Trunk(base.model, card.risk_layer, card.lora_layers)
        self._head = head
        self._encoder = Encoder(base.tokenizer, card.max_prompt_tokens)
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

    def predict(self, cases: Sequence[Case], batch_size: int) -> list[StudentRisk]:
        """One risk a case, in the order of ``cases``, whatever the batches are made of."""
        prompts = [self._encoder.prompt(case) for case in cases]
        logits = self._logits(prompts, batch_size)
        risks = self.card.calibration.risk(logits)
        return [
            StudentRisk(
                case_id=prompt.case_id,
                risk=float(risk),
                logit=float(logit),
                band=self.card.bands.band(float(risk)),
                truncated=prompt.truncated,
            )
            for prompt, risk, logit in zip(prompts, risks, logits, strict=True)
        ]

    def rationales(
        self, cases: Sequence[Case], max_new_tokens: int, batch_size: int = 8
    ) -> list[str]:
        """One short rationale a case; its direction is that of the case's band.

        Every finding it cites is in the case: a text that fails this check, repeats itself or is
        empty is generated once more, and then replaced by a list of the visit's findings that
        says so.
        """
        bands = [item.band for item in self.predict(cases, batch_size)]
        texts = self._generate(cases, bands, max_new_tokens, batch_size, penalty=1.0)
        weak = [index for index, text in enumerate(texts) if not is_sound(text, cases[index])]
        second = self._generate(
            [cases[index] for index in weak],
            [bands[index] for index in weak],
            max_new_tokens,
            batch_size,
            penalty=_REPETITION_PENALTY,
        )
        for index, text in zip(weak, second, strict=True):
            case = cases[index]
            texts[index] = text if is_sound(text, case) else evidence_list(case)
        return [f"{opening(band)} {text}" for band, text in zip(bands, texts, strict=True)]

    def _logits(self, prompts: Sequence[Prompt], batch_size: int) -> np.ndarray:
        import torch

        from rarealert.student.network import pad_right, pool

        logits = np.zeros(len(prompts))
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index].ids))
        with torch.inference_mode():
            for first in range(0, len(order), batch_size):
                chosen = order[first : first + batch_size]
                ids, lengths = pad_right([prompts[index].ids for index in chosen], self._pad)
                embedded = self._trunk.embed(ids)
                states = self._trunk.run(embedded, 0, self._trunk.risk_layer)
                features = torch.cat([pool(embedded, lengths), pool(states, lengths)], dim=1)
                logits[chosen] = self._head(features).double().numpy()
        return logits

    def _generate(
        self,
        cases: Sequence[Case],
        bands: Sequence[Band],
        max_new_tokens: int,
        batch_size: int,
        penalty: float,
    ) -> list[str]:
        """Greedy continuation of prompt and opening, one text a case, without the opening."""
        import torch

        starts = [
            [*self._encoder.prompt(case).ids, *self._encoder.tokens(" " + opening(band))]
            for case, band in zip(cases, bands, strict=True)
        ]
        texts = [""] * len(starts)
        order = sorted(range(len(starts)), key=lambda index: len(starts[index]))
        for first in range(0, len(order), batch_size):
            chosen = order[first : first + batch_size]
            width = max(len(starts[index]) for index in chosen)
            ids = torch.full((len(chosen), width), self._pad)
            mask = torch.zeros_like(ids)
            for row, index in enumerate(chosen):
                length = len(starts[index])
                ids[row, width - length :] = torch.tensor(starts[index])
                mask[row, width - length :] = 1
            with torch.inference_mode():
                out = self._trunk.model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    max_new_tokens=max_new_tokens,
                    do_sample=False,
                    repetition_penalty=penalty,
                    pad_token_id=self._pad,
                    eos_token_id=self._end,
                )
            for row, index in enumerate(chosen):
                texts[index] = self._encoder.decode(out[row, width:].tolist())
        return texts
