"""A training in progress on disk: weights now and at best, optimiser state, history.

One safetensors file, so a checkpoint can't run code; its digest names what it belongs to.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rarealert.files import whole


def save(
    file: Path,
    digest: str,
    parameters: dict[str, torch.nn.Parameter],
    best: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
    history: list[dict[str, Any]],
) -> None:
    """Write everything that the next epoch needs; the file appears only once it is whole."""
    from safetensors.torch import save_file

    tensors = {f"now.{name}": value.detach().clone() for name, value in parameters.items()}
    tensors |= {f"best.{name}": value for name, value in best.items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{key}": value.clone() for key, value in state.items()}
    with whole(file) as partial:
        save_file(tensors, partial, metadata={"digest": digest, "history": json.dumps(history)})


def resume(
    file: Path,
    digest: str,
    parameters: dict[str, torch.nn.Parameter],
    optimiser: torch.optim.Optimizer,
) -> list[dict[str, Any]]:
    """Put weights and optimiser back as the checkpoint has them; its history, or nothing."""
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        return []
    try:
        with safe_open(file, framework="pt") as stored:
            metadata = stored.metadata() or {}
            if metadata.get("digest") != digest:
                return []  # it belongs to other data or settings
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (SafetensorError, OSError):
        return []
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(tensors[f"now.{name}"])
    state = optimiser.state_dict()
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimiser":
            index, _, key = rest.partition(".")
            state["state"].setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict(state)
    return list(json.loads(metadata["history"]))


def best_state(file: Path, parameters: dict[str, torch.nn.Parameter]) -> dict[str, Tensor]:
    """The best weights so far, as the checkpoint has them."""
    from safetensors.torch import load_file

    tensors = load_file(file)
    return {name: tensors[f"best.{name}"] for name in parameters}
