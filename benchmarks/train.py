"""Training the risk, against peft with transformers' Trainer at its defaults.

    python benchmarks/train.py            # after `make repro`; for two minutes on two quiet cores

Both learn the same LoRA layers, readout, targets and cases for the Trainer's default three passes.
The rival is given our depth too: its trunk ends at ``distil.risk_layer``.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from machine import Spent, gemm_peak, in_turn, linear_weights, table, visits
from sklearn.metrics import roc_auc_score
from torch.nn import functional

from rarealert.language.base import quiet
from rarealert.params import Params, load_params
from rarealert.stages.tune import DEFAULTS
from rarealert.student.adapter import Settings
from rarealert.student.classroom import Classroom, Desk, open_desk
from rarealert.student.lessons import Lessons, make_lessons, read_targets
from rarealert.student.network import pad_right, pool
from rarealert.student.tasks import logits_of
from rarealert.student.training import Schedule, train

EPOCHS = 3  # the Trainer's default
SETTINGS = Settings(**DEFAULTS)  # the study's first trial
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Rival(torch.nn.Module):
    """A truncated trunk with peft's LoRA, mean pooling and a linear head, as a user writes it."""

    def __init__(self, desk: Desk, layers: range) -> None:
        from peft import LoraConfig, get_peft_model

        super().__init__()
        config = LoraConfig(
            r=SETTINGS.rank,
            lora_alpha=SETTINGS.rank * SETTINGS.alpha_ratio,
            target_modules=list(TARGETS),
            layers_to_transform=list(layers),
        )
        model: Any = desk.base.model
        model.model.layers = model.model.layers[: desk.trunk.risk_layer]
        model.config.num_hidden_layers = desk.trunk.risk_layer
        with quiet():
            self.adapted = get_peft_model(model, config)
        self.head = torch.nn.Linear(2 * model.config.hidden_size, 1)
        self.trunk = model.model
        self.embedding = model.model.embed_tokens

    def forward(self, input_ids: Any, attention_mask: Any, labels: Any = None) -> dict[str, Any]:
        """Logits, and the loss where there are labels."""
        states = self.trunk(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        lengths = attention_mask.sum(1)
        words = pool(self.embedding(input_ids), lengths)
        features = torch.cat([words, pool(states.last_hidden_state, lengths)], dim=1)
        logits = self.head(features).squeeze(-1)
        if labels is None:
            return {"logits": logits}
        return {"loss": functional.binary_cross_entropy_with_logits(logits, labels)}


def collate(rows: list[dict[str, Any]], pad: int) -> dict[str, Any]:
    """Rows padded to the longest, as the default collator pads."""
    ids, lengths = pad_right([row["ids"] for row in rows], pad)
    mask = (torch.arange(ids.shape[1])[None, :] < lengths[:, None]).long()
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": torch.tensor([r["y"] for r in rows]),
    }


def trainer_run(desk: Desk, learn: Lessons, judge: Lessons, folder: str) -> Any:
    """A Trainer at its defaults on a rival, and a function that gives its validation AUROC."""
    from transformers import Trainer, TrainingArguments

    pad = int(desk.base.tokenizer.pad_token_id)
    rival = Rival(desk, range(desk.trunk.block_start, desk.trunk.risk_layer))
    weight = SETTINGS.soft_weight
    rows = [
        {"ids": item.prompt, "y": weight * item.target + (1 - weight) * item.rare}
        for item in learn.examples
    ]
    arguments = TrainingArguments(
        output_dir=folder, report_to="none", save_strategy="no", use_cpu=True, disable_tqdm=True,
        logging_strategy="no", remove_unused_columns=False, dataloader_pin_memory=False,
    )  # fmt: skip
    with quiet():
        trainer = Trainer(
            rival, arguments, train_dataset=rows, data_collator=lambda part: collate(part, pad)
        )

    def auroc() -> float:
        rival.eval()
        held = [{"ids": item.prompt, "y": 0.0} for item in judge.examples]
        said: list[float] = []
        with torch.inference_mode():
            for start in range(0, len(held), 16):
                batch = collate(held[start : start + 16], pad)
                batch.pop("labels")
                said += rival(**batch)["logits"].tolist()
        return float(roc_auc_score(judge.rare, said))

    return trainer, auroc


def main() -> None:
    """Measure both and print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--workspace", type=Path, default=Path())
    options.add_argument("--cases", type=int, default=160)
    options.add_argument("--valid", type=int, default=80)
    options.add_argument("--repeats", type=int, default=1)
    chosen = options.parse_args()
    params = load_params(chosen.workspace / "params.yaml")
    aurocs: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = open_desk(params.distil), open_desk(params.distil)
        learn, judge = (
            make_lessons(cases, read_targets(_risks(chosen.workspace), part), ours.encoder)
            for part, cases in (
                ("train", visits(chosen.workspace, "train", chosen.cases)),
                ("valid", visits(chosen.workspace, "valid", chosen.valid)),
            )
        )
        trainer, rival_auroc = trainer_run(theirs, learn, judge, folder)
        taken = in_turn(
            {
                "this repository": lambda: aurocs.update(
                    ours=our_run(params, ours, learn, judge, Path(folder))
                ),
                "peft + Trainer": trainer.train,
            },
            chosen.repeats,
        )
        aurocs["theirs"] = rival_auroc()
    _print(taken, aurocs, ours, learn, judge)


def our_run(params: Params, desk: Desk, learn: Lessons, judge: Lessons, folder: Path) -> float:
    """Frozen states, the head's start and ``EPOCHS`` passes; the validation AUROC."""
    block = desk.trunk.risk_layer - desk.trunk.block_start
    settings = replace(SETTINGS, word_share=0.0, adapted_layers=block)
    room = Classroom(desk, learn, judge, folder, params.distil.batch_size)
    schedule = Schedule(EPOCHS, params.distil.batch_size, params.distil.seed)
    with room.network(settings, params.distil.seed) as network:
        train(room.risk_task(network, settings), settings.learning_rate, schedule)
        return float(roc_auc_score(judge.rare, logits_of(network, room.valid)))


def _risks(workspace: Path) -> Path:
    return workspace / "build" / "align" / "risk.parquet"


def _print(
    taken: dict[str, Spent], aurocs: dict[str, float], desk: Desk, learn: Lessons, judge: Lessons
) -> None:
    peak = gemm_peak()
    tokens = [sum(len(item.prompt) for item in part.examples) for part in (learn, judge)]
    trunk = desk.trunk
    a_pass = 2 * linear_weights(trunk.decoder.layers[0])
    block = trunk.risk_layer - trunk.block_start
    # once through the frozen part for both, three passes with gradients, four validations
    work = sum(tokens) * a_pass * trunk.risk_layer
    work += a_pass * block * (2 * EPOCHS * tokens[0] + (EPOCHS + 2) * tokens[1])
    seen = EPOCHS * len(learn.examples)
    rows = [
        [
            name,
            f"{seen / cost.wall:.1f}",
            f"{seen / cost.cpu:.1f}",
            f"{aurocs[key]:.3f}",
            f"{cost.wall:.0f}",
        ]
        for (name, cost), key in zip(taken.items(), ("ours", "theirs"), strict=True)
    ]
    ours, theirs = taken.values()
    print(
        f"{len(learn.examples)} training cases, {EPOCHS} passes, {len(judge.examples)} to judge "
        f"by; LoRA in {block} of {trunk.risk_layer} layers; {torch.get_num_threads()} threads."
    )
    heading = ["training", "cases/s", "cases/CPU s", "validation AUROC", "wall s"]
    print(table(heading, rows))
    print(
        f"Ratio {theirs.wall / ours.wall:.2f} by the clock, {theirs.cpu / ours.cpu:.2f} by "
        f"processor seconds (aim 3). GEMM peak {peak / 1e9:.0f} GFLOP/s; this repository's "
        f"training runs its matrix products at {work / ours.wall / peak:.0%} of it."
    )


if __name__ == "__main__":
    main()
