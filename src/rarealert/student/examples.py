"""Training and validation examples: prompts, out-of-fold targets, rationales to learn.

Both stages that train (tune and distil) read their examples through here, and never see the
test part.

The second round: what the student judged wrongly, told why, and some of the first again.

As MedThink's reasoning correction does, but the judges of an error are the label and the aligned
out-of-fold risk here, never the student or a teacher itself.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rarealert.errors import BadInputError
from rarealert.simulation.corpus import GENERATOR_VERSION
from rarealert.student.activations import Example
from rarealert.student.encoding import ENCODING_VERSION, Encoder
from rarealert.student.rationale import TeacherReasons, compose, compose_correction, opening_of
from rarealert.visits.case import Case, Label, LabelledCase
from rarealert.visits.reading import Reading, read_visit


@dataclass(frozen=True)
class LabelledReading:
    """A visit that was read, with its label."""

    reading: Reading
    label: Label

    @property
    def case(self) -> Case:
        """The case as recorded."""
        return self.reading.case


def read_labelled(cases: Iterable[LabelledCase]) -> list[LabelledReading]:
    """Read every case once."""
    return [LabelledReading(read_visit(item.case), item.label) for item in cases]


@dataclass(frozen=True)
class Lessons:
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
    def told(self) -> int:
        """Examples whose rationale is learnt as well."""
        return sum(bool(item.rationale) for item in self.examples)


def read_targets(file: Path, part: str) -> dict[str, float]:
    """Aligned risk 0-1 by case id of ``part``; those of the training part are out-of-fold.

    Raises:
        BadInputError: the file is missing or damaged, or a training row has no fold, which means
            that the model which scored it had seen its label.
    """
    if not file.is_file():
        raise BadInputError(f"{file} is missing; run dvc repro align.")
    try:
        rows = pq.read_table(file, columns=["case_id", "part", "fold", "risk"]).to_pylist()
    except (pa.ArrowInvalid, KeyError, OSError) as error:
        raise BadInputError(
            f"{file} is not a file of aligned risks; run dvc repro align."
        ) from error
    targets = {}
    for number, row in enumerate(rows):
        if row["part"] != part:
            continue
        if part == "train" and row["fold"] is None:
            raise BadInputError(
                f"{file} row {number}: fold is empty, so the risk is not out-of-fold; run align."
            )
        targets[row["case_id"]] = float(row["risk"])
    return targets


def with_targets(
    cases: Sequence[LabelledReading], targets: Mapping[str, float]
) -> list[LabelledReading]:
    """The training cases that can be learnt from: what no teacher answered has no aligned risk.

    Raises:
        BadInputError: there are cases, and none of them has one.
    """
    kept = [item for item in cases if item.case.case_id in targets]
    if cases and not kept:
        raise BadInputError("align gave no training case a risk; run dvc repro align.")
    return kept


def make_lessons(
    cases: Sequence[LabelledReading],
    targets: Mapping[str, float],
    encoder: Encoder,
    rationales: Mapping[str, str] | None = None,
    max_rationale_tokens: int = 0,
) -> Lessons:
    """One example a case; ``rationales`` by case id, a case without one learns only its risk.

    A case without an aligned risk has its label for a target: it is judged by that alone, and
    ``with_targets`` keeps it from what is learnt.
    """
    examples = []
    truncated = 0
    for item in cases:
        case_id = item.case.case_id
        prompt = encoder.prompt(item.reading)
        truncated += prompt.truncated
        text = (rationales or {}).get(case_id)
        told = encoder.rationale(text, max_rationale_tokens) if text else ()
        rare = item.label.label == "rare"
        target = targets.get(case_id, float(rare))
        given = given_tokens(encoder, text, told) if text else 0
        read = (prompt.denied, prompt.facts, given)
        examples.append(Example(case_id, prompt.ids, told, rare, target, *read))
    groups = tuple(item.label.disease_id for item in cases)
    return Lessons(tuple(examples), groups, truncated)


def given_tokens(encoder: Encoder, text: str, told: Sequence[int]) -> int:
    """How many of ``told``, the tokens of ``text``, are its opening; its end mark is none."""
    return min(len(encoder.tokens(" " + opening_of(text))), len(told) - 1)


def choose_rationales(
    cases: Sequence[LabelledReading],
    targets: Mapping[str, float],
    leanings: Mapping[str, Sequence[TeacherReasons]],
    count: int,
    seed: int,
) -> dict[str, str]:
    """Rationales by case id for at most ``count`` of ``cases``, chosen at random.

    Only cases whose aligned risk lies on the label's side are taken: there the teachers' reasons
    speak for the right answer.
    """
    agreed = [
        item
        for item in cases
        if (targets.get(item.case.case_id, 0.5) >= 0.5) == (item.label.label == "rare")
    ]
    order = np.random.default_rng(seed).permutation(len(agreed))
    chosen: dict[str, str] = {}
    for index in order:
        if len(chosen) == count:
            break
        item = agreed[index]
        case_id = item.case.case_id
        rare, head = item.label.label == "rare", item.label.orphanet_head
        text = compose(item.reading, leanings.get(case_id, ()), rare, head)
        if text:
            chosen[case_id] = text
    return chosen


def subset(cases: Sequence[LabelledReading], count: int, seed: int) -> list[LabelledReading]:
    """At most ``count`` cases at random, with the labels in the proportion of the whole."""
    if len(cases) <= count:
        return list(cases)
    random = np.random.default_rng(seed)
    chosen: list[int] = []
    for label in ("rare", "nonrare"):
        rows = [index for index, item in enumerate(cases) if item.label.label == label]
        chosen += random.permutation(rows)[: round(count * len(rows) / len(cases))].tolist()
    return [cases[index] for index in sorted(chosen)]


def digest_of(*parts: object) -> str:
    """sha256 of anything JSON can hold: the name of data and settings that belong together."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def digest_of_examples(*parts: Sequence[Example]) -> str:
    """sha256 of what is learnt, as the student reads it, and of the versions that decide how.

    Files keep their bytes when the code that reads them changes; trials and checkpoints of another
    reading must not be taken up again.
    """
    read = [asdict(example) for part in parts for example in part]
    return digest_of(ENCODING_VERSION, GENERATOR_VERSION, read)


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
    cases: Sequence[LabelledReading],
    lessons: Lessons,
    found: Round,
    leanings: Mapping[str, Sequence[TeacherReasons]],
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
        text = compose_correction(item.reading, item.label, leanings.get(item.case.case_id, ()))
        ids = encoder.rationale(text, max_tokens + 1) if text else ()
        if text and len(ids) <= max_tokens:
            given = given_tokens(encoder, text, ids)
            told.append(replace(lessons.examples[index], rationale=ids, given=given))
    share = len(found.replayed) / max(1, len(found.wrong))
    earlier = [item for item in lessons.examples if item.rationale]
    chosen = {item.case_id for item in told}
    kept = [item for item in earlier if item.case_id not in chosen]
    return told + kept[: round(len(told) * share)]
