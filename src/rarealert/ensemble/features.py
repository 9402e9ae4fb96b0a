"""What the visit itself says of a case, in numbers: who, how much was found, how telling it is.

From answers to numbers: one row a case, columns in named sets that can be screened.

What is unknown is NaN, never 0. No column counts answers or flags a missing teacher: who was asked
follows the source of a case, so such a column would tell the source, and through its share of
rare cases the label.
"""

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from rarealert.ensemble.signals import PLACES, WORDING, Panel
from rarealert.visits.case import TEXT_FIELDS, Case

VISIT = ("age", "female", "findings", "systems", "mean_information", "most_information")
"""What ``visit_features`` gives, in order."""


def visit_features(cases: Iterable[Case]) -> Mapping[str, tuple[float, ...]]:
    """Age in years, sex, findings, organ systems and information content, by case id.

    Findings are recognised in the text of every case alike, coded or not, so that the coding of a
    source tells nothing. Information is in nats over rare profiles (Resnik, IJCAI 1995). NaN
    where the visit does not say; a visit without a recognised finding has a count of 0.
    """
    from rarealert.knowledge.hpo import load_ontology
    from rarealert.knowledge.profiles import load_information_content
    from rarealert.knowledge.recognise import findings_of

    ontology, information = load_ontology(), load_information_content()
    found = {}
    for case in cases:
        present, _ = findings_of({name: getattr(case, name) for name in TEXT_FIELDS})
        systems = {one for term in present for one in ontology.organ_systems(term)}
        told = [information[term] for term in present if term in information]
        found[case.case_id] = (
            math.nan if case.age_years is None else case.age_years,
            math.nan if case.sex is None else float(case.sex == "female"),
            float(len(present)),
            float(len(systems)),
            sum(told) / len(told) if told else math.nan,
            max(told, default=math.nan),
        )
    return found


_HEARD = ("risk", "spread", "differential")

FEATURE_SETS: Mapping[str, tuple[str, ...]] = {
    "risk": ("risk",),
    "risk+spread": ("risk", "spread"),
    "risk+spread+differential": _HEARD,
    "risk+spread+differential+insight": (*_HEARD, "insight"),
    "risk+spread+differential+text": (*_HEARD, "text"),
    "risk+spread+differential+case": (*_HEARD, "case"),
    "all": (*_HEARD, "insight", "text", "case"),
}
"""What the screening compares, by the groups of columns that a set holds."""

_SPREAD = ("mean", "median", "sd", "min", "max", "range", "vote_share", "agreement")
_DIFFERENTIAL = (
    "orphanet_share",
    "orphanet_first",
    "orphanet_rank_weighted",
    "orphanet_any",
    "overlap",
    "consensus",
    "consensus_orphanet",
    "entropy",
    "ontology_distance",
    "rarity_of_names",
)
_INSIGHT = ("entropy", "concentration", "largest_weight", "overlap")
_COMMON = 0.1  # share 0-1 of a teacher's answers that ties it to another's block
_VOTE = 0.495  # a stated risk of at least 50 % is a vote for rare, whichever way ties are broken

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FeatureMatrix:
    """Numbers for the cases that someone answered.

    ``values`` has shape ``(n_cases, n_features)``, float64, NaN where unknown; ``names`` are
    ``<group>:<feature>``, the group being one of those in ``FEATURE_SETS``.
    """

    case_ids: tuple[str, ...]
    names: tuple[str, ...]
    values: Floats

    def columns(self, feature_set: str) -> NDArray[np.intp]:
        """Positions of the columns of a named set, shape ``(k,)``."""
        groups = FEATURE_SETS[feature_set]
        chosen = [i for i, name in enumerate(self.names) if group_of(name) in groups]
        return np.asarray(chosen, dtype=np.intp)

    def useful_sets(self) -> tuple[str, ...]:
        """The sets each of whose groups has a column that varies; the smallest set always.

        The full set is left out where it is no larger than another.
        """
        varies = {
            group_of(name)
            for name, column in zip(self.names, self.values.T, strict=True)
            if np.unique(column[~np.isnan(column)]).size > 1
        }
        first, *others = FEATURE_SETS
        whole = [name for name in others[:-1] if varies.issuperset(FEATURE_SETS[name][1:])]
        further = varies & {"insight", "text", "case"}
        return (first, *whole, *(others[-1:] if len(further) > 1 else ()))


def group_of(name: str) -> str:
    """The group of a column's name."""
    return name.split(":")[0]


def build_features(
    panel: Panel,
    blocks: Sequence[Sequence[str]],
    visits: Mapping[str, Sequence[float]] | None = None,
) -> FeatureMatrix:
    """Features of every case that at least one teacher of ``blocks`` answered, by case id.

    What is worked out over teachers is worked out block by block, so that the voices of one block
    may be weighed unlike those of another; columns of the second block end in ``@2``. ``visits``
    are those of ``visit_features``, by case id; what it lacks is unknown. The columns depend on
    ``blocks`` alone, so a panel frozen at training time gives the same matrix later, whoever is
    missing then. Answers of anyone else are not looked at.
    """
    teachers = [name for block in blocks for name in block]
    heard = panel.of(teachers)
    names = [f"risk:{name}" for name in teachers]
    values = [heard.risk]
    first = 0
    for number, block in enumerate(blocks, start=1):
        columns = slice(first, first + len(block))
        first += len(block)
        end = f"@{number}" if number > 1 else ""
        for group, features, found in _over_teachers(heard.columns(columns)):
            names += [f"{group}:{name}{end}" for name in features]
            values.append(found)
    names += [f"case:{name}" for name in VISIT]
    unknown = (np.nan,) * len(VISIT)
    of_visits = [(visits or {}).get(case_id, unknown) for case_id in heard.case_ids]
    values.append(np.asarray(of_visits, dtype=np.float64).reshape(-1, len(VISIT)))
    return FeatureMatrix(heard.case_ids, tuple(names), np.concatenate(values, axis=1))


def _over_teachers(panel: Panel) -> Iterator[tuple[str, tuple[str, ...], Floats]]:
    """Group, names and values, shape ``(n, len(names))``, of what is worked out over teachers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice|All-NaN|Degrees", RuntimeWarning)
        yield "spread", _SPREAD, _spread(panel.risk)
        yield "differential", _DIFFERENTIAL, _differential(panel)
        yield "insight", _INSIGHT, _insight(panel)
        yield "text", WORDING, np.nanmean(panel.wording, axis=1)


def blocks_of(panel: Panel) -> tuple[tuple[str, ...], ...]:
    """The teachers in blocks: two that answered common cases are in one, by name.

    Recorded panels come in blocks, each shown its own source; where everybody was asked about
    everything there is one block. A tenth of the answers of the one who answered less must be to
    common cases, so that a few strays do not tie two blocks together.
    """
    answered = panel.answered().astype(np.intp)
    common = answered.T @ answered
    least = np.minimum.outer(common.diagonal(), common.diagonal())
    linked = (common > 0) & (common >= _COMMON * least)
    _, block = connected_components(csr_matrix(linked), directed=False)
    found = [
        tuple(name for name, one in zip(panel.teachers, block, strict=True) if one == number)
        for number in range(int(block.max(initial=-1)) + 1)
    ]
    return tuple(sorted(found))


def _spread(risk: Floats) -> Floats:
    """How the present risks lie, in the order of ``_SPREAD``, shape ``(n, 8)``."""
    low, high = np.fmin.reduce(risk, axis=1), np.fmax.reduce(risk, axis=1)
    votes = np.nanmean(np.where(np.isnan(risk), np.nan, risk >= _VOTE), axis=1)
    differences = (np.abs(risk[:, a] - risk[:, b]) for a, b in _pairs(risk.shape[1]))
    return np.column_stack(
        [
            np.nanmean(risk, axis=1),
            np.nanmedian(risk, axis=1),
            np.nanstd(risk, axis=1),
            low,
            high,
            high - low,
            votes,
            1 - _mean_of_known(differences, len(risk)),
        ]
    )


def _differential(panel: Panel) -> Floats:
    """What the differentials name, in the order of ``_DIFFERENTIAL``, shape ``(n, 10)``."""
    there, orphanet = panel.named > 0, panel.orphanet
    length = there.sum(axis=2)
    naming = length > 0
    by_rank = 1 / np.arange(1, PLACES + 1)

    def mean(of_teacher: NDArray[np.float64]) -> Floats:
        return np.asarray(np.nanmean(np.where(naming, of_teacher, np.nan), axis=1))

    def by_weight(of_place: NDArray[Any]) -> Floats:
        heard = np.where(there, of_place, 0.0) * by_rank
        return np.asarray(heard.sum(axis=2) / np.maximum((there * by_rank).sum(axis=2), 1e-9))

    votes = _votes(panel.named)
    most = votes.max(axis=(1, 2), initial=0)
    leading = (votes == most[:, None, None]) & there
    mentions = length.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        surprise = np.where(there, -np.log(votes / mentions[:, None, None]), 0.0)
        entropy = surprise.sum(axis=(1, 2)) / mentions / np.log(mentions)
        found = [
            mean(orphanet.sum(axis=2) / np.maximum(length, 1)),
            mean(orphanet[:, :, 0].astype(float)),
            mean(by_weight(orphanet)),
            mean(orphanet.any(axis=2).astype(float)),
            _overlap(panel.named),
            most / naming.sum(axis=1),
            (orphanet & leading).sum(axis=(1, 2)) / leading.sum(axis=(1, 2)),
            np.where(mentions == 1, 0.0, entropy),
            _distance(panel.systems[:, :, 0]),
            mean(by_weight(panel.rarity)),
        ]
    found = [np.where(mentions > 0, column, np.nan) for column in found]
    return np.column_stack(found)


def _votes(named: NDArray[np.int32]) -> NDArray[np.int32]:
    """How many teachers name the disease at each place, same shape; 0 at empty places."""
    votes = np.zeros(named.shape, dtype=np.int32)
    for column in range(named.shape[1]):
        for place in range(named.shape[2]):
            same = named == named[:, column, place][:, None, None]
            votes[:, column, place] = same.any(axis=2).sum(axis=1)
    return np.where(named > 0, votes, 0)


def _overlap(items: NDArray[np.int32]) -> Floats:
    """Mean Jaccard index over all pairs of non-empty rows of ``(n, t, 5)``, NaN without a pair."""
    size = (items > 0).sum(axis=2)

    def jaccard(a: int, b: int) -> Floats:
        same = items[:, a, :, None] == items[:, b, None, :]
        shared = (same & (items[:, a, :, None] > 0)).sum(axis=(1, 2))
        known = (size[:, a] > 0) & (size[:, b] > 0)
        either = np.maximum(size[:, a] + size[:, b] - shared, 1)
        return np.where(known, shared / either, np.nan)

    return _mean_of_known((jaccard(a, b) for a, b in _pairs(items.shape[1])), len(items))


def _distance(systems: NDArray[np.uint32]) -> Floats:
    """Mean distance 0 to 1 of the disorders named first, over all pairs of teachers.

    1 minus the Jaccard index of the organ systems, HPO's top branches, that two disorders affect.
    """

    def apart(a: int, b: int) -> Floats:
        one, other = systems[:, a], systems[:, b]
        shared, either = np.bitwise_count(one & other), np.bitwise_count(one | other)
        return np.where((one > 0) & (other > 0), 1 - shared / np.maximum(either, 1), np.nan)

    return _mean_of_known((apart(a, b) for a, b in _pairs(systems.shape[1])), len(systems))


def _insight(panel: Panel) -> Floats:
    """How the teachers spread their attention, in the order of ``_INSIGHT``, shape ``(n, 4)``."""
    return np.column_stack([np.nanmean(panel.attention, axis=1), _overlap(panel.reasons)])


def _pairs(teachers: int) -> Iterator[tuple[int, int]]:
    return combinations(range(teachers), 2)


def _mean_of_known(columns: Iterator[Floats], cases: int) -> Floats:
    """The mean of those of ``columns``, each ``(n,)``, that are not NaN; NaN where all are."""
    total, known = np.zeros(cases), np.zeros(cases)
    for column in columns:
        there = ~np.isnan(column)
        total += np.where(there, column, 0.0)
        known += there
    return np.where(known > 0, total / np.maximum(known, 1), np.nan)
