"""One case's risk, voice by voice: how far each moved it from where nothing is known."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rarealert.alignment.ensemble import Ensemble
from rarealert.alignment.features import FeatureMatrix, build_features, group_of
from rarealert.alignment.panel import Panel
from rarealert.alignment.shapley import Shapley, columns_heard, log_odds_of, shapley_values

_ORDERS = 4  # of the columns, each there and back; Shapley values are their mean


@dataclass(frozen=True)
class Voice:
    """A teacher, or all columns of one kind that are worked out over teachers or visit.

    ``log_odds`` is how far it moved the case's log odds. For a teacher that answered, ``said`` is
    its risk 0 to 1 and ``risk_without`` the ensemble's had it been silent, which its share in the
    other columns enters into too; ``None`` for anything else, and where nobody else answered.
    """

    name: str
    log_odds: float
    said: float | None = None
    risk_without: float | None = None


@dataclass(frozen=True)
class CaseExplanation:
    """A case's ``risk`` 0 to 1 as log odds: ``base``, nothing known, plus all of ``voices``.

    ``voices`` stand with the heaviest first; ``columns`` are the same in full, by column.
    ``labels`` and ``strangeness`` are those of ``Assessment``.
    """

    risk: float
    base: float
    voices: tuple[Voice, ...]
    columns: Mapping[str, float]
    labels: Mapping[float, tuple[str, ...]]
    strangeness: float


def explain_case(
    ensemble: Ensemble,
    panel: Panel,
    visits: Mapping[str, Sequence[float]],
    case_id: str,
    seed: int,
) -> CaseExplanation | None:
    """The frozen ensemble's risk of ``case_id``; ``None`` where no teacher it knows answered.

    All other cases of ``panel`` stand for "unknown". ``visits`` are those of ``visit_features``.
    Shapley values are sampled as ``shapley_values`` says, from four orders drawn by ``seed``.
    """
    features = build_features(panel, ensemble.blocks, visits)
    if case_id not in features.case_ids:
        return None
    row = features.case_ids.index(case_id)
    case, background = features.values[row], np.delete(features.values, row, axis=0)
    model = ensemble.model
    players, rng = columns_heard(model), np.random.default_rng(seed)
    sampled = [
        shapley_values(log_odds_of(model), case, background, players, rng) for _ in range(_ORDERS)
    ]
    values = np.mean([found for found, _ in sampled], axis=0)
    names = tuple(features.names[place] for place in players)
    risk = float(model.risks(case[None])[0])
    return CaseExplanation(
        risk=risk,
        base=sampled[0][1],
        voices=_voices(ensemble, panel, visits, (features, row), (names, values)),
        columns=dict(zip(names, values.tolist(), strict=True)),
        labels={level: cuts.labels(risk) for level, cuts in ensemble.cuts.items()},
        strangeness=float(ensemble.familiarity.strangeness(case[None])[0]),
    )


def _voices(
    ensemble: Ensemble,
    panel: Panel,
    visits: Mapping[str, Sequence[float]],
    at: tuple[FeatureMatrix, int],
    moved: tuple[tuple[str, ...], NDArray[np.float64]],
) -> tuple[Voice, ...]:
    """Teachers that answered and whatever moved the risk; ``moved`` are columns and values."""
    features, row = at
    case_id = features.case_ids[row]
    names, values = moved
    alone = Shapley(np.zeros(1, int), names, values[None], np.zeros(1), np.zeros(1, int))
    by_group = {name: float(found[0]) for name, found in alone.by_group().items()}
    voices = []
    for place, name in enumerate(features.names):
        if group_of(name) != "risk":
            break  # the risks come first
        said, teacher = features.values[row, place], name.partition(":")[2]
        heard = by_group.pop(name, 0.0)
        if not np.isnan(said):
            without = _risk_without(ensemble, panel.among([case_id]), visits, teacher)
            voices.append(Voice(teacher, heard, float(said), without))
        elif heard:
            voices.append(Voice(teacher, heard))
    voices += [Voice(group, told) for group, told in by_group.items()]
    return tuple(sorted(voices, key=lambda voice: (-abs(voice.log_odds), voice.name)))


def _risk_without(
    ensemble: Ensemble, case: Panel, visits: Mapping[str, Sequence[float]], teacher: str
) -> float | None:
    gaps = np.zeros_like(case.answered())
    gaps[:, case.teachers.index(teacher)] = True
    features = build_features(case.silenced(gaps), ensemble.blocks, visits)
    if not features.case_ids:
        return None
    return float(ensemble.model.risks(features.values)[0])


def draw_background(case_ids: Iterable[str], cases: int, seed: int) -> list[str]:
    """Up to ``cases`` of the ids, drawn at random, the same ones for every case explained."""
    known = sorted(case_ids)
    chosen = np.random.default_rng(seed).choice(len(known), min(cases, len(known)), replace=False)
    return [known[place] for place in sorted(chosen)]
