"""The second round: what the student judged wrongly, told why, and some of the first again.

As MedThink's reasoning correction does, but the judges of an error are the label and the aligned
out-of-fold risk here, never the student or a teacher itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rarealert.cases.case import LabelledCase
from rarealert.student.activations import Example
from rarealert.student.encoding import Encoder
from rarealert.student.lessons import Lessons, given_tokens
from rarealert.student.rationale import Leaning, compose_chain


@dataclass(frozen=True)
class Round:
    """Positions in a part: ``wrong`` are judged wrongly, ``replayed`` are not."""

    wrong: tuple[int, ...]
    replayed: tuple[int, ...]

    @property
    def learnt(self) -> tuple[int, ...]:
        """All that the round goes through."""
        return (*self.wrong, *self.replayed)


def find_errors(
    logits: NDArray[np.float64], lessons: Lessons, tau: float, replay_share: float, seed: int
) -> Round:
    """Cases on the wrong side of their label, or further than ``tau`` from their aligned risk.

    ``logits`` has shape ``(n,)``. To them come others at random, so that these make up
    ``replay_share`` of the round as far as there are any.
    """
    risk = 1 / (1 + np.exp(-logits))
    wrong = ((risk >= 0.5) != lessons.rare) | (np.abs(risk - lessons.target) > tau)
    right = np.flatnonzero(~wrong)
    count = round(int(wrong.sum()) * replay_share / (1 - replay_share))
    drawn = np.random.default_rng(seed).permutation(right)[:count]
    return Round(tuple(np.flatnonzero(wrong).tolist()), tuple(sorted(drawn.tolist())))


def chains(
    cases: Sequence[LabelledCase],
    lessons: Lessons,
    found: Round,
    leanings: Mapping[str, Sequence[Leaning]],
    encoder: Encoder,
    max_tokens: int,
    count: int,
) -> list[Example]:
    """At most ``count`` wrongly judged cases, each with its chain, and told ones of round one.

    ``cases`` and ``lessons`` stand side by side. A chain longer than ``max_tokens`` is left out,
    since it would end before it arrives. The replayed share of rationales is the round's.
    """
    told: list[Example] = []
    for index in found.wrong:
        if len(told) == count:
            break
        item = cases[index]
        text = compose_chain(item, leanings.get(item.case.case_id, ()))
        ids = encoder.rationale(text, max_tokens + 1) if text else ()
        if text and len(ids) <= max_tokens:
            given = given_tokens(encoder, text, ids)
            told.append(replace(lessons.examples[index], rationale=ids, given=given))
    share = len(found.replayed) / max(1, len(found.wrong))
    earlier = [item for item in lessons.examples if item.rationale]
    chosen = {item.case_id for item in told}
    kept = [item for item in earlier if item.case_id not in chosen]
    return told + kept[: round(len(told) * share)]
