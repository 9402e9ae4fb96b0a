"""The search for the best settings: a seeded TPE study (Bergstra et al. 2011) with a journal.

Its journal holds every trial. A study of the same data and settings continues where it stopped; one
of other data starts beside it. Median pruning stops a trial that lags behind after an epoch, except
the last.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rarealert.params import Params
from rarealert.student.network import Settings
from rarealert.student.rounds import train_correction
from rarealert.student.trainer import Trainer
from rarealert.student.training import DivergedError, Epoch, Schedule, best_epoch, train

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
"""The first trial of every study that completes; the others have to beat it."""


@dataclass(frozen=True)
class TrialResult:
    """One trial: its settings, and the epochs of both rounds of the risk."""

    number: int
    settings: Settings
    epochs: list[Epoch]


class SettingsSearch:
    """A study named ``name`` in ``journal``; trials that a kill left running are marked failed."""

    def __init__(self, journal: Path, name: str, seed: int) -> None:
        """Open the study, or start it with ``DEFAULTS`` as its first trial."""
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
        from optuna.trial import TrialState

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study: Any = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(journal))),
            study_name=name,
            direction="minimize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=0),
        )
        trials = self._study.get_trials(deepcopy=False)
        for trial in trials:
            if trial.state == TrialState.RUNNING:
                self._study.tell(trial.number, state=TrialState.FAIL)
        # a resumed study must not draw again what it drew before the kill
        sampler = optuna.samplers.TPESampler(seed=seed + len(trials), n_startup_trials=3)
        self._study.sampler = sampler
        queued = any(
            trial.state == TrialState.WAITING and trial.system_attrs.get("fixed_params") == DEFAULTS
            for trial in trials
        )
        if not (queued or self.finished):  # a killed first trial has left the queue
            self._study.enqueue_trial(DEFAULTS)

    @property
    def finished(self) -> int:
        """How many trials ended, completed or pruned."""
        from optuna.trial import TrialState

        return len(self._study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED)))

    @property
    def has_best(self) -> bool:
        """Whether a trial completed."""
        from optuna.trial import TrialState

        return bool(self._study.get_trials(states=(TrialState.COMPLETE,)))

    def best(self) -> dict[str, Any]:
        """The best completed trial: its settings and number, and its figures on validation."""
        trial = self._study.best_trial
        return {
            "settings": trial.params,
            "trial": trial.number,
            "trials": self.finished,
            "valid_auroc": trial.user_attrs["valid_auroc"],
            "valid_log_loss": trial.value,
        }

    def run_trial(self, trainer: Trainer, params: Params) -> TrialResult:
        """Train one candidate; one that diverges or lags behind is pruned."""
        from optuna import TrialPruned
        from optuna.trial import TrialState

        trial = self._study.ask()
        settings = suggest(trial, params.distil.lora_layers)
        epochs: list[Epoch] = []

        def on_epoch(epoch: Epoch) -> None:
            epochs.append(epoch)
            if not 0 < epoch.epoch < params.tune.epochs:  # the start does not show how it learns
                return
            trial.report(epoch.valid_loss, epoch.epoch)
            if trial.should_prune():
                raise TrialPruned

        schedule = Schedule(params.tune.epochs, params.distil.batch_size, params.tune.seed)
        state = TrialState.COMPLETE
        with trainer.network(settings, params.tune.seed) as network:
            try:
                task = trainer.risk_task(network, settings)
                train(task, settings.learning_rate, schedule, on_epoch=on_epoch)
                found = trainer.wrong_cases(network, settings, schedule.seed)
                epochs += train_correction(trainer, network, settings, found, schedule)[1:]
            except (TrialPruned, DivergedError):
                state = TrialState.PRUNED
        best = best_epoch(epochs[1:] or epochs)  # the fitted head does not depend on most settings
        trial.set_user_attr("valid_auroc", best.figures["valid_auroc"])
        value = best.valid_loss if state == TrialState.COMPLETE else None
        self._study.tell(trial, value, state=state)
        return TrialResult(trial.number, settings, epochs)


def suggest(trial: Any, lora_layers: int) -> Settings:
    """The settings that ``trial`` draws from the search space."""
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
