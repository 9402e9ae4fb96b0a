"""Where to read the risk: a fitted head on pooled states, or the probability of an answer's token.

`nice python benchmarks/readout.py` in a workspace whose `split` and `align` have run. Every row
learns from the same training cases and targets, with LoRA of one rank for `distil.epochs` passes,
and is judged on the validation part; the test part is not read. Rows that are done are kept in
``--out`` and not done again. The head does without what words learn from profiles, which a token's
probability has no place for.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from machine import Rows, spent
from torch import Tensor

from rarealert.params import DistilParams, load_params
from rarealert.paths import Paths
from rarealert.student.activations import Activations, freeze_prompts
from rarealert.student.data import read_training_data, subset
from rarealert.student.examples import ExampleSet, make_examples
from rarealert.student.network import Settings, Trunk, add_adapter, remove_adapter
from rarealert.student.settings_search import DEFAULTS
from rarealert.student.tasks import RiskTask, logits_of
from rarealert.student.trainer import Trainer, TrainingBase, load_training_base
from rarealert.student.training import Schedule, train

QUESTION = "\nRisk of a rare disease, yes or no? Answer:"
ANSWERS = (" yes", " no")
SETTINGS = replace(Settings(**DEFAULTS), finding_share=0.0)
HEAD = "head on pooled states, layer {}, {}"
WORD = "token probability, layer {}, {}"


class AnswerHead(torch.nn.Module):
    """Log-odds of one answer's token against the other's, from the last token's state."""

    def __init__(self, trunk: Trunk, answers: tuple[int, int]) -> None:
        super().__init__()
        self._trunk = (trunk,)  # in a tuple, so that its weights are not the head's
        self._answers = list(answers)

    def forward(self, features: Tensor) -> Tensor:
        """Logits ``(batch,)`` of the features that a student's head reads."""
        trunk = self._trunk[0]
        last = features[:, trunk.word_width :]
        if trunk.risk_layer < trunk.depth:  # run() norms what comes out at the top
            last = trunk.decoder.norm(last)
        rows = trunk.model.lm_head.weight[self._answers]
        return torch.as_tensor(last @ (rows[0] - rows[1]))


def lessons(
    desk: TrainingBase, paths: Paths, most: int, seed: int
) -> tuple[ExampleSet, ExampleSet]:
    """At most ``most`` training cases and the validation part as the desk's encoder tells them."""
    data = read_training_data(paths)
    learn = make_examples(subset(data.train, most, seed), data.targets, desk.encoder)
    return learn, make_examples(data.valid, data.targets, desk.encoder)


def head_rows(rows: Rows, chosen: DistilParams, paths: Paths, most: int) -> None:
    """The student's own readout, before and after training."""
    desk = load_training_base(chosen)
    layer = desk.trunk.risk_layer
    names = [HEAD.format(layer, told) for told in ("fitted on frozen states", "and LoRA")]
    if not rows.missing(names):
        return
    learn, judge = lessons(desk, paths, most, chosen.seed)
    with tempfile.TemporaryDirectory() as folder:
        room = Trainer(desk, learn, judge, Path(folder), chosen.batch_size)
        with room.network(SETTINGS, chosen.seed) as network:
            rows.add(names[0], judge, logits_of(network, room.valid))
            schedule = Schedule(chosen.epochs, chosen.batch_size, chosen.seed)
            work = lambda: train(  # noqa: E731
                room.risk_task(network, SETTINGS), SETTINGS.learning_rate, schedule
            )
            cost = spent(work)
            rows.add(names[1], judge, logits_of(network, room.valid), cost)


def token_rows(
    rows: Rows, chosen: DistilParams, paths: Paths, most: int, layer: int | None, block: int
) -> None:
    """Answers' tokens read at ``layer`` (None: the top), LoRA in ``block`` layers below it."""
    desk = load_training_base(chosen)
    trunk, encoder = desk.trunk, desk.encoder
    trunk.risk_layer = layer or trunk.depth
    trunk.block_start = trunk.risk_layer - block
    trunk.readout = "last"
    told = ("zero-shot", f"LoRA in {block} layer{'s' * (block > 1)}")
    names = [WORD.format(trunk.risk_layer, item) for item in told]
    if not rows.missing(names):
        return
    tail = encoder.tokens(QUESTION)
    encoder._room += len(encoder._tail) - len(tail)
    encoder._tail = tail
    yes, no = (encoder.tokens(answer)[0] for answer in ANSWERS)
    learn, judge = lessons(desk, paths, most, chosen.seed)

    def freeze(part: ExampleSet, file: Path) -> Activations:
        return freeze_prompts(trunk, part.examples, file, chosen.batch_size)

    with tempfile.TemporaryDirectory() as folder:
        held = freeze(judge, Path(folder) / "valid")
        settings = replace(SETTINGS, adapted_layers=block)
        head: Any = AnswerHead(trunk, (yes, no))
        network = add_adapter(trunk, head, settings, desk.rationale, chosen.seed)
        if rows.missing(names[:1]):
            rows.add(names[0], judge, logits_of(network, held))  # a fresh LoRA changes nothing
        task = RiskTask(network, freeze(learn, Path(folder) / "train"), held, settings.soft_weight)
        schedule = Schedule(chosen.epochs, chosen.batch_size, chosen.seed)
        cost = spent(lambda: train(task, settings.learning_rate, schedule))
        rows.add(names[1], judge, logits_of(network, held), cost)
        remove_adapter(network)


def main() -> None:
    """Fill the missing rows and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10**9, help="training cases, at most")
    parser.add_argument("--out", type=Path, default=Path("build/readout.jsonl"))
    asked = parser.parse_args()
    params, paths = load_params(Path("params.yaml")), Paths.here()
    rows, chosen = Rows(asked.out), params.distil
    head_rows(rows, chosen, paths, asked.cases)
    for layer, block in ((chosen.risk_layer, 1), (None, 1), (None, chosen.rationale_layers)):
        token_rows(rows, chosen, paths, asked.cases, layer, block)
    reference = HEAD.format(chosen.risk_layer, "and LoRA")
    print(rows.table("readout", reference))


if __name__ == "__main__":
    main()
