"""What the align stage reads: cases, answers to them, and both as features and labels."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from rarealert.cases.case import LabelledCase
from rarealert.cases.store import disease_groups, is_rare, read_cases
from rarealert.errors import BadInputError
from rarealert.paths import Paths
from rarealert.tracking.items import Dataset

if TYPE_CHECKING:
    from rarealert.alignment.panel import Panel
    from rarealert.alignment.report import Part


@dataclass(frozen=True)
class Inputs:
    """Cases of both parts, all that teachers said of them, and what their visits say.

    ``blocks`` are the teachers as ``blocks_of`` groups them by the training part.
    """

    train: list[LabelledCase]
    valid: list[LabelledCase]
    panel: "Panel"
    blocks: tuple[tuple[str, ...], ...]
    visits: Mapping[str, tuple[float, ...]]


def read_inputs(paths: Paths) -> Inputs:
    """Read both parts and the answers to them; the test part is not looked at.

    Raises:
        BadInputError: a file is missing or damaged, or nobody answered a training case.
    """
    from rarealert.alignment.features import blocks_of
    from rarealert.alignment.panel import read_panel
    from rarealert.alignment.visits import visit_features

    train = read_cases(paths.build("split") / "train.parquet")
    valid = read_cases(paths.build("split") / "valid.parquet")
    cases = [item.case for item in (*train, *valid)]
    panel = read_panel(
        paths.build("rationales") / "answers.parquet", [case.case_id for case in cases]
    )
    trained_on = panel.among(item.case.case_id for item in train)
    heard = [
        name for place, name in enumerate(panel.teachers) if trained_on.answered()[:, place].any()
    ]
    if not heard:
        raise BadInputError(
            "build/rationales/answers.parquet: no teacher answered a training case; check "
            "teach.panel and reports/rationales/coverage.json."
        )
    blocks = blocks_of(trained_on.of(heard))
    return Inputs(train, valid, panel.of(heard), blocks, visit_features(cases))


def datasets(paths: Paths, inputs: Inputs) -> Iterator[Dataset]:
    """The files that were read, by digest and size."""
    sizes = (
        ("train", paths.build("split") / "train.parquet", len(inputs.train)),
        ("valid", paths.build("split") / "valid.parquet", len(inputs.valid)),
        (
            "answers",
            paths.build("rationales") / "answers.parquet",
            int(inputs.panel.answered().sum()),
        ),
    )
    for name, path, rows in sizes:
        yield Dataset(name, path, sha256(path.read_bytes()).hexdigest(), rows, "align")


def part_of(cases: Sequence[LabelledCase], inputs: Inputs) -> "Part":
    """Features and labels of those of ``cases`` that someone answered, by case id."""
    import numpy as np

    from rarealert.alignment.features import build_features
    from rarealert.alignment.folds import TrainingSet
    from rarealert.alignment.report import Part

    of_case = {item.case.case_id: item for item in cases}
    features = build_features(inputs.panel.among(of_case), inputs.blocks, inputs.visits)
    answered = [of_case[name] for name in features.case_ids]
    data = TrainingSet(
        features.values,
        np.asarray(is_rare(answered), dtype=bool),
        np.asarray(disease_groups(answered), dtype=np.str_),
        features.values[:, features.columns("risk")],
    )
    source = np.asarray([item.case.source for item in answered], dtype=np.str_)
    return Part(features, data, source)
