"""Where a model is placed, and what is said when it does not fit there."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from rarealert.errors import BadInputError, RareAlertError

Dtype = Literal["float32", "bfloat16"]
"""Number formats of weights and states; float16 overflows in some of these models."""

_CPU_ALLOCATOR = "can't allocate memory"  # torch has no class of its own for the CPU


class NotEnoughMemoryError(RareAlertError):
    """A step asked for more memory than this machine has left."""


def placement(device: str) -> dict[str, str]:
    """What ``from_pretrained`` is told of ``device``: one of torch's names, or ``auto``.

    ``auto`` is the GPU, the layers of the model laid out over several by accelerate, or the CPU
    where there is none; nothing is said for the CPU, where a model is loaded anyway.

    Raises:
        BadInputError: there is no such device.
    """
    import torch

    if device == "auto":
        found = torch.cuda.device_count()
        device = "cpu" if found == 0 else "cuda" if found == 1 else "auto"
    if device in ("auto", "cpu"):
        return {"device_map": device} if device == "auto" else {}
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # a torch without CUDA asserts
        raise BadInputError(
            f"distil.device {device!r} is not on this machine; set it to auto or cpu."
        ) from error
    return {"device_map": device}


@contextmanager
def enough_memory(doing: str, change: str) -> Iterator[None]:
    """Turn an allocation that failed while ``doing`` something into a sentence with the remedy.

    Raises:
        NotEnoughMemoryError: torch or Python could not allocate; ``change`` says which settings
            ask for less.
    """
    import torch

    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        short = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not (short or _CPU_ALLOCATOR in str(error)):
            raise
        raise NotEnoughMemoryError(
            f"There was not enough memory for {doing}; {change} and run it again."
        ) from error
