"""From answers to numbers: one row a case, columns in named sets that can be screened.

What is unknown is NaN, never 0. No column counts answers or flags a missing teacher: who was asked
follows the source of a case, so such a column would tell the source, and through its share of
rare cases the label.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, median, pstdev

import numpy as np
from numpy.typing import NDArray

from rarealert.teachers.answer import Answer, Insight, TeacherAnswer

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

Panel = Mapping[str, Mapping[str, "Voice"]]
"""Who said what, by case id, then teacher; failed and missing answers are left out."""


@dataclass(frozen=True)
class Voice:
    """What the features need of one answer, worked out once.

    ``risk`` is 0 to 1; ``named`` are the differential's diseases, most likely first, each with
    whether it is an Orphanet disorder; ``attention`` is entropy, concentration and largest weight
    of the insights, or ``None`` where none was given.
    """

    risk: float
    named: tuple[tuple[str, bool], ...]
    diseases: frozenset[str]
    reasons: frozenset[str]
    attention: tuple[float, float, float] | None


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


def panel_of(answers: Iterable[TeacherAnswer]) -> Panel:
    """The given answers of ``answers`` by case, then teacher."""
    found: dict[str, dict[str, Voice]] = defaultdict(dict)
    for item in answers:
        if item.answer is not None:
            found[item.case_id][item.teacher] = _voice(item.answer)
    return dict(found)


def _voice(answer: Answer) -> Voice:
    named = tuple(
        (item.orpha_code or normalised(item.name), item.orpha_code is not None)
        for item in answer.differential
    )
    return Voice(
        risk=answer.risk / 100,
        named=named,
        diseases=frozenset(disease for disease, _ in named),
        reasons=frozenset(normalised(item.name) for item in answer.insights),
        attention=_attention(answer.insights) if answer.insights else None,
    )


def _attention(insights: Sequence[Insight]) -> tuple[float, float, float]:
    """Normalised Shannon entropy, Herfindahl index and largest of the weights, each 0 to 1."""
    weights = [item.weight for item in insights]
    entropy = -sum(weight * math.log(weight) for weight in weights if weight > 0)
    most = math.log(len(weights))
    concentration = sum(weight * weight for weight in weights)
    return (entropy / most if most else 0.0, concentration, max(weights))


def build_features(panel: Panel, teachers: Sequence[str]) -> FeatureMatrix:
    """Features of every case that at least one of ``teachers`` answered, by case id.

    The columns depend on ``teachers`` alone, so a panel frozen at training time gives the same
    matrix later, whoever is missing then. Answers of anyone else are not looked at.
    """
    names = (
        *(f"risk:{name}" for name in teachers),
        *(f"spread:{name}" for name in _SPREAD),
        *(f"differential:{name}" for name in _DIFFERENTIAL),
        *(f"insight:{name}" for name in _INSIGHT),
    )
    known = set(teachers)
    case_ids = tuple(sorted(case_id for case_id, said in panel.items() if known & said.keys()))
    values = np.empty((len(case_ids), len(names)))
    for row, case_id in enumerate(case_ids):
        said = panel[case_id]
        heard = [said[name] for name in teachers if name in said]
        risks = [said[name].risk if name in said else math.nan for name in teachers]
        values[row] = [*risks, *_spread(heard), *_differential(heard), *_insight(heard)]
    return FeatureMatrix(case_ids, names, values)


def _spread(heard: Sequence[Voice]) -> list[float]:
    """How the present risks lie, in the order of ``_SPREAD``."""
    risks = [voice.risk for voice in heard]
    low, high = min(risks), max(risks)
    votes = fmean(risk >= _VOTE for risk in risks)
    return [fmean(risks), median(risks), pstdev(risks), low, high, high - low, votes]


def _differential(heard: Sequence[Voice]) -> list[float]:
    """What the differentials name, in the order of ``_DIFFERENTIAL``."""
    naming = [voice for voice in heard if voice.named]
    if not naming:
        return [math.nan] * len(_DIFFERENTIAL)
    lists = [voice.named for voice in naming]
    namers = Counter(disease for said in lists for disease in set(said))
    most = max(namers.values())
    return [
        fmean(fmean(rare for _, rare in said) for said in lists),
        fmean(said[0][1] for said in lists),
        fmean(_rank_weighted(said) for said in lists),
        fmean(any(rare for _, rare in said) for said in lists),
        mean_jaccard([voice.diseases for voice in naming]),
        most / len(lists),
        fmean(rare for (_, rare), votes in namers.items() if votes == most),
    ]


def _rank_weighted(said: Sequence[tuple[str, bool]]) -> float:
    """Share of Orphanet disorders where place ``k`` counts ``1 / k``."""
    weights = [1 / place for place in range(1, len(said) + 1)]
    named = sum(weight for weight, (_, rare) in zip(weights, said, strict=True) if rare)
    return named / sum(weights)


def _insight(heard: Sequence[Voice]) -> list[float]:
    """How the teachers spread their attention, in the order of ``_INSIGHT``."""
    attention = [voice.attention for voice in heard if voice.attention is not None]
    if not attention:
        return [math.nan] * len(_INSIGHT)
    reasons = [voice.reasons for voice in heard if voice.reasons]
    return [*(fmean(column) for column in zip(*attention, strict=True)), mean_jaccard(reasons)]


def mean_jaccard(sets: Sequence[Collection[str]]) -> float:
    """Mean Jaccard index over all pairs of non-empty sets, 0 to 1; NaN for fewer than two."""
    if len(sets) < 2:
        return math.nan
    pairs = combinations([frozenset(one) for one in sets], 2)
    return fmean(len(a & b) / len(a | b) for a, b in pairs)


def normalised(name: str) -> str:
    """``name`` in lower case with single spaces between its runs of letters and digits."""
    return re.sub(r"[^a-z0-9]+", " ", name.lower()).strip()
