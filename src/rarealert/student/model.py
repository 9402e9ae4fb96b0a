"""The student at work: a calibrated risk for every visit, a checked rationale on demand."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from rarealert.calibration.student_calibration import Band
from rarealert.language.base import enough_memory
from rarealert.student.encoding import Encoder, Prompt
from rarealert.student.evidence import ReadText
from rarealert.student.package import Card, load_package
from rarealert.student.rationale import choices, evidence_list, grounded_part, is_sound, opening
from rarealert.visits.case import Case

if TYPE_CHECKING:
    from torch import Tensor

    from rarealert.language.base import BaseModel
    from rarealert.student.network import RiskHead
    from rarealert.student.profile_match import ProfileMatch

Origin = Literal["free", "guided", "listed"]
"""Where a rationale comes from: the student's own words, as far as they name findings of the visit;
its choice among these, after free words failed their check; a plain list, where nothing could be
chosen from."""


@dataclass(frozen=True)
class Rationale:
    """Why the risk is what it is, and where the text comes from."""

    text: str
    origin: Origin


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


@dataclass(frozen=True)
class Reading:
    """One visit as the student read it: its risk, the head's features ``(d,)``, and the text."""

    risk: StudentRisk
    features: NDArray[np.float64]
    text: ReadText


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

    def predict(self, cases: Sequence[Case], batch_size: int) -> list[StudentRisk]:
        """One risk a case, in the order of ``cases``, whatever the batches are made of.

        Raises:
            NotEnoughMemoryError: a batch doesn't fit.
        """
        prompts = [self._encoder.prompt(case) for case in cases]
        logits = np.zeros(len(prompts))
        with enough_memory("a batch of visits", "lower score.batch_size, or send fewer at once,"):
            for chosen, features, _, _ in self._passes(prompts, batch_size):
                logits[chosen] = self._head(features).double().numpy()
        return self._risks(prompts, logits)

    def read(self, cases: Sequence[Case], batch_size: int) -> list[Reading]:
        """As ``predict``, with the same risks, and what an explanation of them needs."""
        import torch

        prompts = [self._encoder.prompt(case) for case in cases]
        logits = np.zeros(len(prompts))
        read: dict[int, tuple[NDArray[np.float64], ReadText]] = {}
        for chosen, features, words, states in self._passes(prompts, batch_size):
            logits[chosen] = self._head(features).double().numpy()
            alone = (
                self._head(torch.cat([words.cpu(), states.cpu()], dim=2).float()).double().numpy()
            )
            for row, index in enumerate(chosen):
                text = self._text(prompts[index], alone[row])
                read[index] = features[row].double().numpy(), text
        risks = self._risks(prompts, logits)
        return [Reading(risk, *read[index]) for index, risk in enumerate(risks)]

    def _text(self, prompt: Prompt, alone: "NDArray[np.float64]") -> ReadText:
        before, after = self._encoder.frame
        length = len(prompt.ids)
        places = np.array(self._encoder.offsets(prompt), dtype=np.int64).reshape(-1, 2)
        logits = alone[before : length - after]
        return ReadText(prompt.text, places[:, 0], places[:, 1], logits, length)

    def _risks(self, prompts: Sequence[Prompt], logits: "NDArray[np.float64]") -> list[StudentRisk]:
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
    ) -> list[Rationale]:
        """One short rationale a case; its direction is that of the case's band.

        Every finding it cites is in the case: where free words fail this check, repeat themselves
        or are empty, the student chooses among the findings of the visit instead, and where none
        was recognised, a plain sentence says so.
        """
        bands = [item.band for item in self.predict(cases, batch_size)]
        said = self._generate(cases, bands, max_new_tokens, batch_size)
        texts = [grounded_part(text, case) for text, case in zip(said, cases, strict=True)]
        origins: list[Origin] = ["free"] * len(cases)
        weak = [index for index, text in enumerate(texts) if not is_sound(text, cases[index])]
        allowed = {index: choices(cases[index], bands[index]) for index in weak}
        guided = [index for index in weak if allowed[index]]
        second = self._generate(
            [cases[index] for index in guided],
            [bands[index] for index in guided],
            max_new_tokens,
            batch_size,
            [allowed[index] for index in guided],
        )
        for index in weak:
            texts[index], origins[index] = evidence_list(cases[index]), "listed"
        for index, text in zip(guided, second, strict=True):
            if is_sound(text, cases[index]):
                texts[index], origins[index] = text, "guided"
        return [
            Rationale(f"{opening(band)} {text}", origin)
            for band, text, origin in zip(bands, texts, origins, strict=True)
        ]

    def _passes(
        self, prompts: Sequence[Prompt], batch_size: int
    ) -> "Iterator[tuple[list[int], Tensor, Tensor, Tensor]]":
        """Per batch: indices, the head's features, what words say, what is read of states."""
        import torch

        from rarealert.student.network import denied_mask, pad_right, pool

        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index].ids))
        with torch.inference_mode():
            for first in range(0, len(order), batch_size):
                chosen = order[first : first + batch_size]
                ids, lengths = pad_right([prompts[index].ids for index in chosen], self._pad)
                denied = denied_mask([prompts[index].denied for index in chosen], ids.shape[1])
                facts = [prompts[index].facts for index in chosen]
                words = self._trunk.words(ids, denied, facts)
                states = self._trunk.run(self._trunk.embed(ids), 0, self._trunk.risk_layer)
                states = self._trunk.read_out(states, denied, lengths)
                features = torch.cat([pool(words, lengths), pool(states, lengths)], dim=1)
                yield chosen, features, words, states

    def _generate(
        self,
        cases: Sequence[Case],
        bands: Sequence[Band],
        max_new_tokens: int,
        batch_size: int,
        allowed: Sequence[Sequence[str]] | None = None,
    ) -> list[str]:
        """Greedy continuation of prompt and opening, one text a case, without the opening.

        With ``allowed``, each case's text is the one of its list that greedy steps lead to.
        """
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
            guide = self._guide([allowed[index] for index in chosen], width) if allowed else None
            with torch.inference_mode():
                out = self._trunk.model.generate(
                    input_ids=ids.to(self._trunk.model.device),
                    attention_mask=mask.to(self._trunk.model.device),
                    max_new_tokens=max_new_tokens,
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
        """Which tokens may follow in row ``row``, so that one of its allowed texts comes out."""
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
