"""tune: search the student's rates, LoRA, loss weights and second round (``rarealert tune``).

A seeded TPE study (Bergstra et al. 2011) with median pruning after each epoch but the last. Its
journal outlives a kill: a study of the same data and settings goes on counting where it stopped,
one of other data starts afresh beside it.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rarealert.errors import RareAlertError
from rarealert.files import sha256_of_file, write_json
from rarealert.params import DistilParams, Params
from rarealert.paths import Paths
from rarealert.stages.harness import run_stage
from rarealert.tracking.items import Child, Dataset, Item, Metric, Parameters, Summary

if TYPE_CHECKING:
    from rarealert.student.examples import Round
    from rarealert.student.network import Network, Settings
    from rarealert.student.tasks import Classroom, Desk
    from rarealert.student.training import Epoch, Schedule

DEFAULTS: dict[str, float | int | str] = {
    "learning_rate": 2e-3,
    "rank": 8,
    "alpha_ratio": 2.0,
    "soft_weight": 0.8,
    "finding_share": 0.5,
    "adapted_layers": 1,
    "modules": "all",
    "tau": 0.35,
    "replay_share": 0.5,
}
"""The first trial of every study to come to an end; the others have to beat it."""


def tune(params: Params, paths: Paths) -> Iterator[Item]:
    """Run the study and write ``build/tune/best.json`` with the settings of its best trial.

    Raises:
        BadInputError: an input is missing, or the base model can't be loaded.
    """
    from rarealert.student.examples import digest_of, digest_of_examples

    inputs = input_files(paths)
    digests = {name: sha256_of_file(file) for name, file in inputs.items() if file.is_file()}
    build = paths.build("tune")
    build.mkdir(parents=True, exist_ok=True)
    for leftover in build.glob("activations-*"):  # of a run that was killed
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(dir=build, prefix="activations-") as folder:
        room, base_digest, left_out = _classroom(params, paths, Path(folder))
        for name, lessons in (("train", room.train), ("valid", room.valid)):
            yield Dataset(name, inputs[name], digests[name], len(lessons.examples), f"tune {name}")
        shaping = params.tune.model_dump(exclude={"trials", "timeout_s"})
        read = digest_of_examples(room.train.examples, room.valid.examples)
        distil = params.distil.model_dump(mode="json")
        name = "student-" + digest_of(digests, read, base_digest, shaping, distil, sorted(DEFAULTS))
        study = _open_study(build / "study.log", name[:24], params.tune.seed)
        finished = _finished(study)
        started = time.monotonic()
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
        + unanswered(left_out)
    )


def input_files(paths: Paths) -> dict[str, Path]:
    """What risks are learnt from, by name; of the test part, only which diseases it holds."""
    return {
        "train": paths.build("split") / "train.parquet",
        "valid": paths.build("split") / "valid.parquet",
        "risk": paths.build("align") / "risk.parquet",
        "held_out": paths.build("split") / "held_out.json",
    }


def unanswered(left_out: int) -> str:
    """What a summary adds of training cases without an aligned risk; nothing where all have one."""
    return f", {left_out:,} training cases left out that no teacher answered" if left_out else ""


def _classroom(params: Params, paths: Paths, folder: Path) -> "tuple[Classroom, str, int]":
    """The room, the base model's digest, and how many training cases have no target."""
    from rarealert.student.examples import (
        make_lessons,
        read_labelled,
        read_targets,
        subset,
        with_targets,
    )
    from rarealert.student.tasks import Classroom, open_desk
    from rarealert.visits.store import read_cases

    files, tuning = input_files(paths), params.tune
    every = read_labelled(read_cases(files["train"]))
    targets = read_targets(files["risk"], "train")
    answered = with_targets(every, targets)
    train = subset(answered, tuning.train_cases, tuning.seed)
    valid = subset(read_labelled(read_cases(files["valid"])), tuning.valid_cases, tuning.seed)
    desk = open_desk(params.distil)
    lessons = make_lessons(train, targets, desk.encoder)
    judged = make_lessons(valid, read_targets(files["risk"], "valid"), desk.encoder)
    read_knowledge(desk, params.distil, files["held_out"])
    room = Classroom(desk, lessons, judged, folder, params.distil.batch_size)
    return room, desk.base.digest, len(every) - len(answered)


def read_knowledge(desk: "Desk", chosen: DistilParams, held_out: Path) -> None:
    """Give the desk's trunk what examples of knowledge say of findings, and profiles to look up.

    As far as either is asked for.

    Raises:
        BadInputError: what names the diseases that are judged is missing or damaged.
    """
    from rarealert.student.finding_risk import knowledge_of_findings, read_barred
    from rarealert.student.profile_match import ProfileMatch, packaged_library

    if chosen.knowledge_cases:
        known = knowledge_of_findings(desk, chosen, read_barred(held_out))
        desk.trunk.finding_risk = known
    if chosen.profile_match:
        desk.trunk.profile_match = ProfileMatch(packaged_library())


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
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    held = any(trial.system_attrs.get("fixed_params") == DEFAULTS for trial in waiting)
    if not (held or _finished(study)):  # a kill during the first trial takes its place in the queue
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

    from rarealert.student.training import DivergedError, Schedule, best_epoch, train

    trial = study.ask()
    settings = _suggest(trial, params.distil.lora_layers)
    epochs: list[Epoch] = []

    def on_epoch(epoch: "Epoch") -> None:
        epochs.append(epoch)
        if not 0 < epoch.epoch < params.tune.epochs:  # the start says nothing of how it learns
            return
        trial.report(epoch.valid_loss, epoch.epoch)
        if trial.should_prune():
            raise TrialPruned

    schedule = Schedule(params.tune.epochs, params.distil.batch_size, params.tune.seed)
    state = TrialState.COMPLETE
    with room.network(settings, params.tune.seed) as network:
        try:
            task = room.risk_task(network, settings)
            train(task, settings.learning_rate, schedule, on_epoch=on_epoch)
            found = room.errors(network, settings, schedule.seed)
            epochs += correct(room, network, settings, found, schedule)[1:]
        except (TrialPruned, DivergedError):
            state = TrialState.PRUNED
    best = best_epoch(epochs[1:] or epochs)  # the head alone says nothing of what is tuned here
    trial.set_user_attr("valid_auroc", best.figures["valid_auroc"])
    value = best.valid_loss if state == TrialState.COMPLETE else None
    study.tell(trial, value, state=state)
    return Child(f"trial-{trial.number}", (Parameters(asdict(settings)), *curves("risk", epochs)))


def correct(
    room: "Classroom",
    network: "Network",
    settings: "Settings",
    found: "Round",
    schedule: "Schedule",
    checkpoint: Path | None = None,
    digest: str = "",
) -> "list[Epoch]":
    """The second round of the risk: its epochs, 0 being the end of the first; none without errors.

    ``found`` is what ``network`` judges wrongly now; it keeps the round only where it lowers the
    validation loss.
    """
    from rarealert.student.examples import digest_of
    from rarealert.student.training import train

    if not (found.wrong and schedule.epochs):
        return []
    task = room.risk_task(network, settings, found.learnt)
    named = digest_of(digest, found.learnt)
    return train(task, settings.learning_rate, schedule, checkpoint, named)


def _suggest(trial: Any, lora_layers: int) -> "Settings":
    from rarealert.student.network import Settings

    return Settings(
        learning_rate=trial.suggest_float("learning_rate", 2e-4, 4e-3, log=True),
        rank=trial.suggest_categorical("rank", [4, 8, 16]),
        alpha_ratio=trial.suggest_categorical("alpha_ratio", [1.0, 2.0, 4.0]),
        soft_weight=trial.suggest_float("soft_weight", 0.5, 1.0),
        finding_share=trial.suggest_float("finding_share", 0.0, 0.8),
        adapted_layers=trial.suggest_int("adapted_layers", 1, lora_layers),
        modules=trial.suggest_categorical("modules", ["attention", "all"]),
        tau=trial.suggest_float("tau", 0.2, 0.6),
        replay_share=trial.suggest_float("replay_share", 0.2, 0.8),
    )


def curves(task: str, epochs: "Sequence[Epoch]") -> Iterator[Metric]:
    """The course of a training as metrics by epoch: ``<task>_loss``, ``<task>_valid_loss``, …."""
    for epoch in epochs:
        if epoch.loss is not None:
            yield Metric(f"{task}_loss", epoch.loss, epoch.epoch)
        yield Metric(f"{task}_valid_loss", epoch.valid_loss, epoch.epoch)
        for name, value in epoch.figures.items():
            yield Metric(name, value, epoch.epoch)


def _write_best(file: Path, best: Any, trials: int) -> None:
    said = {
        "settings": best.params,
        "trial": best.number,
        "trials": trials,
        "valid_auroc": best.user_attrs["valid_auroc"],
        "valid_log_loss": best.value,
    }
    write_json(file, said)


def main() -> None:
    """Run the stage in the current workspace."""
    run_stage("tune", tune)
