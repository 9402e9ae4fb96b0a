"""The training data: cases, aligned risks and held-out diseases, as split and align wrote them.

tune and distil read their inputs through here, and never see the test part.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rarealert.errors import BadInputError
from rarealert.files import sha256_of_file
from rarealert.paths import Paths
from rarealert.visits.case import Case, Label, LabelledCase
from rarealert.visits.reading import Reading, read_visit
from rarealert.visits.store import read_cases


@dataclass(frozen=True)
class LabelledReading:
    """A visit that was read, with its label."""

    reading: Reading
    label: Label

    @property
    def case(self) -> Case:
        """The case as recorded."""
        return self.reading.case

    @property
    def is_rare(self) -> bool:
        """Whether the label is rare."""
        return self.label.label == "rare"


def read_labelled(cases: Iterable[LabelledCase]) -> list[LabelledReading]:
    """Read every case once."""
    return [LabelledReading(read_visit(item.case), item.label) for item in cases]


@dataclass(frozen=True)
class TrainingData:
    """The cases of training and validation part, and ``targets``, aligned risk 0-1 by case id.

    ``held_out`` are the diseases of validation and test part. ``files`` are the input files with
    their ``digests`` (sha256) by name; ``left_out`` counts training cases without an aligned risk.
    """

    train: list[LabelledReading]
    valid: list[LabelledReading]
    targets: dict[str, float]
    held_out: frozenset[str]
    files: dict[str, Path]
    digests: dict[str, str]
    left_out: int

    @property
    def note(self) -> str:
        """The end of a stage's summary: how many cases were left out, if any."""
        if not self.left_out:
            return ""
        return f", {self.left_out:,} training cases left out that no teacher answered"


def read_training_data(paths: Paths) -> TrainingData:
    """Read the inputs of training.

    Raises:
        BadInputError: a file is missing or damaged, a training risk is not out-of-fold, or no
            training case has one.
    """
    split, risk = paths.build("split"), paths.build("align") / "risk.parquet"
    files = {
        "train": split / "train.parquet",
        "valid": split / "valid.parquet",
        "risk": risk,
        "held_out": split / "held_out.json",
    }
    every = read_labelled(read_cases(files["train"]))
    targets = read_targets(risk, "train")
    train = with_targets(every, targets)
    return TrainingData(
        train=train,
        valid=read_labelled(read_cases(files["valid"])),
        targets=targets | read_targets(risk, "valid"),
        held_out=read_held_out(files["held_out"]),
        files=files,
        digests={name: sha256_of_file(file) for name, file in files.items()},
        left_out=len(every) - len(train),
    )


def read_targets(file: Path, part: str) -> dict[str, float]:
    """Aligned risk 0-1 by case id of ``part``; those of the training part are out-of-fold.

    Raises:
        BadInputError: the file is missing or damaged, or a training row has no fold, which means
            that the model which scored it was fitted on its label.
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
    """The training cases that have an aligned risk, which one that no teacher answered has not.

    Raises:
        BadInputError: there are cases, and none of them has one.
    """
    kept = [item for item in cases if item.case.case_id in targets]
    if cases and not kept:
        raise BadInputError("align gave no training case a risk; run dvc repro align.")
    return kept


def subset(cases: Sequence[LabelledReading], count: int, seed: int) -> list[LabelledReading]:
    """At most ``count`` cases at random, with the labels in the proportion of the whole."""
    if len(cases) <= count:
        return list(cases)
    random = np.random.default_rng(seed)
    chosen: list[int] = []
    for rare in (True, False):
        rows = [index for index, item in enumerate(cases) if item.is_rare == rare]
        chosen += random.permutation(rows)[: round(count * len(rows) / len(cases))].tolist()
    return [cases[index] for index in sorted(chosen)]


def read_held_out(file: Path) -> frozenset[str]:
    """Disease keys of validation and test part, from the file that split wrote.

    Raises:
        BadInputError: the file is missing or damaged.
    """
    try:
        parts = json.loads(file.read_text(encoding="utf-8"))
        return frozenset(key for part in ("valid", "test") for key in parts[part])
    except FileNotFoundError as error:
        raise BadInputError(f"{file} is missing; run dvc repro split.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"{file} names no held-out diseases; run dvc repro split.") from error
