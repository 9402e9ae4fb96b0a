"""The two training rounds: foundation, then correction of the cases that were judged wrongly.

The risk goes through both before a rationale is learnt, because rationales are learnt on the states
of the trained risk block. Each round starts from the end of the one before and is kept as far as it
lowers the validation loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rarealert.params import DistilParams
from rarealert.student.activations import Example
from rarealert.student.data import LabelledReading
from rarealert.student.encoding import Encoder
from rarealert.student.examples import (
    CorrectionCases,
    Reasons,
    correction_examples,
    digest_of,
)
from rarealert.student.network import Network, Settings
from rarealert.student.trainer import Trainer
from rarealert.student.training import Epoch, Schedule, best_epoch, train

FOUNDATION, CORRECTION = "foundation", "correction"


@dataclass(frozen=True)
class Rounds:
    """``histories`` by round and task; ``counts`` of the cases of the correction round."""

    histories: dict[str, dict[str, list[Epoch]]]
    counts: dict[str, int]

    def by_task(self) -> dict[str, list[Epoch]]:
        """Histories by task, those of the correction round as ``<task>_correction``."""
        return {
            task if name == FOUNDATION else f"{task}_{name}": history
            for name, tasks in self.histories.items()
            for task, history in tasks.items()
        }

    def gains(self) -> dict[str, dict[str, float]]:
        """By round: fall of the validation loss and rise of the AUROC, to the epoch kept."""
        found: dict[str, dict[str, float]] = {}
        for name, tasks in self.histories.items():
            found[name] = {}
            for task, history in tasks.items():
                best = best_epoch(history)
                found[name][f"{task}_loss_gain"] = history[0].valid_loss - best.valid_loss
                for figure, value in best.figures.items():
                    start = history[0].figures[figure]
                    found[name][f"{task}_{figure.removeprefix('valid_')}_gain"] = value - start
        return found


@dataclass(frozen=True)
class RoundTraining:
    """Everything that both rounds need; checkpoints are in ``work`` and carry ``digest``.

    ``cases`` are those of the trainer's training part, with the ``reasons`` of their teachers.
    """

    chosen: DistilParams
    settings: Settings
    trainer: Trainer
    network: Network
    cases: Sequence[LabelledReading]
    reasons: Reasons
    encoder: Encoder
    work: Path
    digest: str

    def run(self) -> Rounds:
        """Train both tasks through both rounds.

        A round has no history of a task where there is nothing to learn: no rationale in a part,
        or no case that was judged wrongly.
        """
        risk, found, risk_correction = self._train_risk()
        examples = correction_examples(
            self.cases,
            self.trainer.train_examples,
            found,
            self.reasons,
            self.encoder,
            self.chosen.max_rationale_tokens,
            self.chosen.correction_rationales,
        )
        rationale, rationale_correction = self._train_rationales(examples)
        histories = {
            FOUNDATION: {"risk": risk, "rationale": rationale},
            CORRECTION: {"risk": risk_correction, "rationale": rationale_correction},
        }
        learnt = {
            name: {task: history for task, history in tasks.items() if history}
            for name, tasks in histories.items()
        }
        counts = {
            "judged_wrongly": len(found.wrong),
            "replayed": len(found.replayed),
            "rationales_told_again": len(examples),
        }
        return Rounds({name: tasks for name, tasks in learnt.items() if tasks}, counts)

    def _train_risk(self) -> tuple[list[Epoch], CorrectionCases, list[Epoch]]:
        chosen, settings = self.chosen, self.settings
        schedule = Schedule(chosen.epochs, chosen.batch_size, chosen.seed)
        task = self.trainer.risk_task(self.network, settings)
        file = self.work / "risk.safetensors"
        first = train(task, settings.learning_rate, schedule, file, self.digest)
        found = self.trainer.wrong_cases(self.network, settings, chosen.seed)
        schedule = Schedule(chosen.correction_epochs, chosen.batch_size, chosen.seed + 1)
        file = self.work / "risk-correction.safetensors"
        second = train_correction(
            self.trainer, self.network, settings, found, schedule, file, self.digest
        )
        return first, found, second

    def _train_rationales(self, corrected: Sequence[Example]) -> tuple[list[Epoch], list[Epoch]]:
        if not self.trainer.has_rationales:
            return [], []
        chosen = self.chosen
        rate, size = chosen.rationale_learning_rate, chosen.rationale_batch_size
        schedule = Schedule(chosen.rationale_epochs, size, chosen.seed)
        task = self.trainer.rationale_task(self.network)
        first = train(task, rate, schedule, self.work / "rationale.safetensors", self.digest)
        if not (corrected and chosen.correction_epochs):
            return first, []
        schedule = Schedule(chosen.correction_epochs, size, chosen.seed + 1)
        task = self.trainer.rationale_task(self.network, corrected, task.valid)
        file = self.work / "rationale-correction.safetensors"
        return first, train(task, rate, schedule, file, self.digest)


def train_correction(
    trainer: Trainer,
    network: Network,
    settings: Settings,
    found: CorrectionCases,
    schedule: Schedule,
    checkpoint: Path | None = None,
    digest: str = "",
) -> list[Epoch]:
    """The correction round of the risk: its epochs, 0 being the end of the foundation.

    ``found`` are the cases that ``network`` judges wrongly now; without any, nothing is trained.
    """
    if not (found.wrong and schedule.epochs):
        return []
    task = trainer.risk_task(network, settings, found.all)
    return train(task, settings.learning_rate, schedule, checkpoint, digest_of(digest, found.all))
