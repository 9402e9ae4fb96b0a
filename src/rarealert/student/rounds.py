"""The two rounds of distil: foundation, then correction of what was judged wrongly.

The risk goes through both before a rationale is learnt, because rationales are learnt on the states
of the trained risk block. Each round starts from the end of the one before and is kept as far as it
lowers the validation loss.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rarealert.params import DistilParams
from rarealert.stages.tune import correct, curves
from rarealert.tracking.items import Child, Metric

if TYPE_CHECKING:
    from rarealert.student.activations import Example
    from rarealert.student.examples import LabelledReading, Lessons, Round
    from rarealert.student.network import Network, Settings
    from rarealert.student.rationale import TeacherReasons
    from rarealert.student.tasks import Classroom, Desk
    from rarealert.student.training import Epoch

ROUNDS = ("foundation", "correction")


@dataclass(frozen=True)
class Material:
    """What both rounds learn from: the training cases, with what each teacher leaned on."""

    desk: "Desk"
    cases: "Sequence[LabelledReading]"
    lessons: "Lessons"
    leanings: "Mapping[str, Sequence[TeacherReasons]]"


@dataclass(frozen=True)
class Rounds:
    """``histories`` by round and task; ``counts`` of what the second round went through."""

    histories: "dict[str, dict[str, list[Epoch]]]"
    counts: dict[str, int]

    def by_task(self) -> "dict[str, list[Epoch]]":
        """Histories by task, those of the second round as ``<task>_correction``."""
        named = (
            (task if name == ROUNDS[0] else f"{task}_{name}", history)
            for name, tasks in self.histories.items()
            for task, history in tasks.items()
        )
        return dict(named)

    def gains(self) -> dict[str, dict[str, float]]:
        """By round: what the validation loss fell and the AUROC rose, to the epoch that is kept."""
        from rarealert.student.training import best_epoch

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

    def children(self) -> Iterator[Child]:
        """One nested run a round, with its curves and its gain on validation."""
        for name, gains in self.gains().items():
            metrics = [Metric(key, value) for key, value in gains.items()]
            if name == "correction":
                metrics += [Metric(key, value) for key, value in self.counts.items()]
            tasks = self.histories[name].items()
            lines = [metric for task, history in tasks for metric in curves(task, history)]
            yield Child(name, (*metrics, *lines))


@dataclass(frozen=True)
class Course:
    """What learns from what; checkpoints lie in ``work`` and carry ``digest``."""

    chosen: DistilParams
    settings: "Settings"
    room: "Classroom"
    network: "Network"
    material: Material
    work: Path
    digest: str

    def learn_risk(self) -> "tuple[list[Epoch], Round, list[Epoch]]":
        """The foundation's epochs, what was judged wrongly after them, the correction's epochs."""
        from rarealert.student.training import Schedule, train

        chosen = self.chosen
        schedule = Schedule(chosen.epochs, chosen.batch_size, chosen.seed)
        task = self.room.risk_task(self.network, self.settings)
        file = self.work / "risk.safetensors"
        first = train(task, self.settings.learning_rate, schedule, file, self.digest)
        found = self.room.errors(self.network, self.settings, chosen.seed)
        again = Schedule(chosen.correction_epochs, chosen.batch_size, chosen.seed + 1)
        file = self.work / "risk-correction.safetensors"
        second = correct(self.room, self.network, self.settings, found, again, file, self.digest)
        return first, found, second

    def learn_to_tell(self, chains: "Sequence[Example]") -> "tuple[list[Epoch], list[Epoch]]":
        """The epochs of the foundation's rationales, and of ``chains``, as far as there are any."""
        from rarealert.student.training import Schedule, train

        if not self.room.can_tell:
            return [], []
        chosen = self.chosen
        rate, size = chosen.rationale_learning_rate, chosen.rationale_batch_size
        schedule = Schedule(chosen.rationale_epochs, size, chosen.seed)
        task = self.room.rationale_task(self.network)
        first = train(task, rate, schedule, self.work / "rationale.safetensors", self.digest)
        if not (chains and chosen.correction_epochs):
            return first, []
        again = Schedule(chosen.correction_epochs, size, chosen.seed + 1)
        task = self.room.rationale_task(self.network, chains, task.judge)
        file = self.work / "rationale-correction.safetensors"
        return first, train(task, rate, again, file, self.digest)


def learn_rounds(course: Course) -> Rounds:
    """Both tasks through both rounds.

    A round has no history of a task where there is nothing to learn: no rationale in a part, or
    nothing that was judged wrongly.
    """
    from rarealert.student.examples import chains

    risk, found, risk_again = course.learn_risk()
    material, chosen = course.material, course.chosen
    told = chains(
        material.cases,
        material.lessons,
        found,
        material.leanings,
        material.desk.encoder,
        chosen.max_rationale_tokens,
        chosen.correction_rationales,
    )
    telling, telling_again = course.learn_to_tell(told)
    counts = {
        "judged_wrongly": len(found.wrong),
        "replayed": len(found.replayed),
        "rationales_told_again": len(told),
    }
    first = {"risk": risk, "rationale": telling}
    second = {"risk": risk_again, "rationale": telling_again}
    learnt = (
        (name, {task: history for task, history in tasks.items() if history})
        for name, tasks in zip(ROUNDS, (first, second), strict=True)
    )
    return Rounds({name: tasks for name, tasks in learnt if tasks}, counts)
