"""A causal language model of this machine: found by name, loaded offline, copied for another."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rarealert.errors import BadInputError
from rarealert.language.machine import Dtype, enough_memory, placement, quiet
from rarealert.language.packaged import MANIFEST, PACKAGED, packaged_file, sha256_of, unpacked

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")
"""Decoders whose layers can be run in parts: embeddings, a list of layers, one final norm."""

CARRIED_VARIABLE = "RAREALERT_BASE_MODELS"
"""Environment variable that names a folder of base models that ``carry_base`` filled."""

_CARRIED = "carried.json"


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

    Nothing is downloaded: a Hugging Face name must be in the local hub cache. ``setting`` is the
    key that errors name; ``device`` is that of ``placement``.

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
        digest = sha256_of([source])
        return unpacked(source, digest, PACKAGED[name].dtype), digest
    folder, weights = _find_weights(name, setting)
    return folder, sha256_of([folder / "config.json", *weights])


def carry_base(name: str, root: Path) -> Path:
    """Copy the model ``name`` to its own folder below ``root``; returns that folder.

    A machine whose ``RAREALERT_BASE_MODELS`` names ``root`` then has the model, under the same
    name and digest, without its package or a hub cache.

    Raises:
        BadInputError: it is not on this machine.
    """
    source, digest = locate_base(name)
    folder = root / quote(name, safe="")
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns(MANIFEST, _CARRIED))
    files = {path.name: sha256_of([path]) for path in sorted(folder.iterdir()) if path.is_file()}
    note = json.dumps({"digest": digest, "files": files}, indent=2, sort_keys=True)
    (folder / _CARRIED).write_text(note + "\n", encoding="utf-8")
    return folder


def _carried(name: str) -> tuple[Path, str] | None:
    """The folder and digest of a model that ``carry_base`` copied here, its bytes checked.

    Raises:
        BadInputError: this account may not read it, or it is damaged.
    """
    root = os.environ.get(CARRIED_VARIABLE)
    folder = Path(root) / quote(name, safe="") if root else None
    if folder is None:
        return None
    try:
        if not folder.is_dir():
            return None
        note = json.loads((folder / _CARRIED).read_text(encoding="utf-8"))
        digest, files = str(note["digest"]), dict(note["files"])
        whole = all(sha256_of([folder / file]) == held for file, held in files.items())
    except PermissionError as error:
        raise BadInputError(
            f"{folder} can't be read by this account; allow it with `chmod -R a+rX {root}`."
        ) from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadInputError(f"{folder} is damaged; copy the bundle again.") from error
    if not (files and whole):
        raise BadInputError(f"{folder} is not what was bundled; copy the bundle again.")
    return folder, digest


def digest_of(name: str, setting: str = "distil.base_model") -> str:
    """The digest of the model ``name``, without unpacking or loading it.

    Raises:
        BadInputError: the model is not on this machine.
    """
    if (carried := _carried(name)) is not None:
        return carried[1]
    if name in PACKAGED:
        return sha256_of([packaged_file(name, setting)])
    folder, weights = _find_weights(name, setting)
    return sha256_of([folder / "config.json", *weights])


def _find_weights(name: str, setting: str) -> tuple[Path, list[Path]]:
    folder = Path(name).expanduser()
    if not folder.is_dir():
        folder = _from_hub_cache(name, setting)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights or not (folder / "config.json").is_file():
        raise BadInputError(
            f"{setting}: {folder} has no config.json with *.safetensors beside it; "
            "name a folder that transformers' save_pretrained wrote."
        )
    return folder, weights


def _check_architecture(name: str, config: Any, setting: str) -> None:
    if config.model_type not in ARCHITECTURES:
        raise BadInputError(
            f"{setting} {name!r} is a {config.model_type} model; "
            f"it must be one of {', '.join(ARCHITECTURES)}."
        )


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
