"""``rarealert distil``: train the student on risk, label and rationale, and package it."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rarealert.errors import BadInputError
from rarealert.files import sha256_of_file, write_json
from rarealert.params import Params
from rarealert.paths import Paths
from rarealert.stages.harness import run_stage
from rarealert.tracking.items import Dataset, Figure, Item, Metric, Parameters, Summary

if TYPE_CHECKING:
    from rarealert.student.distillation import Distillation
    from rarealert.student.network import Settings
    from rarealert.student.rationale import TeacherReasons


def distil(params: Params, paths: Paths) -> Iterator[Item]:
    """Train, calibrate and package the student in ``build/distil/adapter``.

    A run that was killed continues from its last epoch.

    Raises:
        BadInputError: an input is missing or damaged, or the base model can't be loaded.
        DivergedError: the loss became NaN; the checkpoint of the epoch before stays.
    """
    settings = read_settings(paths.build("tune") / "best.json")
    from rarealert.student.data import read_training_data
    from rarealert.student.distillation import JUDGED_RATIONALES, distil_student

    data, answers = read_training_data(paths), paths.build("rationales") / "answers.parquet"
    reasons = read_reasons(answers)
    data = replace(data, digests=data.digests | {"answers": sha256_of_file(answers)})
    for name, cases in (("train", data.train), ("valid", data.valid)):
        yield Dataset(name, data.files[name], data.digests[name], len(cases), f"distil {name}")
    yield Parameters({f"tuned.{key}": value for key, value in asdict(settings).items()})
    work, adapter = paths.build("distil") / "work", paths.build("distil") / "adapter"
    outcome = distil_student(data, reasons, settings, params.distil, work, adapter)
    yield from _report(paths.report("distil"), outcome)
    shutil.rmtree(work)
    figures = outcome.figures
    yield Summary(
        f"validation AUROC {figures['auroc']:.3f} (TF-IDF {figures['tfidf_auroc']:.3f}), "
        f"{len(data.train):,} cases, {len(outcome.train.with_rationale)} rationales learnt, "
        f"{figures['rationales_sound']:.0%} of {JUDGED_RATIONALES} sound{data.note}"
    )


def read_settings(file: Path) -> "Settings":
    """The tuned settings.

    Raises:
        BadInputError: the file is missing or is not what tune writes.
    """
    from rarealert.student.network import Settings

    try:
        return Settings(**json.loads(file.read_text(encoding="utf-8"))["settings"])
    except FileNotFoundError as error:
        raise BadInputError(f"{file} is missing; run dvc repro tune.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"{file} holds no tuned settings; run dvc repro tune.") from error


def read_reasons(file: Path) -> "dict[str, list[TeacherReasons]]":
    """The insights of each teacher that answered, with its verdict, by case id."""
    from rarealert.student.rationale import TeacherReasons
    from rarealert.teachers.teacher_answer import read_answers

    reasons: dict[str, list[TeacherReasons]] = {}
    for item in read_answers(file):
        if item.answer is not None:
            insights = tuple((insight.name, insight.weight) for insight in item.answer.insights)
            given = TeacherReasons(rare=item.answer.risk >= 50, insights=insights)
            reasons.setdefault(item.case_id, []).append(given)
    return reasons


def _report(folder: Path, outcome: "Distillation") -> Iterator[Item]:
    from rarealert.student.training_report import curves, round_runs, training_curves

    histories = outcome.rounds.by_task()
    report = {
        "valid": {**outcome.figures, "n": len(outcome.valid.examples)},
        "train": {
            "n": len(outcome.train.examples),
            "rationales": len(outcome.train.with_rationale),
            "truncated": outcome.train.truncated,
            **outcome.rounds.counts,
        },
        "history": {
            task: [asdict(epoch) for epoch in history] for task, history in histories.items()
        },
        "rounds": outcome.rounds.gains(),
    }
    write_json(folder / "metrics.json", report)
    for name, value in outcome.figures.items():
        yield Metric(f"final_valid_{name}", value)
    for task, history in histories.items():
        yield from curves(task, history)
    yield from round_runs(outcome.rounds)
    yield Figure("training.png", training_curves(histories, outcome.figures["tfidf_auroc"]))


def main() -> None:
    """Run the stage in the current workspace."""
    run_stage("distil", distil)
