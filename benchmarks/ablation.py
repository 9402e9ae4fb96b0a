"""What helps the student and what does not, on the validation part of a workspace.

`nice python benchmarks/ablation.py` in a workspace whose `split` and `align` have run. It trains
one variant after the other with the settings that `tune` starts from, and prints AUROC on
validation with 95 % intervals over whole diseases, and the paired difference from the default. The
test part is not read. Variants of one depth share their frozen states, one training tells what each
of its rounds adds, and what is done is kept in ``--out``, so a run that was killed goes on. On
other cases: run it in their workspace.
"""

import argparse
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from machine import Rows, now, since

from rarealert.params import DistilParams, load_params
from rarealert.paths import Paths
from rarealert.simulation.corpus import knowledge_cases
from rarealert.student.activations import freeze_prompts
from rarealert.student.data import read_labelled, read_training_data, subset
from rarealert.student.examples import make_examples
from rarealert.student.network import Network, Settings
from rarealert.student.rounds import train_correction
from rarealert.student.settings_search import DEFAULTS
from rarealert.student.tasks import RiskTask, logits_of
from rarealert.student.trainer import Trainer, TrainingBase, add_knowledge, load_training_base
from rarealert.student.training import Schedule, train

REFERENCE = "default"
SIMULATED = 300  # cases of the row that learns simulated ones first; each runs the trunk once


@dataclass(frozen=True)
class Variant:
    """What differs from the default, in ``distil`` and in the settings."""

    name: str
    changes: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    simulated: bool = False


VARIANTS = (
    Variant(REFERENCE),
    Variant("without knowledge of findings", {}, {"finding_share": 0.0}),
    Variant("without matching profiles", {"profile_match": False}),
    Variant("neither", {"profile_match": False}, {"finding_share": 0.0}),
    Variant("labels alone (soft weight 0)", {}, {"soft_weight": 0.0}),
    Variant("aligned risks alone (soft weight 1)", {}, {"soft_weight": 1.0}),
    Variant(f"a pass over {SIMULATED} simulated cases first", simulated=True),
    Variant("rank 4", {}, {"rank": 4}),
    Variant("rank 16", {}, {"rank": 16}),
    Variant("risk at layer 8", {"risk_layer": 8}),
    Variant("risk at layer 4", {"risk_layer": 4}),
    Variant("LoRA in two layers", {"lora_layers": 2}, {"adapted_layers": 2}),
    Variant("risk at layer 16", {"risk_layer": 16}),
    Variant("knowledge of 6,000 examples", {"knowledge_cases": 6000}),
)
MATCH_ALONE = "matching profiles alone, nothing learnt"
STEPS = ("head alone, no training", "without the second round")  # what the default was before


def states_of(variant: Variant) -> tuple[tuple[str, Any], ...]:
    """The changes that frozen states depend on: variants alike in them share their states."""
    kept = ("knowledge_cases", "lora_layers", "profile_match", "risk_layer")
    return tuple((name, variant.changes[name]) for name in kept if name in variant.changes)


@contextmanager
def trained_on(
    chosen: DistilParams, paths: Paths, most: int
) -> Iterator[tuple[TrainingBase, Trainer]]:
    """Both parts run through the frozen trunk."""
    data, desk = read_training_data(paths), load_training_base(chosen)
    learn, judge = (
        make_examples(subset(part, most, chosen.seed), data.targets, desk.encoder)
        for part in (data.train, data.valid)
    )
    add_knowledge(desk, chosen, data.held_out)
    with tempfile.TemporaryDirectory() as folder:
        yield desk, Trainer(desk, learn, judge, Path(folder), chosen.batch_size)


def teach(
    variant: Variant, chosen: DistilParams, desk: TrainingBase, room: Trainer, network: Network
) -> Iterator[None]:
    """Both rounds of the risk; stops before each."""
    settings = settings_of(variant)
    schedule = Schedule(chosen.epochs, chosen.batch_size, chosen.seed)
    yield
    if variant.simulated:
        learn_simulated(chosen, desk, room, network, settings)
    train(room.risk_task(network, settings), settings.learning_rate, schedule)
    yield
    found = room.wrong_cases(network, settings, chosen.seed)
    again = Schedule(chosen.correction_epochs, chosen.batch_size, chosen.seed + 1)
    train_correction(room, network, settings, found, again)


def learn_simulated(
    chosen: DistilParams, desk: TrainingBase, room: Trainer, network: Network, settings: Settings
) -> None:
    """One pass over simulated cases of diseases that nobody judges, by their labels."""
    barred = read_training_data(Paths.here()).held_out
    cases = list(knowledge_cases(SIMULATED, barred, chosen.seed))
    sure = {item.case.case_id: float(item.label.label == "rare") for item in cases}
    examples = make_examples(read_labelled(cases), sure, desk.encoder).examples
    size = chosen.batch_size
    with tempfile.TemporaryDirectory() as folder:
        more = freeze_prompts(desk.trunk, examples, Path(folder) / "simulated", size)
        task = RiskTask(network, more, room.valid, settings.soft_weight)
        train(task, settings.learning_rate, Schedule(1, size, chosen.seed))


def settings_of(variant: Variant) -> Settings:
    """The study's first trial with what the variant changes."""
    return replace(Settings(**DEFAULTS), **variant.settings)


def run(
    variants: Sequence[Variant], rows: Rows, distil: DistilParams, paths: Paths, most: int
) -> None:
    """Train ``variants``, which share their states."""
    chosen = distil.model_copy(update=dict(states_of(variants[0])))
    with trained_on(chosen, paths, most) as (desk, room):
        if variants[0].name == REFERENCE:
            rows.add(MATCH_ALONE, room.valid_examples, room.valid.words[:, -1].astype(float))
        for variant in variants:
            begun = now()
            with room.network(settings_of(variant), chosen.seed) as network:
                names = iter(STEPS if variant.name == REFERENCE else ())
                for _ in teach(variant, chosen, desk, room, network):
                    for name in itertools.islice(names, 1):
                        rows.add(name, room.valid_examples, logits_of(network, room.valid))
                logits = logits_of(network, room.valid)
                rows.add(variant.name, room.valid_examples, logits, since(begun))


def main() -> None:
    """Train all variants that are not done and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10**9, help="cases of each part, at most")
    parser.add_argument("--only", nargs="*", help="words; variants that hold one, and the default")
    parser.add_argument("--out", type=Path, default=Path("build/ablation.jsonl"))
    asked = parser.parse_args()
    params, rows = load_params(Path("params.yaml")), Rows(asked.out)
    wanted = [
        item
        for item in VARIANTS
        if item.name == REFERENCE or not asked.only or any(word in item.name for word in asked.only)
    ]
    missing = [item for item in wanted if rows.missing([item.name])]
    for _, alike in itertools.groupby(missing, key=states_of):
        run(list(alike), rows, params.distil, Paths.here(), asked.cases)
    print(rows.table("variant", REFERENCE))


if __name__ == "__main__":
    main()
