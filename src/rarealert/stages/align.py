"""Weigh the teachers and calibrate them into one risk (``rarealert align``).

Reads the training and validation parts and the teachers' answers to them, never the test part.
Writes the frozen ensemble, ``build/align/model.skops``, and the student's targets,
``build/align/risk.parquet``: out-of-fold risks for training cases, the frozen model's for
validation. A case that no teacher answered has no risk and no row.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rarealert.errors import BadInputError
from rarealert.files import sha256_of_file, whole
from rarealert.params import Params
from rarealert.paths import Paths
from rarealert.stages.harness import run_stage
from rarealert.tracking.items import Dataset, Item, Summary
from rarealert.visits.case import LabelledCase
from rarealert.visits.reading import read_visit
from rarealert.visits.store import disease_groups, is_rare, read_cases

if TYPE_CHECKING:
    from rarealert.ensemble.alignment import AlignmentData, Fitted, Part
    from rarealert.ensemble.features import VisitFeatures
    from rarealert.ensemble.search import Search
    from rarealert.ensemble.signals import Signals

_PARTS = ("train", "valid")


def align(params: Params, paths: Paths) -> Iterator[Item]:
    """Search, fit, calibrate and freeze; see the module.

    Raises:
        BadInputError: an input is missing, a class has too few diseases with an answered case, or
            the validation part lacks a class, so that no threshold can be chosen on it.
    """
    from rarealert.ensemble.alignment import examine, search_and_fit
    from rarealert.ensemble.alignment_report import report_items, summary_of, trial_item
    from rarealert.ensemble.training_set import check_learnable

    data = read_data(paths)
    yield from _datasets(paths, data)
    check_learnable(data.train.data, "build/split/train.parquet")
    _check_both_classes(data.valid)
    folder = paths.build("align")
    found, fitted = search_and_fit(data, params.align, folder / "study.log")
    yield from map(trial_item, found.trials)
    fitted.ensemble.save(folder / "model.skops")
    _write_risks(folder / "risk.parquet", data, found, fitted)
    outcome = examine(data, found, fitted, params.align)
    yield from report_items(outcome, paths.report("align"))
    yield Summary(summary_of(outcome, params.align.timeout_s))


def read_data(paths: Paths) -> "AlignmentData":
    """Read both parts and the answers to them; the test part is not read.

    Raises:
        BadInputError: a file is missing or damaged, or no teacher answered a training case.
    """
    from rarealert.ensemble.alignment import AlignmentData
    from rarealert.ensemble.features import blocks_of, visit_features
    from rarealert.ensemble.signals import read_signals

    train, valid = (read_cases(paths.build("split") / f"{part}.parquet") for part in _PARTS)
    cases = [item.case for item in (*train, *valid)]
    answers = paths.build("rationales") / "answers.parquet"
    every = read_signals(answers, [case.case_id for case in cases])
    trained_on = every.among(item.case.case_id for item in train)
    answered = trained_on.answered()
    teachers = [name for place, name in enumerate(every.teachers) if answered[:, place].any()]
    if not teachers:
        raise BadInputError(
            "build/rationales/answers.parquet: no teacher answered a training case; check "
            "teach.panel and reports/rationales/coverage.json."
        )
    signals, blocks = every.of(teachers), blocks_of(trained_on.of(teachers))
    visits = visit_features(map(read_visit, cases))
    return AlignmentData(
        part_of(train, signals, blocks, visits),
        part_of(valid, signals, blocks, visits),
        signals,
        blocks,
        visits,
        len(cases) - len(signals.case_ids),
    )


def part_of(
    cases: Sequence[LabelledCase],
    signals: "Signals",
    blocks: Sequence[Sequence[str]],
    visits: "VisitFeatures",
) -> "Part":
    """Build features and labels of those of ``cases`` that a teacher answered, by case id."""
    import numpy as np

    from rarealert.ensemble.alignment import Part
    from rarealert.ensemble.features import build_features
    from rarealert.ensemble.training_set import TrainingSet

    of_case = {item.case.case_id: item for item in cases}
    features = build_features(signals.among(of_case), blocks, visits)
    answered = [of_case[name] for name in features.case_ids]
    data = TrainingSet(
        features.values,
        np.asarray(is_rare(answered), dtype=bool),
        np.asarray(disease_groups(answered), dtype=np.str_),
        features.values[:, features.columns("risk")],
    )
    source = np.asarray([item.case.source for item in answered], dtype=np.str_)
    return Part(features, data, source)


def _datasets(paths: Paths, data: "AlignmentData") -> Iterator[Dataset]:
    """The input files, by digest and size."""
    import pyarrow.parquet as pq

    for part in _PARTS:
        path = paths.build("split") / f"{part}.parquet"
        yield Dataset(part, path, sha256_of_file(path), pq.read_metadata(path).num_rows, "align")
    path = paths.build("rationales") / "answers.parquet"
    answered = int(data.signals.answered().sum())
    yield Dataset("answers", path, sha256_of_file(path), answered, "align")


def _check_both_classes(valid: "Part") -> None:
    for label, of_class in (("rare", valid.data.rare), ("nonrare", ~valid.data.rare)):
        if not of_class.any():
            raise BadInputError(
                f"build/split/valid.parquet: no case with label {label} has an answer, so no "
                "threshold can be chosen; raise split.valid_share or add cases."
            )


def _write_risks(path: Path, data: "AlignmentData", found: "Search", fitted: "Fitted") -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"case_id": case_id, "part": "train", "fold": int(fold), "risk": float(risk)}
        for case_id, fold, risk in zip(
            data.train.features.case_ids, found.fold, fitted.out_of_fold, strict=True
        )
    ]
    rows += [
        {"case_id": case_id, "part": "valid", "fold": None, "risk": float(risk)}
        for case_id, risk in zip(data.valid.features.case_ids, fitted.valid_risks, strict=True)
    ]
    schema = pa.schema(
        [
            pa.field("case_id", pa.string(), nullable=False),
            pa.field("part", pa.string(), nullable=False),
            pa.field("fold", pa.int16()),
            pa.field("risk", pa.float64(), nullable=False),
        ]
    )
    with whole(path) as partial:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), partial)


def main() -> None:
    """Run the stage in the current workspace."""
    run_stage("align", align)


if __name__ == "__main__":
    main()
