"""tune: search the student's learning rate, LoRA rank and loss weights (``rarealert tune``).

A seeded TPE study (Bergstra et al. 2011) with median pruning after each epoch. Its journal
outlives a kill: a study of the same data and settings goes on counting where it stopped, one of
other data starts afresh beside it.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rarealert.errors import RareAlertError
from rarealert.params import Params
from rarealert.paths import Paths
from rarealert.stages.harness import run_stage
from rarealert.tracking.items import Child, Dataset, Item, Metric, Parameters, Summary

if TYPE_CHECKING:
    from rarealert.student.classroom import Classroom
    from rarealert.student.rationale import Leaning
    from rarealert.student.training import Epoch, Settings

DEFAULTS: dict[str, float | int] = {
    "learning_rate": 5e-4,
    "rank": 8,
    "alpha_ratio": 2.0,
    "soft_weight": 0.5,
    "rationale_weight": 0.3,
}
"""The first trial of every study; the others have to beat it."""


def tune(params: Params, paths: Paths) -> Iterator[Item]:
    """Run the study and write ``build/tune/best.json`` with the settings of its best trial.

    Raises:
        BadInputError: an input is missing, or the base model can't be loaded.
    """
    from rarealert.student.lessons import digest_of, digest_of_file

    started = time.monotonic()
    inputs = input_files(paths)
    digests = {name: digest_of_file(file) for name, file in inputs.items() if file.is_file()}
    build = paths.build("tune")
    build.mkdir(parents=True, exist_ok=True)
    for leftover in build.glob("activations-*"):  # of a run that was killed
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(dir=build, prefix="activations-") as folder:
        room, base_digest = _classroom(params, paths, Path(folder))
        for name, lessons in (("train", room.train), ("valid", room.valid)):
            yield Dataset(name, inputs[name], digests[name], len(lessons.examples), f"tune {name}")
        shaping = params.tune.model_dump(exclude={"trials", "timeout_s"})
        name = "student-" + digest_of(
            digests, base_digest, shaping, params.distil.model_dump(mode="json")
        )
        study = _open_study(build / "study.log", name[:24], params.tune.seed)
        finished = _finished(study)
        while len(finished) < params.tune.trials and (
            not _complete(finished) or time.monotonic() - started < params.tune.timeout_s
        ):
            yield _one_trial(study, room, params)
            finished = _finished(study)
    if not _complete(finished):
        raise RareAlertError(
            "no trial of the study came to its end; delete build/tune/study.log, lower "
            "distil.lora_layers or raise tune.train_cases, and run dvc repro tune."
        )
    best = study.best_trial
    _write_best(build / "best.json", best, len(finished))
    yield Parameters({f"best.{key}": value for key, value in best.params.items()})
    yield Metric("best_valid_log_loss", float(best.value))
    yield Metric("best_valid_auroc", float(best.user_attrs["valid_auroc"]))
    yield Summary(
        f"{len(finished)} trials, best validation AUROC {best.user_attrs['valid_auroc']:.3f}"
    )


def input_files(paths: Paths) -> dict[str, Path]:
    """What tune and distil read, by name; the test part is not among it."""
    return {
        "train": paths.build("split") / "train.parquet",
        "valid": paths.build("split") / "valid.parquet",
        "risk": paths.build("align") / "risk.parquet",
        "answers": paths.build("rationales") / "answers.parquet",
    }


def teacher_leanings(file: Path) -> "dict[str, list[Leaning]]":
    """What each teacher that answered leaned on, by case id."""
    from rarealert.student.rationale import Leaning
    from rarealert.teachers.answer import read_answers

    leanings: dict[str, list[Leaning]] = {}
    for item in read_answers(file):
        if item.answer is not None:
            insights = tuple((said.name, said.weight) for said in item.answer.insights)
            leanings.setdefault(item.case_id, []).append(
                Leaning(rare=item.answer.risk >= 50, insights=insights)
            )
    return leanings


def _classroom(params: Params, paths: Paths, folder: Path) -> "tuple[Classroom, str]":
    from rarealert.cases.store import read_cases
    from rarealert.student.classroom import Classroom, open_desk
    from rarealert.student.lessons import choose_rationales, make_lessons, read_targets, subset

    files, tuning, distil = input_files(paths), params.tune, params.distil
    train = subset(read_cases(files["train"]), tuning.train_cases, tuning.seed)
    valid = subset(read_cases(files["valid"]), tuning.valid_cases, tuning.seed)
    targets = read_targets(files["risk"], "train")
    leanings = teacher_leanings(files["answers"])
    told = choose_rationales(train, targets, leanings, distil.rationale_share, tuning.seed)
    desk = open_desk(
        distil.base_model, distil.risk_layer, distil.lora_layers, distil.max_prompt_tokens
    )
    limit = distil.max_rationale_tokens
    lessons = make_lessons(train, targets, desk.encoder, told, limit)
    judged = make_lessons(valid, read_targets(files["risk"], "valid"), desk.encoder, {}, limit)
    return Classroom(desk, lessons, judged, folder, distil.batch_size), desk.base.digest


def _open_study(journal: Path, name: str, seed: int) -> Any:
    """The study ``name`` in ``journal``; trials that a kill left running are marked failed."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(journal))),
        study_name=name,
        direction="minimize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=0),
    )
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    # a resumed study must not draw again what it drew before the kill
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials), n_startup_trials=3)
    if not study.trials:
        study.enqueue_trial(DEFAULTS)
    return study


def _finished(study: Any) -> list[Any]:
    from optuna.trial import TrialState

    return list(study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED)))


def _complete(trials: list[Any]) -> list[Any]:
    from optuna.trial import TrialState

    return [trial for trial in trials if trial.state == TrialState.COMPLETE]


def _one_trial(study: Any, room: "Classroom", params: Params) -> Child:
    """Train one candidate; a diverged or lagging one is pruned, never the study."""
    from optuna import TrialPruned
    from optuna.trial import TrialState

    from rarealert.student.training import DivergedError, Schedule, train

    trial = study.ask()
    settings = _suggest(trial)
    epochs: list[Epoch] = []

    def on_epoch(epoch: "Epoch") -> None:
        epochs.append(epoch)
        trial.report(epoch.valid_log_loss, epoch.epoch)
        if epoch.epoch < params.distil.epochs and trial.should_prune():
            raise TrialPruned

    schedule = Schedule(params.distil.epochs, params.distil.batch_size, params.tune.seed)
    state = TrialState.COMPLETE
    with room.network(settings, params.tune.seed) as network:
        try:
            train(network, room.train, room.valid, settings, schedule, on_epoch=on_epoch)
        except (TrialPruned, DivergedError):
            state = TrialState.PRUNED
    last = epochs[-1]
    trial.set_user_attr("valid_auroc", last.valid_auroc)
    value = last.valid_log_loss if state == TrialState.COMPLETE else None
    study.tell(trial, value, state=state)
    return Child(f"trial-{trial.number}", (Parameters(asdict(settings)), *_curves(epochs)))


def _suggest(trial: Any) -> "Settings":
    from rarealert.student.training import Settings

    return Settings(
        learning_rate=trial.suggest_float("learning_rate", 1e-4, 3e-3, log=True),
        rank=trial.suggest_categorical("rank", [4, 8, 16]),
        alpha_ratio=trial.suggest_categorical("alpha_ratio", [1.0, 2.0, 4.0]),
        soft_weight=trial.suggest_float("soft_weight", 0.0, 1.0),
        rationale_weight=trial.suggest_float("rationale_weight", 0.1, 1.0, log=True),
    )


def _curves(epochs: "list[Epoch]") -> Iterator[Metric]:
    for epoch in epochs:
        for name, value in asdict(epoch).items():
            if name != "epoch" and value is not None:
                yield Metric(name, float(value), epoch.epoch)


def _write_best(file: Path, best: Any, trials: int) -> None:
    said = {
        "settings": best.params,
        "trial": best.number,
        "trials": trials,
        "valid_auroc": best.user_attrs["valid_auroc"],
        "valid_log_loss": best.value,
    }
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(said, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(file)


def main() -> None:
    """Run the stage in the current workspace."""
    run_stage("tune", tune)
