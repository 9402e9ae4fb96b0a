"""The student on disk: adapter, head and one JSON file; no pickle, no case text.

``adapter_model.safetensors`` and ``adapter_config.json`` are peft's, ``head.safetensors`` holds
the readout and the finding risks, ``profiles.safetensors`` the disease profiles of the profile
match, ``tokenizer/`` the tokenizer, ``student.json`` everything else that a prediction needs.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from rarealert.calibration.bands import Bands
from rarealert.calibration.calibrators import Calibrator
from rarealert.errors import BadInputError
from rarealert.files import sha256_of_file
from rarealert.language.base import BaseModel as Base
from rarealert.language.base import load_base
from rarealert.language.machine import Dtype, quiet
from rarealert.student.encoding import ENCODING_VERSION, Readout, Style
from rarealert.visits.reading import RENDERER_VERSION

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rarealert.student.network import Network, RiskHead
    from rarealert.student.profile_match import ProfileMatch

_TOKENIZER = "tokenizer"
_PROFILES = "profiles.safetensors"


class Card(BaseModel):
    """``student.json``: everything that belongs to the weights. Digests are sha256, hexadecimal.

    ``tokenizer_digest`` is that of the packaged tokenizer, ``profiles_digest`` that of the
    profiles, empty for a student without; ``save_package`` enters both.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_model: str
    base_digest: str
    tokenizer_digest: str = ""
    profiles_digest: str = ""
    dtype: Dtype = "float32"
    renderer_version: str = RENDERER_VERSION
    encoding_version: str = ENCODING_VERSION
    prompt: Style = "plain"
    readout: Readout = "mean"
    risk_layer: int
    lora_layers: int
    rationale_layers: int
    max_prompt_tokens: int
    max_rationale_tokens: int
    calibrator: Calibrator
    bands: Bands
    settings: dict[str, float | int | str]
    training_data: dict[str, str]
    libraries: dict[str, str]


def save_package(
    folder: Path,
    card: Card,
    network: "Network",
    tokenizer: "PreTrainedTokenizerBase",
) -> None:
    """Write the whole student to ``folder``, which appears only once it is complete."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, state in (
        ("adapter_model", get_peft_model_state_dict(network.peft_model)),
        ("head", network.head.state_dict()),
    ):
        tensors = {key: value.contiguous() for key, value in state.items()}
        save_file(tensors, partial / f"{name}.safetensors")
    config = network.peft_model.peft_config["default"]
    config.base_model_name_or_path = card.base_model  # peft's is a path of this machine
    config.save_pretrained(str(partial))
    tokenizer.save_pretrained(str(partial / _TOKENIZER))
    digests = {"tokenizer_digest": _digest_of(partial / _TOKENIZER)}
    match = network.trunk.profile_match
    if match is not None:
        match.library.save(partial / _PROFILES)
        digests["profiles_digest"] = sha256_of_file(partial / _PROFILES)
    card = card.model_copy(update=digests)
    text = json.dumps(card.model_dump(mode="json"), indent=2, sort_keys=True)
    (partial / "student.json").write_text(text + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


def load_package(folder: Path) -> tuple[Card, Base, "RiskHead", "ProfileMatch | None"]:
    """The card, the base with LoRA merged into it, the head and the profiles of a saved student.

    The tokenizer is the packaged one, not the file beside the base's weights.

    Raises:
        BadInputError: a file is missing or damaged, the base model is not the one that the
            adapter was trained on, or the adapter does not fit it.
    """
    card = _read_card(folder)
    tokenizer = _read_tokenizer(folder, card)
    match = _read_profiles(folder, card)
    base = load_base(card.base_model, dtype=card.dtype, device="auto")
    if base.digest != card.base_digest:
        raise BadInputError(
            f"{folder} was trained on another copy of {card.base_model} (sha256 "
            f"{card.base_digest[:12]}…, here {base.digest[:12]}…); install the same base model."
        )
    from safetensors import SafetensorError

    try:
        with quiet():
            model = _merged(folder, base.model)
        head = _read_head(folder)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise BadInputError(
            f"{folder}: the adapter or head is damaged or does not fit {card.base_model} "
            f"({type(error).__name__}); run dvc repro distil or fetch the model again."
        ) from error
    merged = Base(name=base.name, digest=base.digest, model=model, tokenizer=tokenizer)
    return card, merged, head, match


def _read_card(folder: Path) -> Card:
    file = folder / "student.json"
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
        _check_versions(folder, card)  # first: the card of another version may have other fields
        return Card.model_validate(card)
    except FileNotFoundError as error:
        raise BadInputError(f"{file} is missing; run dvc repro distil.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"{file} is not a student's card; run dvc repro distil.") from error


def _check_versions(folder: Path, card: dict[str, Any]) -> None:
    trained = (card["renderer_version"], card["encoding_version"])
    if trained != (RENDERER_VERSION, ENCODING_VERSION):
        raise BadInputError(
            f"{folder} was trained with renderer {trained[0]} and encoding {trained[1]}, this "
            f"version has {RENDERER_VERSION} and {ENCODING_VERSION}; distil it again."
        )


def _read_tokenizer(folder: Path, card: Card) -> "PreTrainedTokenizerBase":
    if _digest_of(folder / _TOKENIZER) != card.tokenizer_digest:
        raise BadInputError(
            f"{folder / _TOKENIZER} is not the tokenizer that the student was trained with; run "
            "dvc repro distil or fetch the model again."
        )
    with quiet():
        from transformers import AutoTokenizer

        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder / _TOKENIZER)
    return tokenizer


def _read_profiles(folder: Path, card: Card) -> "ProfileMatch | None":
    from rarealert.student.profile_match import ProfileMatch, load_library

    if not card.profiles_digest:
        return None
    library = load_library(folder / _PROFILES)
    if sha256_of_file(folder / _PROFILES) != card.profiles_digest:
        raise BadInputError(
            f"{folder / _PROFILES} is not what the student was trained with; run dvc repro distil "
            "or fetch the model again."
        )
    return ProfileMatch(library)


def _digest_of(folder: Path) -> str:
    """sha256 over names and bytes of the files in ``folder``."""
    whole = hashlib.sha256()
    for path in sorted(folder.glob("*")):
        whole.update(path.name.encode() + b"\0" + bytes.fromhex(sha256_of_file(path)))
    return whole.hexdigest()


def _merged(folder: Path, model: Any) -> Any:
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load_file

    state = load_file(folder / "adapter_model.safetensors")
    config = LoraConfig.from_pretrained(str(folder))
    config.inference_mode = False
    adapted = get_peft_model(model, config)
    outcome: Any = set_peft_model_state_dict(adapted, state)
    missing = [key for key in outcome.missing_keys if "lora_" in key]
    if missing or outcome.unexpected_keys:
        raise ValueError("the adapter's tensors are not those of its configuration")
    return adapted.merge_and_unload().eval()


def _read_head(folder: Path) -> "RiskHead":
    from safetensors.torch import load_file

    from rarealert.student.network import RiskHead

    state = load_file(folder / "head.safetensors")
    head = RiskHead(state["mean"].shape[0], state["terms"].shape[0])
    head.load_state_dict(state)
    return head.eval()
