"""The study: its first trial survives kills, and pruning waits until a trial has learnt."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from rarealert.params import load_params
from rarealert.student import settings_search as module
from rarealert.student.examples import CorrectionCases
from rarealert.student.settings_search import DEFAULTS, SettingsSearch
from rarealert.student.training import Epoch

PARAMS = load_params(Path(__file__).parents[3] / "params.yaml")


class KilledError(Exception):
    """Stands for a kill."""


class Trainer:
    """A trainer without a network, in whose risk nothing is wrong; ``kill`` raises instead."""

    def __init__(self, kill: bool = False) -> None:
        self._kill = kill

    @contextlib.contextmanager
    def network(self, *_: object) -> Iterator[None]:
        if self._kill:
            raise KilledError
        yield None

    def risk_task(self, *_: object) -> None:
        return None

    def wrong_cases(self, *_: object) -> CorrectionCases:
        return CorrectionCases((), ())


def fake_training(monkeypatch: pytest.MonkeyPatch, losses: list[list[float]]) -> list[int]:
    """Let each trial have one of ``losses``, at its start and after each epoch; epochs run."""
    epochs_run: list[int] = []
    each = iter(losses)

    def train(_task, _rate, schedule, *_, on_epoch=None, **__) -> list[Epoch]:
        epochs_run.append(0)
        trial = next(each)
        history = [Epoch(0, None, trial[0], {"valid_auroc": 0.8})]
        on_epoch(history[0])
        for number in range(1, schedule.epochs + 1):
            epochs_run[-1] = number
            history.append(Epoch(number, 0.3, trial[number], {"valid_auroc": 0.9}))
            on_epoch(history[-1])
        return history

    monkeypatch.setattr(module, "train", train)
    return epochs_run


def tuned(epochs: int) -> SimpleNamespace:
    return SimpleNamespace(
        tune=PARAMS.tune.model_copy(update={"epochs": epochs}), distil=PARAMS.distil
    )


@pytest.mark.parametrize("kills", [1, 2])
def test_a_kill_in_the_first_trial_does_not_lose_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: int
) -> None:
    fake_training(monkeypatch, [[0.5, 0.4]] * 2)
    journal = tmp_path / "study.log"
    for _ in range(kills):
        SettingsSearch(journal, "one", 13)  # opened and killed before its first trial
        with pytest.raises(KilledError):
            SettingsSearch(journal, "one", 13).run_trial(Trainer(kill=True), tuned(1))
    study = SettingsSearch(journal, "one", 13)
    first, second = (study.run_trial(Trainer(), tuned(1)) for _ in range(2))
    assert vars(first.settings) == DEFAULTS
    assert vars(second.settings) != DEFAULTS
    assert study.finished == 2


@pytest.mark.parametrize(("epochs", "run", "best"), [(1, [1, 1, 1, 1], 3), (2, [2, 2, 1, 2], 3)])
def test_a_trial_is_pruned_between_epochs_and_never_before_it_learnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int, run: list[int], best: int
) -> None:
    # the losses at the start get worse and worse; the third trial lags behind after one epoch
    losses = [[0.40, 0.38, 0.37], [0.42, 0.39, 0.38], [0.45, 0.44, 0.1], [0.46, 0.30, 0.2]]
    epochs_run = fake_training(monkeypatch, losses)
    study = SettingsSearch(tmp_path / "study.log", "one", 13)
    for _ in range(4):
        study.run_trial(Trainer(), tuned(epochs))
    assert epochs_run == run
    assert study.finished == 4
    assert study.best()["trial"] == best
