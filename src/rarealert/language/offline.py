"""transformers kept offline and silent, and digests of what it loads."""

import contextlib
import hashlib
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the hub offline and transformers' progress bars and notices off the terminal."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TRANSFORMERS_OFFLINE"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        # peft 0.21 still asks transformers 5 under the property's old name
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        # the package names its base by name and digest, the loaded one by its folder; the digest
        # is compared before, which is the stronger check
        warnings.filterwarnings("ignore", "The PEFT config's `base_model_name_or_path`")
        yield


def sha256_of(files: list[Path]) -> str:
    """sha256 over the sha256 of each file."""
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()
