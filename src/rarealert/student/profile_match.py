"""Profile match: how much better rare diseases explain a visit's findings than common conditions.

The finding risk of a term is the same in every visit; whether findings belong together follows
only from disease profiles. The match is the ln Bayes factor of the patient's findings: their
likelihood (as LIRICAL computes it, Robinson et al. 2020, Am J Hum Genet 107:403) averaged over all
rare diseases by prevalence, against that over common conditions by their share of visits, both at
the patient's age and sex. It is divided by the root of the number of findings, because findings
are not independent and a long visit is no risk in itself. Profiles are not learnt from cases; the
weight of the match is fitted on training cases. Each finding is attributed its own part, at its
token (docs/decisions/0005).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from rarealert.errors import BadInputError
from rarealert.knowledge.hpo import load_ontology
from rarealert.knowledge.profiles import (
    Columns,
    CommonCondition,
    DiseaseProfile,
    Vector,
    common_table,
    load_common_conditions,
    load_information_content,
    load_rare_profiles,
    log_demographics,
    log_likelihoods,
    rare_table,
)
from rarealert.student.encoding import EncodedFinding, Facts

_CACHED_TERMS = 1024  # 36 kB each; HPO terms alone, nothing of a patient
_SEXES = ("", "female", "male")


@dataclass(frozen=True, eq=False)
class Library:
    """All profiles as arrays: rare diseases first, ``n_rare`` of them, then common conditions.

    ``terms`` holds HPO numbers in ascending order and ``content`` their information content, both
    of shape ``(n_terms,)``. ``starts``, ``rows`` and ``shares`` are the columns of a sparse matrix
    of diseases by terms (CSC). ``only_sex`` is an index of "", "female", "male", ``prior`` the ln
    of a disease's share of people or visits; they and the ages have shape ``(n_diseases,)``.
    """

    terms: NDArray[np.int64]
    content: NDArray[np.float64]
    starts: NDArray[np.int64]
    rows: NDArray[np.int32]
    shares: NDArray[np.float32]
    only_sex: NDArray[np.int8]
    age_min: NDArray[np.float64]
    age_max: NDArray[np.float64]
    prior: NDArray[np.float64]
    n_rare: NDArray[np.int64]

    def save(self, file: Path) -> None:
        """Write ``file`` as safetensors."""
        from safetensors.numpy import save_file

        save_file({field.name: getattr(self, field.name) for field in fields(self)}, file)


def load_library(file: Path) -> Library:
    """Load what ``Library.save`` wrote.

    Raises:
        BadInputError: the file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return Library(**load_file(file))
    except (OSError, SafetensorError, TypeError) as error:
        raise BadInputError(
            f"{file} is missing or damaged ({type(error).__name__}); run dvc repro distil or fetch "
            "the model again."
        ) from error


def make_library(
    rare: Sequence[DiseaseProfile],
    conditions: Sequence[CommonCondition],
    content: Mapping[str, float],
) -> Library:
    """The library of these profiles, the true-path rule applied."""
    common = [condition.profile for condition in conditions]
    columns = Columns(load_ontology(), (*rare, *common), content)
    tables = rare_table(columns, rare), common_table(columns, conditions)
    shares = sp.csc_matrix(sp.vstack([table.shares for table in tables]))
    sexes = np.concatenate([table.only_sex for table in tables])
    return Library(
        terms=np.array([int(term.removeprefix("HP:")) for term in columns.terms]),
        content=columns.content,
        starts=shares.indptr.astype(np.int64),
        rows=shares.indices.astype(np.int32),
        shares=shares.data.astype(np.float32),
        only_sex=np.array([_SEXES.index(str(sex)) for sex in sexes], dtype=np.int8),
        age_min=np.concatenate([table.age_min for table in tables]),
        age_max=np.concatenate([table.age_max for table in tables]),
        prior=np.concatenate([table.prior for table in tables]),
        n_rare=np.array([len(rare)]),
    )


@cache
def packaged_library() -> Library:
    """The library of this version's profiles, made once a process (two seconds)."""
    content = load_information_content()
    return make_library(load_rare_profiles(), load_common_conditions(), content)


class ProfileMatch:
    """Matches visits with the profiles of a library."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self._n_rare = int(library.n_rare[0])
        n_terms, n_diseases = len(library.terms), len(library.only_sex)
        self._shares = sp.csc_matrix(
            (library.shares, library.rows, library.starts), (n_diseases, n_terms)
        )
        self._sexes = np.array(_SEXES)[library.only_sex]
        self._logs = lru_cache(maxsize=_CACHED_TERMS)(self._log_likelihoods)

    def at(self, facts: Sequence[Facts], width: int) -> NDArray[np.float32]:
        """Log ratio at each position, ``(visits, width)``; a visit's is the mean over them."""
        ratios = np.zeros((len(facts), width), dtype=np.float32)
        for row, visit in enumerate(facts):
            for position, log_ratio in self.log_ratios(visit):
                ratios[row, position] += visit.length * log_ratio
        return ratios

    def log_ratios(self, visit: Facts) -> list[tuple[int, float]]:
        """Position and share, in nats, of each finding in the match of a visit.

        A finding's share is the difference of its ln likelihood, averaged over the rare and over
        the common diseases by how well they explain the visit. What remains, how unusual these
        diseases are at this age and sex, is at the visit's first token. Empty without a finding:
        age and sex alone favour neither.
        """
        specific = _most_specific(visit.findings)
        if not specific:
            return []
        limits = (self._sexes, self.library.age_min, self.library.age_max)
        who = log_demographics(*limits, visit.sex, visit.age_years) + self.library.prior
        logs = np.stack([self._logs(finding.terms) for finding in specific])
        shares = np.zeros(len(specific))
        factor = 0.0
        for sign, group in ((1, slice(None, self._n_rare)), (-1, slice(self._n_rare, None))):
            joint = who[group] + logs[:, group].sum(axis=0)
            evidence = np.logaddexp.reduce(joint)
            shares += sign * (logs[:, group] @ np.exp(joint - evidence))
            factor += sign * float(evidence - np.logaddexp.reduce(who[group]))
        root = np.sqrt(len(specific))
        parts = [
            (finding.position, float(share) / root)
            for finding, share in zip(specific, shares, strict=True)
        ]
        return [(visit.first, float(factor - shares.sum()) / root), *parts]

    def _log_likelihoods(self, terms: tuple[int, ...]) -> Vector:
        known = self.library.terms
        places = np.minimum(np.searchsorted(known, terms), len(known) - 1)
        found = places[known[places] == np.asarray(terms)]
        return log_likelihoods(self._shares, found.tolist(), self.library.content)


def _most_specific(findings: Sequence[EncodedFinding]) -> list[EncodedFinding]:
    """The findings that no other one implies."""
    own = [frozenset(finding.terms) for finding in findings]
    return [
        finding
        for place, finding in enumerate(findings)
        if not any(own[place] < other for other in own)
    ]
