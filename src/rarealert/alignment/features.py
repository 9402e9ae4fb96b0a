"""From answers to numbers: one row a case, columns in named sets that can be screened.

What is unknown is NaN, never 0. No column counts answers or flags a missing teacher: who was asked
follows the source of a case, so such a column would tell the source, and through its share of
rare cases the label.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from rarealert.teachers.answer import Answer, TeacherAnswer

T = TypeVar("T")

FEATURE_SETS: Mapping[str, tuple[str, ...]] = {
    "risk": ("risk",),
    "risk+spread": ("risk", "spread"),
    "risk+spread+differential": ("risk", "spread", "differential"),
    "risk+spread+differential+insight": ("risk", "spread", "differential", "insight"),
}
"""What the screening compares: the design's cumulative sets, by the groups they hold."""

_SPREAD = ("mean", "median", "sd", "min", "max", "range", "vote_share")
_DIFFERENTIAL = (
    "orphanet_share",
    "orphanet_first",
    "orphanet_rank_weighted",
    "orphanet_any",
    "overlap",
    "consensus",
    "consensus_orphanet",
)
_INSIGHT = ("entropy", "concentration", "largest_weight", "overlap")
_VOTE = 0.5  # a risk of at least 50 % is a vote for rare


@dataclass(frozen=True)
class FeatureMatrix:
    """Numbers for the cases that someone answered.

    ``values`` has shape ``(n_cases, n_features)``, float64, NaN where unknown; ``names`` are
    ``<group>:<feature>``, the group being one of those in ``FEATURE_SETS``.
    """

    case_ids: tuple[str, ...]
    names: tuple[str, ...]
    values: NDArray[np.float64]

    def columns(self, feature_set: str) -> NDArray[np.intp]:
        """Positions of the columns of a named set, shape ``(k,)``."""
        groups = FEATURE_SETS[feature_set]
        chosen = [i for i, name in enumerate(self.names) if name.split(":")[0] in groups]
        return np.asarray(chosen, dtype=np.intp)

    def useful_sets(self) -> tuple[str, ...]:
        """The sets whose last group adds a column that varies; the smallest set always."""
        varies = {
            name.split(":")[0]
            for name, column in zip(self.names, self.values.T, strict=True)
            if np.unique(column[~np.isnan(column)]).size > 1
        }
        first, *others = FEATURE_SETS
        return (first, *(name for name in others if FEATURE_SETS[name][-1] in varies))


def answered_by(answers: Iterable[TeacherAnswer]) -> dict[str, dict[str, Answer]]:
    """The given answers by case, then teacher; failed and missing ones are left out."""
    found: dict[str, dict[str, Answer]] = defaultdict(dict)
    for item in answers:
        if item.answer is not None:
            found[item.case_id][item.teacher] = item.answer
    return dict(found)


def build_features(answers: Iterable[TeacherAnswer], teachers: Sequence[str]) -> FeatureMatrix:
    """Features of every case that at least one of ``teachers`` answered, by case id.

    The columns depend on ``teachers`` alone, so a panel frozen at training time gives the same
    matrix later, whoever is missing then. Answers of anyone else are not looked at.
    """
    known = set(teachers)
    heard = {
        case_id: {name: said for name, said in by_teacher.items() if name in known}
        for case_id, by_teacher in answered_by(answers).items()
    }
    case_ids = tuple(sorted(case_id for case_id, said in heard.items() if said))
    names = (
        *(f"risk:{name}" for name in teachers),
        *(f"spread:{name}" for name in _SPREAD),
        *(f"differential:{name}" for name in _DIFFERENTIAL),
        *(f"insight:{name}" for name in _INSIGHT),
    )
    values = np.empty((len(case_ids), len(names)))
    for row, case_id in enumerate(case_ids):
        said = heard[case_id]
        panel = [said[name] for name in teachers if name in said]
        risks = [said[name].risk / 100 if name in said else math.nan for name in teachers]
        values[row] = [*risks, *_spread(panel), *_differential(panel), *_insight(panel)]
    return FeatureMatrix(case_ids, names, values)


def _spread(panel: Sequence[Answer]) -> list[float]:
    """How the present risks lie, in the order of ``_SPREAD``."""
    risks = np.asarray([answer.risk / 100 for answer in panel])
    low, high = float(risks.min()), float(risks.max())
    return [
        float(risks.mean()),
        float(np.median(risks)),
        float(risks.std()),
        low,
        high,
        high - low,
        float((risks >= _VOTE).mean()),
    ]


def _differential(panel: Sequence[Answer]) -> list[float]:
    """What the differentials name, in the order of ``_DIFFERENTIAL``."""
    lists = [
        [(item.orpha_code or normalised(item.name), item.orpha_code is not None) for item in said]
        for said in (answer.differential for answer in panel)
        if said
    ]
    if not lists:
        return [math.nan] * len(_DIFFERENTIAL)
    namers = Counter(disease for said in lists for disease in set(said))
    most = max(namers.values())
    return [
        _mean(lists, lambda said: sum(rare for _, rare in said) / len(said)),
        _mean(lists, lambda said: float(said[0][1])),
        _mean(lists, _rank_weighted),
        _mean(lists, lambda said: float(any(rare for _, rare in said))),
        mean_jaccard([{disease for disease, _ in said} for said in lists]),
        most / len(lists),
        float(np.mean([rare for (_, rare), votes in namers.items() if votes == most])),
    ]


def _rank_weighted(said: Sequence[tuple[str, bool]]) -> float:
    """Share of Orphanet disorders where place ``k`` counts ``1 / k``."""
    weights = [1 / place for place in range(1, len(said) + 1)]
    named = sum(weight for weight, (_, rare) in zip(weights, said, strict=True) if rare)
    return named / sum(weights)


def _insight(panel: Sequence[Answer]) -> list[float]:
    """How the teachers spread their attention, in the order of ``_INSIGHT``."""
    lists = [answer.insights for answer in panel if answer.insights]
    if not lists:
        return [math.nan] * len(_INSIGHT)
    weights = [np.asarray([item.weight for item in said]) for said in lists]
    return [
        _mean(weights, _normalised_entropy),
        _mean(weights, lambda shares: float((shares**2).sum())),
        _mean(weights, lambda shares: float(shares.max())),
        mean_jaccard([{normalised(item.name) for item in said} for said in lists]),
    ]


def _normalised_entropy(shares: NDArray[np.float64]) -> float:
    """Shannon entropy of ``shares`` over its maximum, 0 to 1; 0 for a single insight."""
    if shares.size == 1:
        return 0.0
    positive = shares[shares > 0]
    return float(-(positive * np.log(positive)).sum() / math.log(shares.size))


def mean_jaccard(sets: Sequence[set[str]]) -> float:
    """Mean Jaccard index over all pairs, 0 to 1; NaN for fewer than two sets."""
    pairs = [len(a & b) / len(a | b) for a, b in combinations(sets, 2)]
    return float(np.mean(pairs)) if pairs else math.nan


def normalised(name: str) -> str:
    """``name`` in lower case with single spaces between its runs of letters and digits."""
    return re.sub(r"[^a-z0-9]+", " ", name.lower()).strip()


def _mean(items: Sequence[T], of: Callable[[T], float]) -> float:
    return float(np.mean([of(item) for item in items]))
