"""Training and validation examples: prompts, out-of-fold targets, rationales to learn.

The correction round learns what the student judged wrongly, with some of the first round again, as
MedThink's reasoning correction does. An error is decided by the label and the aligned out-of-fold
risk, never by the student or a teacher.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rarealert.simulation.corpus import GENERATOR_VERSION
from rarealert.student.activations import Example
from rarealert.student.data import LabelledReading
from rarealert.student.encoding import ENCODING_VERSION, Encoder
from rarealert.student.rationale import TeacherReasons, compose, compose_correction, opening_of

Reasons = Mapping[str, Sequence[TeacherReasons]]
"""The reasons of each teacher that answered, by case id."""


@dataclass(frozen=True)
class ExampleSet:
    """The examples of one part, with the disease of each, shape ``(n,)``, for grouped folds."""

    examples: tuple[Example, ...]
    groups: tuple[str, ...]
    truncated: int

    @property
    def rare(self) -> NDArray[np.bool_]:
        """Labels, shape ``(n,)``."""
        return np.array([item.rare for item in self.examples])

    @property
    def target(self) -> NDArray[np.float64]:
        """Aligned risks 0-1, shape ``(n,)``."""
        return np.array([item.target for item in self.examples])

    @property
    def with_rationale(self) -> list[Example]:
        """The examples whose rationale is learnt as well."""
        return [item for item in self.examples if item.rationale]


def make_examples(
    cases: Sequence[LabelledReading],
    targets: Mapping[str, float],
    encoder: Encoder,
    rationales: Mapping[str, str] | None = None,
    max_rationale_tokens: int = 0,
) -> ExampleSet:
    """One example a case.

    Args:
        cases: the cases of one part.
        targets: aligned risk 0-1 by case id. A case without one has its label as target; only
            validation has such cases, since ``with_targets`` removes them from training.
        encoder: makes the prompts.
        rationales: rationales to learn by case id; a case without one learns only its risk.
        max_rationale_tokens: a longer rationale is cut.
    """
    examples = []
    truncated = 0
    for item in cases:
        case_id, rare = item.case.case_id, item.is_rare
        prompt = encoder.prompt(item.reading)
        truncated += prompt.truncated
        example = Example(case_id, prompt.tokens, (), rare, targets.get(case_id, float(rare)))
        text = (rationales or {}).get(case_id)
        if text:
            example = _with_rationale(example, encoder, text, max_rationale_tokens)
        examples.append(example)
    groups = tuple(item.label.disease_id for item in cases)
    return ExampleSet(tuple(examples), groups, truncated)


def choose_rationales(
    cases: Sequence[LabelledReading],
    targets: Mapping[str, float],
    reasons: Reasons,
    count: int,
    seed: int,
) -> dict[str, str]:
    """Rationales by case id for at most ``count`` of ``cases``, chosen at random.

    Only cases whose aligned risk is on the label's side are taken: there the teachers' reasons
    support the right answer.
    """
    agreed = [
        item for item in cases if (targets.get(item.case.case_id, 0.5) >= 0.5) == item.is_rare
    ]
    chosen: dict[str, str] = {}
    for index in np.random.default_rng(seed).permutation(len(agreed)):
        if len(chosen) == count:
            break
        item, case_id = agreed[index], agreed[index].case.case_id
        given = reasons.get(case_id, ())
        text = compose(item.reading, given, item.is_rare, item.label.orphanet_head)
        if text:
            chosen[case_id] = text
    return chosen


@dataclass(frozen=True)
class CorrectionCases:
    """Indices into the training part: ``wrong`` were judged wrongly, ``replayed`` were not."""

    wrong: tuple[int, ...]
    replayed: tuple[int, ...]

    @property
    def all(self) -> tuple[int, ...]:
        """All cases of the correction round."""
        return (*self.wrong, *self.replayed)


def find_wrong_cases(
    logits: NDArray[np.float64], part: ExampleSet, tau: float, replay_share: float, seed: int
) -> CorrectionCases:
    """Cases on the wrong side of their label, or further than ``tau`` from their aligned risk.

    ``logits`` has shape ``(n,)``. Other cases are drawn at random, so that they make up
    ``replay_share`` of the round as far as there are any.
    """
    risk = 1 / (1 + np.exp(-logits))
    wrong = ((risk >= 0.5) != part.rare) | (np.abs(risk - part.target) > tau)
    right = np.flatnonzero(~wrong)
    count = round(int(wrong.sum()) * replay_share / (1 - replay_share))
    drawn = np.random.default_rng(seed).permutation(right)[:count]
    return CorrectionCases(tuple(np.flatnonzero(wrong).tolist()), tuple(sorted(drawn.tolist())))


def correction_examples(
    cases: Sequence[LabelledReading],
    part: ExampleSet,
    found: CorrectionCases,
    reasons: Reasons,
    encoder: Encoder,
    max_tokens: int,
    count: int,
) -> list[Example]:
    """At most ``count`` wrong cases with a corrected rationale, then replayed ones of round one.

    ``cases`` and ``part`` have the same order. A rationale longer than ``max_tokens`` is left out,
    because it would end before its citation. Rationales are replayed in the proportion of cases.
    """
    corrected: list[Example] = []
    for index in found.wrong:
        if len(corrected) == count:
            break
        item = cases[index]
        given = reasons.get(item.case.case_id, ())
        text = compose_correction(item.reading, item.label, given)
        if text and len(encoder.rationale(text, max_tokens + 1)) <= max_tokens:
            example = _with_rationale(part.examples[index], encoder, text, max_tokens)
            corrected.append(example)
    share = len(found.replayed) / max(1, len(found.wrong))
    chosen = {item.case_id for item in corrected}
    earlier = [item for item in part.with_rationale if item.case_id not in chosen]
    return corrected + earlier[: round(len(corrected) * share)]


def _with_rationale(example: Example, encoder: Encoder, text: str, max_tokens: int) -> Example:
    ids = encoder.rationale(text, max_tokens)
    opening = encoder.tokens(" " + opening_of(text))
    return replace(example, rationale=ids, given=min(len(opening), len(ids) - 1))


def digest_of(*parts: object) -> str:
    """sha256 of anything JSON can hold: the name of data and settings that belong together."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def digest_of_examples(*parts: ExampleSet) -> str:
    """sha256 of the examples, and of the versions that decide how a visit is encoded.

    Files keep their bytes when the code that encodes them changes; trials and checkpoints of
    another encoding must not be resumed.
    """
    examples = [asdict(example) for part in parts for example in part.examples]
    return digest_of(ENCODING_VERSION, GENERATOR_VERSION, examples)
