"""distil: train the student on aligned risk, label and rationale (``rarealert distil``).

Training targets are out-of-fold. Validation chooses the epoch, the calibration and the bands, so
its figures are a little hopeful; the test part is not read here.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rarealert.errors import BadInputError
from rarealert.files import sha256_of_file, write_json
from rarealert.params import Params
from rarealert.paths import Paths
from rarealert.stages.harness import run_stage
from rarealert.stages.tune import curves, input_files, read_knowledge, unanswered
from rarealert.student.rounds import Course, Material, Rounds, learn_rounds
from rarealert.tracking.items import Dataset, Figure, Item, Metric, Parameters, Summary

if TYPE_CHECKING:
    from rarealert.calibration.bands import Band
    from rarealert.student.examples import LabelledReading, Lessons
    from rarealert.student.network import Network, Settings
    from rarealert.student.package import Card
    from rarealert.student.rationale import TeacherReasons
    from rarealert.student.tasks import Desk
    from rarealert.visits.reading import Reading

_JUDGED_RATIONALES = 12  # validation cases whose rationale is judged; generation is slow

_LIBRARIES = ("numpy", "peft", "safetensors", "torch", "transformers")


@dataclass(frozen=True)
class _Inputs:
    train: "list[LabelledReading]"
    valid: "list[LabelledReading]"
    desk: "Desk"
    taught: "Lessons"
    judged: "Lessons"
    leanings: "dict[str, list[TeacherReasons]]"
    digests: dict[str, str]
    left_out: int  # training cases without an aligned risk


@dataclass(frozen=True)
class _Outcome:
    """The course of both rounds, and figures of the validation part after them."""

    rounds: Rounds
    figures: dict[str, float]


def distil(params: Params, paths: Paths) -> Iterator[Item]:
    """Train, calibrate and package the student in ``build/distil/adapter``.

    A run that was killed goes on from its last epoch.

    Raises:
        BadInputError: an input is missing or damaged, or the base model can't be loaded.
        DivergedError: the loss became NaN; the checkpoint of the epoch before stays.
    """
    settings = read_settings(paths.build("tune") / "best.json")
    inputs = _read(params, paths)
    for name, file in _files(paths).items():
        rows = {"train": len(inputs.train), "valid": len(inputs.valid)}.get(name, 0)
        if rows:
            yield Dataset(name, file, inputs.digests[name], rows, f"distil {name}")
    yield Parameters({f"tuned.{key}": value for key, value in asdict(settings).items()})
    work = paths.build("distil") / "work"
    outcome = _teach(params, settings, inputs, work, paths.build("distil") / "adapter")
    yield from _report(paths.report("distil"), outcome, inputs)
    shutil.rmtree(work)
    figures = outcome.figures
    yield Summary(
        f"validation AUROC {figures['auroc']:.3f} (TF-IDF {figures['tfidf_auroc']:.3f}), "
        f"{len(inputs.train):,} cases, {inputs.taught.told} rationales learnt, "
        f"{figures['rationales_sound']:.0%} of {_JUDGED_RATIONALES} sound"
        + unanswered(inputs.left_out)
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


def _read(params: Params, paths: Paths) -> _Inputs:
    from rarealert.student.examples import (
        choose_rationales,
        make_lessons,
        read_labelled,
        read_targets,
        with_targets,
    )
    from rarealert.student.tasks import open_desk
    from rarealert.visits.store import read_cases

    files, chosen = _files(paths), params.distil
    leanings = read_leanings(files["answers"])
    desk = open_desk(chosen)

    def lessons(
        cases: "list[LabelledReading]", targets: "dict[str, float]", told: int
    ) -> "Lessons":
        texts = choose_rationales(cases, targets, leanings, told, chosen.seed)
        return make_lessons(cases, targets, desk.encoder, texts, chosen.max_rationale_tokens)

    every = read_labelled(read_cases(files["train"]))
    valid = read_labelled(read_cases(files["valid"]))
    targets = read_targets(files["risk"], "train")
    train = with_targets(every, targets)
    taught = lessons(train, targets, chosen.rationale_cases)
    judged = lessons(valid, read_targets(files["risk"], "valid"), _JUDGED_RATIONALES)
    digests = {name: sha256_of_file(file) for name, file in files.items()}
    read_knowledge(desk, chosen, files["held_out"])
    left_out = len(every) - len(train)
    return _Inputs(train, valid, desk, taught, judged, leanings, digests, left_out)


def _files(paths: Paths) -> dict[str, Path]:
    return input_files(paths) | {"answers": paths.build("rationales") / "answers.parquet"}


def read_leanings(file: Path) -> "dict[str, list[TeacherReasons]]":
    """What each teacher that answered leaned on, by case id."""
    from rarealert.student.rationale import TeacherReasons
    from rarealert.teachers.answer import read_answers

    leanings: dict[str, list[TeacherReasons]] = {}
    for item in read_answers(file):
        if item.answer is not None:
            insights = tuple((said.name, said.weight) for said in item.answer.insights)
            leanings.setdefault(item.case_id, []).append(
                TeacherReasons(rare=item.answer.risk >= 50, insights=insights)
            )
    return leanings


def _teach(
    params: Params, settings: "Settings", inputs: _Inputs, work: Path, adapter: Path
) -> _Outcome:
    from rarealert.calibration.bands import fit_bands
    from rarealert.calibration.calibrators import fit_calibrator
    from rarealert.student.examples import digest_of, digest_of_examples
    from rarealert.student.package import save_package
    from rarealert.student.report import valid_figures
    from rarealert.student.tasks import Classroom, logits_of
    from rarealert.student.uncertainty import fit_uncertainty

    chosen, desk = params.distil, inputs.desk
    room = Classroom(desk, inputs.taught, inputs.judged, work, chosen.batch_size)
    read = digest_of_examples(inputs.taught.examples, inputs.judged.examples)
    shaping = (asdict(settings), chosen.model_dump(mode="json"))
    digest = digest_of(inputs.digests, read, shaping, desk.base.digest)
    with room.network(settings, chosen.seed) as network:
        material = Material(desk, inputs.train, inputs.taught, inputs.leanings)
        rounds = learn_rounds(Course(chosen, settings, room, network, material, work, digest))
        logits = logits_of(network, room.valid)
        rare = inputs.judged.rare
        calibrator = fit_calibrator(logits, rare, inputs.judged.groups, chosen.seed)
        risk = calibrator.risk(logits)
        card = _card(params, settings, inputs, calibrator, fit_bands(risk, rare))
        save_package(adapter, card, network, desk.base.tokenizer)
        fit_uncertainty(network, room.train, room.valid, logits, desk.encoder.frame).save(adapter)
        told = [item.reading for item in inputs.valid][:_JUDGED_RATIONALES]
        bands = [card.bands.band(each) for each in risk[:_JUDGED_RATIONALES].tolist()]
        said = _told_figures(card, network, inputs, told, bands)
    figures = valid_figures(inputs.train, inputs.valid, logits, risk)
    return _Outcome(rounds, {**figures, **said})


def _told_figures(
    card: "Card",
    network: "Network",
    inputs: _Inputs,
    readings: "Sequence[Reading]",
    bands: "Sequence[Band]",
) -> dict[str, float]:
    """How the rationales of ``readings`` fare; the last name says how many are judged."""
    from rarealert.student.model import Student
    from rarealert.student.report import rationale_figures

    student = Student(card, inputs.desk.base, network.head, network.trunk.profile_match)
    said = student.rationales(readings, bands)
    return rationale_figures(readings, said)


def _card(
    params: Params, settings: "Settings", inputs: _Inputs, calibrator: Any, bands: Any
) -> Any:
    from importlib.metadata import version

    from rarealert.student.package import Card

    chosen, desk = params.distil, inputs.desk
    return Card(
        base_model=chosen.base_model,
        base_digest=desk.base.digest,
        dtype=chosen.dtype,
        prompt=chosen.prompt,
        readout=chosen.readout,
        risk_layer=desk.trunk.risk_layer,
        lora_layers=chosen.lora_layers,
        rationale_layers=chosen.rationale_layers,
        max_prompt_tokens=chosen.max_prompt_tokens,
        max_rationale_tokens=chosen.max_rationale_tokens,
        calibrator=calibrator,
        bands=bands,
        settings={**asdict(settings), "seed": chosen.seed, "epochs": chosen.epochs},
        training_data=inputs.digests,
        libraries={name: version(name) for name in _LIBRARIES},
    )


def _report(folder: Path, outcome: _Outcome, inputs: _Inputs) -> Iterator[Item]:
    from rarealert.student.report import training_curves

    histories = outcome.rounds.by_task()
    said = {
        "valid": {**outcome.figures, "n": len(inputs.valid)},
        "train": {
            "n": len(inputs.train),
            "rationales": inputs.taught.told,
            "truncated": inputs.taught.truncated,
            **outcome.rounds.counts,
        },
        "history": {
            task: [asdict(epoch) for epoch in history] for task, history in histories.items()
        },
        "rounds": outcome.rounds.gains(),
    }
    write_json(folder / "metrics.json", said)
    for name, value in outcome.figures.items():
        yield Metric(f"final_valid_{name}", value)
    for task, history in histories.items():
        yield from curves(task, history)
    yield from outcome.rounds.children()
    curve = training_curves(histories, outcome.figures["tfidf_auroc"])
    yield Figure("training.png", curve)


def main() -> None:
    """Run the stage in the current workspace."""
    run_stage("distil", distil)
