"""Training, against peft with transformers' Trainer at its defaults, on the same layers and data.

    python benchmarks/train.py                        # the risk alone, after `make repro`
    python benchmarks/train.py --whole --cases 96     # risk and rationales; the rival takes minutes

All train LoRA of one rank in the same layers for the Trainer's default three passes. The rival is

- for the risk alone, a trunk that is cut where we read the risk, with our readout and targets: a
  user would have to know that, and to write it;
- with ``--whole``, what peft's users do: the whole causal model, which learns to answer " yes" or
  " no" and then the rationale where the training part tells one, all else masked.

The Trainer's defaults judge nothing between passes, so ours are measured without validation too.
"""

import argparse
import statistics
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from machine import Spent, gemm_peak, linear_weights, now, since, spent, table, visits
from rivals import Cut, Whole, risks_of, trainer_of
from sklearn.metrics import roc_auc_score

from rarealert.params import Params, load_params
from rarealert.stages.distil import read_reasons
from rarealert.student.activations import freeze_prompts
from rarealert.student.data import read_labelled, read_targets
from rarealert.student.examples import ExampleSet, choose_rationales, make_examples
from rarealert.student.network import Settings
from rarealert.student.settings_search import DEFAULTS
from rarealert.student.tasks import logits_of
from rarealert.student.trainer import Trainer, load_training_base
from rarealert.student.training import Schedule, train

EPOCHS = 3  # the Trainer's default
TOLD_SHARE = 96 / 550  # of cases whose rationale is learnt, as in the default run


@dataclass(frozen=True)
class Run:
    """What a training took, and the AUROC it reached on the validation part."""

    cost: Spent
    auroc: float


@dataclass(frozen=True)
class Bench:
    """Both parts, and what is trained on them."""

    params: Params
    settings: Settings
    learn: ExampleSet
    judge: ExampleSet
    whole: bool

    def ours(self, epochs: int = EPOCHS, *, judged: bool = False) -> Run:
        """Frozen states, the head's start, ``epochs`` passes; ``judged`` by all after each."""
        chosen = self.params.distil
        desk = load_training_base(chosen)
        judge = self.judge if judged else _least(self.judge)
        with tempfile.TemporaryDirectory() as folder:
            begun = now()
            room = Trainer(desk, self.learn, judge, Path(folder), chosen.batch_size)
            with room.network(self.settings, chosen.seed) as network:
                schedule = Schedule(epochs, chosen.batch_size, chosen.seed)
                train(room.risk_task(network, self.settings), self.settings.learning_rate, schedule)
                if self.whole and epochs:
                    told = replace(schedule, batch_size=chosen.rationale_batch_size)
                    train(room.rationale_task(network), chosen.rationale_learning_rate, told)
                cost = since(begun)
                file = Path(folder) / "all"
                held = freeze_prompts(desk.trunk, self.judge.examples, file, 32)
                return Run(cost, roc_auc_score(self.judge.rare, logits_of(network, held)))

    def theirs(self) -> Run:
        """The Trainer's own time, without loading and without judging."""
        desk = load_training_base(self.params.distil)
        rival = (Whole if self.whole else Cut)(desk, self.settings)
        with tempfile.TemporaryDirectory() as folder:
            trainer = trainer_of(rival, self.learn.examples, folder)
            cost = spent(trainer.train)
        return Run(cost, roc_auc_score(self.judge.rare, risks_of(rival, self.judge.examples)))

    def operations(self) -> float:
        """Floating-point operations of our risk's matrix products, without validation."""
        trunk = load_training_base(self.params.distil).trunk
        tokens = sum(len(item.prompt.ids) for item in self.learn.examples)
        block = trunk.risk_layer - trunk.block_start
        # once through all, then forward and back through what learns
        passes = trunk.risk_layer + 2 * EPOCHS * block
        return tokens * 2 * linear_weights(trunk.decoder.layers[0]) * passes


def main() -> None:
    """Measure all in turn and print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--workspace", type=Path, default=Path())
    options.add_argument("--cases", type=int, default=160)
    options.add_argument("--valid", type=int, default=200)
    options.add_argument("--repeats", type=int, default=1)
    options.add_argument("--whole", action="store_true", help="risk and rationales")
    chosen = options.parse_args()
    bench = read(chosen.workspace, chosen.cases, chosen.valid, chosen.whole)
    runs: dict[str, list[Run]] = {}
    for _ in range(chosen.repeats):
        runs.setdefault("this repository", []).append(bench.ours())
        runs.setdefault("peft + Trainer", []).append(bench.theirs())
        runs.setdefault("this repository, validation after each pass", []).append(
            bench.ours(judged=True)
        )
        runs.setdefault("this repository, no pass (head fitted on frozen states)", []).append(
            bench.ours(0)
        )
    report(bench, {name: middle(of) for name, of in runs.items()})


def read(workspace: Path, cases: int, valid: int, whole: bool) -> Bench:
    """Both parts as examples, with rationales where all is learnt."""
    params = load_params(workspace / "params.yaml")
    risks, encoder = (
        workspace / "build" / "align" / "risk.parquet",
        load_training_base(params.distil).encoder,
    )
    answers = workspace / "build" / "rationales" / "answers.parquet"
    leanings = read_reasons(answers) if whole else {}

    def lessons(part: str, count: int) -> ExampleSet:
        of_part = read_labelled(visits(workspace, part, count))
        targets = read_targets(risks, part)
        told = max(1, round(len(of_part) * TOLD_SHARE)) if whole else 0
        texts = choose_rationales(of_part, targets, leanings, told, 0) if told else {}
        limit = params.distil.max_rationale_tokens
        return make_examples(of_part, targets, encoder, texts, limit)

    learn, judge = lessons("train", cases), lessons("valid", valid)
    # what words learn from profiles is no part of the comparison
    return Bench(params, replace(Settings(**DEFAULTS), finding_share=0.0), learn, judge, whole)


def middle(runs: list[Run]) -> Run:
    """The median of each clock; the AUROC is the same each time."""
    cost = Spent(
        statistics.median(run.cost.wall for run in runs),
        statistics.median(run.cost.cpu for run in runs),
    )
    return Run(cost, runs[0].auroc)


def _least(judge: ExampleSet) -> ExampleSet:
    """A case of each label, and one with a rationale: the least that training asks for."""
    wanted = [judge.rare, ~judge.rare, [bool(item.rationale) for item in judge.examples]]
    kept = sorted({list(which).index(True) for which in wanted if any(which)})
    return replace(
        judge,
        examples=tuple(judge.examples[index] for index in kept),
        groups=tuple(judge.groups[index] for index in kept),
    )


def report(bench: Bench, runs: dict[str, Run]) -> None:
    """Print the table and the ratios."""
    seen = EPOCHS * len(bench.learn.examples)
    rows = [
        [
            name,
            f"{seen / run.cost.wall:.1f}",
            f"{seen / run.cost.cpu:.1f}",
            f"{run.auroc:.3f}",
            f"{run.cost.wall:.0f}",
            f"{run.cost.cpu:.0f}",
        ]
        for name, run in runs.items()
    ]
    ours, theirs = runs["this repository"].cost, runs["peft + Trainer"].cost
    told = len(bench.learn.with_rationale)
    print(
        f"{len(bench.learn.examples)} training cases, {told} with a rationale, "
        f"{EPOCHS} passes; AUROC of {len(bench.judge.examples)} validation cases; "
        f"{torch.get_num_threads()} threads."
    )
    heading = ["training", "cases/s", "cases/CPU s", "validation AUROC", "wall s", "CPU s"]
    print(table(heading, rows))
    print(
        f"Ratio {theirs.wall / ours.wall:.2f} by the clock, {theirs.cpu / ours.cpu:.2f} by "
        "processor seconds (aim 3)."
    )
    if not bench.whole:
        peak = gemm_peak()
        print(
            f"GEMM peak {peak / 1e9:.0f} GFLOP/s; this repository's training runs its matrix "
            f"products at {bench.operations() / ours.wall / peak:.0%} of it."
        )


if __name__ == "__main__":
    main()
