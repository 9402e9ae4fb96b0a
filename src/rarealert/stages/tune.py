"""``rarealert tune``: search the student's learning rate, LoRA, loss weights and second round."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rarealert.errors import RareAlertError
from rarealert.files import write_json
from rarealert.params import Params
from rarealert.paths import Paths
from rarealert.stages.harness import run_stage
from rarealert.tracking.items import Child, Dataset, Item, Metric, Parameters, Summary

if TYPE_CHECKING:
    from rarealert.student.settings_search import SettingsSearch
    from rarealert.student.trainer import Trainer


def tune(params: Params, paths: Paths) -> Iterator[Item]:
    """Run the study and write ``build/tune/best.json`` with the settings of its best trial.

    Raises:
        BadInputError: an input is missing, or the base model can't be loaded.
    """
    from rarealert.student.data import read_training_data, subset
    from rarealert.student.examples import digest_of, digest_of_examples, make_examples
    from rarealert.student.settings_search import DEFAULTS, SettingsSearch
    from rarealert.student.trainer import Trainer, add_knowledge, load_training_base

    data, chosen = read_training_data(paths), params.tune
    build = paths.build("tune")
    build.mkdir(parents=True, exist_ok=True)
    for leftover in build.glob("activations-*"):  # of a run that was killed
        shutil.rmtree(leftover)
    loaded = load_training_base(params.distil)
    train = subset(data.train, chosen.train_cases, chosen.seed)
    valid = subset(data.valid, chosen.valid_cases, chosen.seed)
    for name, cases in (("train", train), ("valid", valid)):
        digest = data.digests[name]
        yield Dataset(name, data.files[name], digest, len(cases), f"tune {name}")
    examples = make_examples(train, data.targets, loaded.encoder)
    held = make_examples(valid, data.targets, loaded.encoder)
    shaping = chosen.model_dump(exclude={"trials", "timeout_s"})
    settings = params.distil.model_dump(mode="json"), sorted(DEFAULTS)
    parts = data.digests, digest_of_examples(examples, held), loaded.base.digest, shaping, *settings
    study = SettingsSearch(build / "study.log", f"student-{digest_of(*parts)}"[:24], chosen.seed)
    add_knowledge(loaded, params.distil, data.held_out)
    with tempfile.TemporaryDirectory(dir=build, prefix="activations-") as folder:
        trainer = Trainer(loaded, examples, held, Path(folder), params.distil.batch_size)
        yield from _trials(study, trainer, params)
    if not study.has_best:
        raise RareAlertError(
            "no trial of the study completed; delete build/tune/study.log, lower "
            "distil.lora_layers or raise tune.train_cases, and run dvc repro tune."
        )
    best = study.best()
    write_json(build / "best.json", best)
    yield Parameters({f"best.{key}": value for key, value in best["settings"].items()})
    yield Metric("best_valid_log_loss", best["valid_log_loss"])
    yield Metric("best_valid_auroc", best["valid_auroc"])
    yield Summary(
        f"{best['trials']} trials, best validation AUROC {best['valid_auroc']:.3f}{data.note}"
    )


def _trials(study: "SettingsSearch", trainer: "Trainer", params: Params) -> Iterator[Child]:
    """Run trials until there are enough, or one completed and the time is over."""
    from rarealert.student.training_report import curves

    started = time.monotonic()
    while study.finished < params.tune.trials and (
        not study.has_best or time.monotonic() - started < params.tune.timeout_s
    ):
        trial = study.run_trial(trainer, params)
        settings = Parameters(asdict(trial.settings))
        yield Child(f"trial-{trial.number}", (settings, *curves("risk", trial.epochs)))


def main() -> None:
    """Run the stage in the current workspace."""
    run_stage("tune", tune)
