"""What peft's users write: LoRA on a causal model, and transformers' Trainer at its defaults."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

from rarealert.language.machine import quiet
from rarealert.student.activations import Example
from rarealert.student.network import Settings, pad_right, pool
from rarealert.student.trainer import TrainingBase

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ANSWERS = (" yes", " no")
IGNORED = -100  # what transformers' loss leaves out
BATCH = 16  # examples a pass where AUROC is measured

Collate = Callable[[list[dict[str, Any]]], dict[str, Any]]


class Cut(torch.nn.Module):
    """A trunk cut at our depth with peft's LoRA, mean pooling and a linear head."""

    def __init__(self, desk: TrainingBase, settings: Settings) -> None:
        super().__init__()
        model: Any = desk.base.model
        model.model.layers = model.model.layers[: desk.trunk.risk_layer]
        model.config.num_hidden_layers = desk.trunk.risk_layer
        layers = range(desk.trunk.block_start, desk.trunk.risk_layer)
        self.adapted = _with_lora(model, settings, list(layers))
        self.head = torch.nn.Linear(2 * model.config.hidden_size, 1)
        self.trunk = model.model
        self.embedding = model.model.embed_tokens
        self._share = settings.soft_weight

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

    def rows(self, examples: Sequence[Example]) -> list[dict[str, Any]]:
        """What the Trainer is given: our soft targets."""
        share = self._share
        return [
            {"ids": item.prompt.ids, "y": share * item.target + (1 - share) * item.rare}
            for item in examples
        ]

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Rows padded to the longest."""
        said = _padded([row["ids"] for row in rows])
        return said | {"labels": torch.tensor([row["y"] for row in rows])}

    def risks(self, batch: dict[str, Any], _last: Any) -> Any:
        """A logit a row."""
        return self(batch["input_ids"], batch["attention_mask"])["logits"]


class Whole(torch.nn.Module):
    """The whole causal model, its loss over the answer and the rationale that follow a visit."""

    def __init__(self, desk: TrainingBase, settings: Settings) -> None:
        super().__init__()
        trunk = desk.trunk
        layers = [
            *range(trunk.block_start, trunk.risk_layer),
            *range(trunk.rationale_start, trunk.depth),
        ]
        self.adapted = _with_lora(desk.base.model, settings, layers)
        self._answers = [desk.encoder.tokens(answer)[0] for answer in ANSWERS]

    def forward(self, **batch: Any) -> Any:
        """What the causal model gives, with its own loss."""
        return self.adapted(**batch)

    def rows(self, examples: Sequence[Example]) -> list[dict[str, Any]]:
        """What the Trainer is given: prompt, answer, rationale; only the last two count."""
        made = []
        for item in examples:
            told = (self._answers[0 if item.rare else 1], *item.rationale)
            labels = (*[IGNORED] * len(item.prompt.ids), *told)
            made.append({"ids": (*item.prompt.ids, *told), "labels": labels})
        return made

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Rows padded to the longest."""
        labels, lengths = pad_right([row["labels"] for row in rows])
        behind = torch.arange(labels.shape[1])[None, :] >= lengths[:, None]
        labels = labels.masked_fill(behind, IGNORED)
        return _padded([row["ids"] for row in rows]) | {"labels": labels}

    def risks(self, batch: dict[str, Any], last: Any) -> Any:
        """Log-odds of the answers where they would follow."""
        said = self.adapted(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        at_risk = said.logits[torch.arange(len(last)), last]
        return at_risk[:, self._answers[0]] - at_risk[:, self._answers[1]]


def trainer_of(rival: Cut | Whole, examples: Sequence[Example], folder: str) -> Any:
    """A Trainer at its defaults, except that it saves, reports and shows nothing."""
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir=folder, report_to="none", save_strategy="no", use_cpu=True, disable_tqdm=True,
        logging_strategy="no", remove_unused_columns=False, dataloader_pin_memory=False,
    )  # fmt: skip
    with quiet():
        return Trainer(
            rival, arguments, train_dataset=rival.rows(examples), data_collator=rival.collate
        )


def risks_of(rival: Cut | Whole, examples: Sequence[Example]) -> list[float]:
    """Uncalibrated risks, in the order of ``examples``."""
    rival.eval()
    said: list[float] = []
    with torch.inference_mode():
        for start in range(0, len(examples), BATCH):
            part = examples[start : start + BATCH]
            batch = _padded([item.prompt.ids for item in part])
            last = torch.tensor([len(item.prompt.ids) - 1 for item in part])
            said += rival.risks(batch, last).tolist()
    return said


def _with_lora(model: Any, settings: Settings, layers: list[int]) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=round(settings.rank * settings.alpha_ratio),
        target_modules=list(TARGETS),
        layers_to_transform=layers,
    )
    with quiet():
        return get_peft_model(model, config)


def _padded(rows: Sequence[Sequence[int]]) -> dict[str, Any]:
    ids, lengths = pad_right(rows)
    mask = (torch.arange(ids.shape[1])[None, :] < lengths[:, None]).long()
    return {"input_ids": ids, "attention_mask": mask}
