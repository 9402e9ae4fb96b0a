"""Features of a case from its teachers' answers and its visit, in named groups of columns.

What is unknown is NaN, never 0. No column counts answers or flags a missing teacher: which teachers
were asked follows the source of a case, so such a column would give away the source, and through
its share of rare cases the label.
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

from rarealert.ensemble.signals import PLACES, Signals
from rarealert.knowledge.hpo import load_ontology
from rarealert.knowledge.profiles import load_information_content
from rarealert.visits.reading import Reading

Floats = NDArray[np.float64]
VisitFeatures = Mapping[str, Sequence[float]]
"""The values of ``VISIT`` by case id."""

VISIT = ("age", "female", "findings", "systems", "mean_information", "most_information")
"""Names of the values of ``visit_features``, in order."""

_ANSWERS = ("risk", "spread", "differential")
FEATURE_SETS: Mapping[str, tuple[str, ...]] = {
    "risk": ("risk",),
    "risk+spread": ("risk", "spread"),
    "risk+spread+differential": _ANSWERS,
    "risk+spread+differential+insight": (*_ANSWERS, "insight"),
    "risk+spread+differential+case": (*_ANSWERS, "case"),
}
"""What the screening compares: groups of columns by the name of their set."""

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
_COMMON = 0.1  # share 0-1 of a teacher's answers that links it to another's block
_VOTE = 0.495  # a stated risk of at least 50 % is a vote for rare, whichever way ties are broken


@dataclass(frozen=True)
class FeatureMatrix:
    """Features of the cases that at least one teacher answered.

    ``values`` has shape ``(n_cases, n_features)``, NaN where unknown; ``names`` are
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

    def cells(self, rows: NDArray[np.intp], names: Sequence[str]) -> Floats:
        """The values of ``rows`` in the columns ``names``, shape ``(k, m)``."""
        return self.values[rows][:, [self.names.index(name) for name in names]]

    def useful_sets(self) -> tuple[str, ...]:
        """The sets each of whose groups has a column that varies; the smallest set always."""
        varies = {
            group_of(name)
            for name, column in zip(self.names, self.values.T, strict=True)
            if np.unique(column[~np.isnan(column)]).size > 1
        }
        first, *others = FEATURE_SETS
        return (first, *(name for name in others if varies.issuperset(FEATURE_SETS[name][1:])))


def group_of(name: str) -> str:
    """The group of a column's name."""
    return name.split(":")[0]


def visit_features(readings: Iterable[Reading]) -> VisitFeatures:
    """Age in years, sex, findings, organ systems and information content, by case id.

    Findings are those that the text affirms, coded or not, so that the coding of a source gives
    nothing away. Information is in nats over rare profiles (Resnik, IJCAI 1995). A value that the
    visit does not record is NaN; a visit without a recognised finding has a count of 0.
    """
    ontology, information = load_ontology(), load_information_content()
    found = {}
    for reading in readings:
        case, findings = reading.case, reading.affirmed
        systems = {one for term in findings for one in ontology.organ_systems(term)}
        known = [information[term] for term in findings if term in information]
        found[case.case_id] = (
            math.nan if case.age_years is None else case.age_years,
            math.nan if case.sex is None else float(case.sex == "female"),
            float(len(findings)),
            float(len(systems)),
            sum(known) / len(known) if known else math.nan,
            max(known, default=math.nan),
        )
    return found


def build_features(
    signals: Signals, blocks: Sequence[Sequence[str]], visits: VisitFeatures | None = None
) -> FeatureMatrix:
    """Build the features of every case that at least one teacher of ``blocks`` answered.

    Aggregates over teachers are computed block by block, so that each block may be weighted
    separately; columns of the second block end in ``@2``. The columns depend on ``blocks`` alone:
    signals that lack a teacher of training time give the same matrix with gaps. Answers of other
    teachers are not used. Rows are in the order of case ids.

    Args:
        signals: the teachers' answers.
        blocks: teachers as grouped by ``blocks_of``.
        visits: those of ``visit_features``; a case that is missing there has unknown values.
    """
    teachers = [name for block in blocks for name in block]
    known = signals.of(teachers)
    names = [f"risk:{name}" for name in teachers]
    values = [known.risk]
    first = 0
    for number, block in enumerate(blocks, start=1):
        columns = slice(first, first + len(block))
        first += len(block)
        end = f"@{number}" if number > 1 else ""
        for group, features, found in _aggregates(known.columns(columns)):
            names += [f"{group}:{name}{end}" for name in features]
            values.append(found)
    names += [f"case:{name}" for name in VISIT]
    unknown = (np.nan,) * len(VISIT)
    of_visits = [(visits or {}).get(case_id, unknown) for case_id in known.case_ids]
    values.append(np.asarray(of_visits, dtype=np.float64).reshape(-1, len(VISIT)))
    return FeatureMatrix(known.case_ids, tuple(names), np.concatenate(values, axis=1))


def blocks_of(signals: Signals) -> tuple[tuple[str, ...], ...]:
    """Group the teachers into blocks: two that answered common cases share one.

    Recorded panels come in blocks, each of which answered one source; where every teacher was asked
    about every case there is one block. At least a tenth of the answers of the teacher who answered
    less must be to common cases, so that a few strays do not link two blocks.
    """
    answered = signals.answered().astype(np.intp)
    common = answered.T @ answered
    least = np.minimum.outer(common.diagonal(), common.diagonal())
    linked = (common > 0) & (common >= _COMMON * least)
    _, block = connected_components(csr_matrix(linked), directed=False)
    found = [
        tuple(name for name, one in zip(signals.teachers, block, strict=True) if one == number)
        for number in range(int(block.max(initial=-1)) + 1)
    ]
    return tuple(sorted(found))


def _aggregates(signals: Signals) -> Iterator[tuple[str, tuple[str, ...], Floats]]:
    """Group, names and values, shape ``(n, len(names))``, of each aggregate over teachers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice|All-NaN|Degrees", RuntimeWarning)
        yield "spread", _SPREAD, _spread(signals.risk)
        yield "differential", _DIFFERENTIAL, _differential(signals)
        attention = np.nanmean(signals.attention, axis=1)
        yield "insight", _INSIGHT, np.column_stack([attention, _overlap(signals.reasons)])


def _spread(risk: Floats) -> Floats:
    """Statistics of the known risks, in the order of ``_SPREAD``, shape ``(n, 8)``."""
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


def _differential(signals: Signals) -> Floats:
    """Statistics of the differentials, in the order of ``_DIFFERENTIAL``, shape ``(n, 10)``."""
    given, orphanet = signals.named > 0, signals.orphanet
    length = given.sum(axis=2)
    naming = length > 0
    by_rank = 1 / np.arange(1, PLACES + 1)

    def mean(of_teacher: Floats) -> Floats:
        return np.asarray(np.nanmean(np.where(naming, of_teacher, np.nan), axis=1))

    def by_weight(of_place: NDArray[Any]) -> Floats:
        weighted = np.where(given, of_place, 0.0) * by_rank
        return np.asarray(weighted.sum(axis=2) / np.maximum((given * by_rank).sum(axis=2), 1e-9))

    votes = _votes(signals.named)
    most = votes.max(axis=(1, 2), initial=0)
    leading = (votes == most[:, None, None]) & given
    mentions = length.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        surprise = np.where(given, -np.log(votes / mentions[:, None, None]), 0.0)
        entropy = surprise.sum(axis=(1, 2)) / mentions / np.log(mentions)
        found = [
            mean(orphanet.sum(axis=2) / np.maximum(length, 1)),
            mean(orphanet[:, :, 0].astype(float)),
            mean(by_weight(orphanet)),
            mean(orphanet.any(axis=2).astype(float)),
            _overlap(signals.named),
            most / naming.sum(axis=1),
            (orphanet & leading).sum(axis=(1, 2)) / leading.sum(axis=(1, 2)),
            np.where(mentions == 1, 0.0, entropy),
            _distance(signals.systems[:, :, 0]),
            mean(by_weight(signals.rarity)),
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


def _pairs(teachers: int) -> Iterator[tuple[int, int]]:
    return combinations(range(teachers), 2)


def _mean_of_known(columns: Iterator[Floats], cases: int) -> Floats:
    """The mean of those of ``columns``, each ``(n,)``, that are not NaN; NaN where all are."""
    total, count = np.zeros(cases), np.zeros(cases)
    for column in columns:
        known = ~np.isnan(column)
        total += np.where(known, column, 0.0)
        count += known
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
