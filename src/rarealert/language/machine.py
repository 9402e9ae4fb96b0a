"""How models run on this machine: offline and quiet, on which device, within its memory."""

import contextlib
import io
import os
import secrets
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from rarealert.errors import BadInputError, RareAlertError

Dtype = Literal["float32", "bfloat16"]
"""Number formats of weights and states; float16 overflows in some of these models."""

_CPU_ALLOCATOR = "can't allocate memory"  # torch has no class of its own for the CPU


class NotEnoughMemoryError(RareAlertError):
    """A step needed more memory than this machine has left."""


def cache_root() -> Path:
    """The folder for what is made once a machine: ``RAREALERT_CACHE``, else in the user's cache."""
    chosen = os.environ.get("RAREALERT_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "rarealert"


@contextmanager
def new_cache_file(file: Path) -> Iterator[Path]:
    """A path beside ``file`` to write to, which takes its name where the block ends well.

    Processes that write the same ``file`` at once do not disturb each other.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"partial-{secrets.token_hex(8)}")
    try:
        yield partial
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the hub offline and transformers' progress bars and notices off the terminal."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TRANSFORMERS_OFFLINE"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        # peft 0.21 still uses the property's old name in transformers 5
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        # a student names its base by name and digest, the loaded base by its folder; the digest
        # is compared before, which is the stronger check
        warnings.filterwarnings("ignore", "The PEFT config's `base_model_name_or_path`")
        yield


def placement(device: str) -> dict[str, str]:
    """Arguments of ``from_pretrained`` for ``device``: one of torch's names, or ``auto``.

    ``auto`` is the GPU, several of them by accelerate's layout, or the CPU where there is none. The
    CPU needs no argument.

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
        NotEnoughMemoryError: torch or Python could not allocate; ``change`` names the settings
            that need less.
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
