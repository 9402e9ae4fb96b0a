"""One case's risk by the frozen ensemble, part by part: ``rarealert explain CASE_ID``."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rarealert.ensemble.alignment_plots import waterfall
from rarealert.ensemble.alignment_report import rounded
from rarealert.ensemble.ensemble import Ensemble, load_ensemble
from rarealert.ensemble.explanation import log_odds_of, shapley_values, sum_by_group, used_columns
from rarealert.ensemble.features import VisitFeatures, build_features, visit_features
from rarealert.ensemble.signals import Signals, read_signals
from rarealert.errors import BadInputError
from rarealert.files import whole, write_json
from rarealert.params import load_params
from rarealert.paths import Paths
from rarealert.visits.case import LabelledCase
from rarealert.visits.reading import read_visit
from rarealert.visits.store import read_cases

_PARTS = ("train", "valid")
_BACKGROUND = 60  # training cases that represent "unknown"; the cost grows with them
_ORDERS = 4  # of the columns, each with its reverse; Shapley values are their mean
_GROUPS = {
    "spread": "spread of their risks",
    "differential": "the diseases they name",
    "insight": "how they weigh findings",
    "case": "the visit itself",
}


@dataclass(frozen=True)
class Contribution:
    """What one teacher, or one group of columns, adds to the log odds of a case.

    For a teacher that answered, ``stated`` is its risk 0 to 1 and ``risk_without`` the ensemble's
    without its answer, which also removes the teacher from the aggregate columns. Both are ``None``
    for anything else; ``risk_without`` also where no other teacher answered.
    """

    name: str
    log_odds: float
    stated: float | None = None
    risk_without: float | None = None


@dataclass(frozen=True)
class CaseExplanation:
    """A case's ``risk`` 0 to 1; its log odds are ``base``, nothing known, plus ``contributions``.

    ``contributions`` are in descending order of their size; ``columns`` are the same, by column.
    ``labels`` are those that can't be excluded at each confidence, and ``unfamiliarity`` the share
    0 to 1 of training cases that are more familiar.
    """

    risk: float
    base: float
    contributions: tuple[Contribution, ...]
    columns: Mapping[str, float]
    labels: Mapping[float, tuple[str, ...]]
    unfamiliarity: float


def explain_case(
    ensemble: Ensemble, signals: Signals, visits: VisitFeatures, case_id: str, seed: int
) -> CaseExplanation | None:
    """Explain the risk of ``case_id``; ``None`` where no teacher of the ensemble answered.

    All other cases of ``signals`` represent "unknown". Shapley values are sampled by
    ``shapley_values``, from four orders drawn by ``seed``.
    """
    features = build_features(signals, ensemble.blocks, visits)
    if case_id not in features.case_ids:
        return None
    row = features.case_ids.index(case_id)
    case, background = features.values[row], np.delete(features.values, row, axis=0)
    model = ensemble.model
    players, rng = used_columns(model), np.random.default_rng(seed)
    sampled = [
        shapley_values(log_odds_of(model), case, background, players, rng) for _ in range(_ORDERS)
    ]
    values = np.mean([found for found, _ in sampled], axis=0)
    names = tuple(features.names[place] for place in players)
    risk = float(model.risks(case[None])[0])
    by_group = {name: float(value) for name, value in sum_by_group(names, values).items()}
    return CaseExplanation(
        risk=risk,
        base=sampled[0][1],
        contributions=_contributions(ensemble, signals.among([case_id]), visits, by_group),
        columns=dict(zip(names, values.tolist(), strict=True)),
        labels={level: cuts.labels(risk) for level, cuts in ensemble.cuts.items()},
        unfamiliarity=float(ensemble.unfamiliarity(case[None])[0]),
    )


def _contributions(
    ensemble: Ensemble, case: Signals, visits: VisitFeatures, by_group: Mapping[str, float]
) -> tuple[Contribution, ...]:
    """Teachers that answered ``case``, and whatever else moved its risk."""
    stated = dict(zip(case.teachers, case.risk[0].tolist(), strict=True))
    groups = dict(by_group)
    contributions = []
    for teacher in ensemble.teachers:
        log_odds, risk = groups.pop(f"risk:{teacher}", 0.0), stated.get(teacher, math.nan)
        if not math.isnan(risk):
            without = _risk_without(ensemble, case, visits, teacher)
            contributions.append(Contribution(teacher, log_odds, risk, without))
        elif log_odds:
            contributions.append(Contribution(teacher, log_odds))
    contributions += [Contribution(group, log_odds) for group, log_odds in groups.items()]
    return tuple(sorted(contributions, key=lambda one: (-abs(one.log_odds), one.name)))


def _risk_without(
    ensemble: Ensemble, case: Signals, visits: VisitFeatures, teacher: str
) -> float | None:
    features = build_features(case.without_teacher(teacher), ensemble.blocks, visits)
    if not features.case_ids:
        return None
    return float(ensemble.model.risks(features.values)[0])


def explain_to_terminal(case_id: str, png: Path | None, out: Path | None) -> str:
    """Return a table of the contributions to the risk of a training or validation case.

    The same is written to ``out`` as JSON and, column by column, to ``png`` as a waterfall. None
    of them contains text of the visit.

    Raises:
        BadInputError: ``align`` has not run, the case is in neither part, no teacher of the
            ensemble answered it, or a file can't be written.
    """
    paths = Paths.here()
    parts = {part: read_cases(paths.build("split") / f"{part}.parquet") for part in _PARTS}
    found = {item.case.case_id: (item, part) for part in _PARTS for item in parts[part]}
    if case_id not in found:
        raise BadInputError(
            f"{case_id} is in neither the training nor the validation part, and no other case is "
            "explained: only score reads the test part. Take a case_id of "
            "build/align/risk.parquet."
        )
    case, part = found[case_id]
    targets = _read_out_of_fold(paths)
    answered = [item for item in parts["train"] if item.case.case_id in targets]
    explained = _explain(paths, case, answered)
    try:
        if png is not None:
            _draw(explained, case, png)
        if out is not None:
            write_json(out, _as_json(explained, case_id, part))
    except OSError as error:
        raise BadInputError(
            f"{error.filename} can't be written; name a file in a folder that you can write to."
        ) from error
    return _table(explained, case_id, part, targets.get(case_id))


def _explain(paths: Paths, case: LabelledCase, answered: list[LabelledCase]) -> CaseExplanation:
    """``case`` against some of ``answered``, which represent "unknown"."""
    ensemble = load_ensemble(paths.build("align") / "model.skops")
    seed, case_id = load_params(paths.params).align.seed, case.case.case_id
    others = {item.case.case_id: item.case for item in answered if item.case.case_id != case_id}
    drawn = draw_background(others, _BACKGROUND, seed)
    signals = read_signals(paths.build("rationales") / "answers.parquet", [case_id, *drawn])
    shown = (case.case, *(others[name] for name in drawn))
    visits = visit_features(read_visit(one) for one in shown)
    explained = explain_case(ensemble, signals, visits, case_id, seed)
    if explained is None:
        raise BadInputError(
            f"{case_id} has no answer of a teacher of the ensemble, so it has no risk; ask one "
            "(rarealert teach), then run dvc repro."
        )
    return explained


def draw_background(case_ids: Iterable[str], cases: int, seed: int) -> list[str]:
    """Draw up to ``cases`` of the ids, the same ones for every case explained."""
    known = sorted(case_ids)
    chosen = np.random.default_rng(seed).choice(len(known), min(cases, len(known)), replace=False)
    return [known[place] for place in sorted(chosen)]


def _read_out_of_fold(paths: Paths) -> dict[str, float]:
    """The student's targets: the risk of every answered training case."""
    import pyarrow.parquet as pq

    path = paths.build("align") / "risk.parquet"
    if not path.is_file():
        raise BadInputError(f"{path} is missing; run the align stage (dvc repro align).")
    rows = pq.read_table(path, filters=[("part", "=", "train")]).to_pylist()
    return {row["case_id"]: row["risk"] for row in rows}


def _table(found: CaseExplanation, case_id: str, part: str, out_of_fold: float | None) -> str:
    rows = _rows(found)
    width = max(map(len, ["nothing known", *(one.name for one in rows)]))
    head = f"{'':<{width}}  stated  log odds  risk so far  risk without it"
    lines = [head, f"{'nothing known':<{width}}  {'':>6}  {'':>8}  {_risk(found.base):>11.2f}"]
    reached = found.base
    for one in rows:
        reached += one.log_odds
        stated = "" if one.stated is None else f"{one.stated:.2f}"
        without = "" if one.risk_without is None else f"{one.risk_without:.2f}"
        lines.append(
            f"{one.name:<{width}}  {stated:>6}  {one.log_odds:>+8.2f}  "
            f"{_risk(reached):>11.2f}  {without:>15}".rstrip()
        )
    sets = ", ".join(
        f"{level:.0%}: {' or '.join(labels) or 'none'}" for level, labels in found.labels.items()
    )
    return "\n".join(
        [
            _summary(found, case_id, part, out_of_fold),
            f"Labels that can't be excluded at a confidence of {sets}.",
            f"Less familiar than {found.unfamiliarity:.0%} of the training cases.",
            "",
            *lines,
        ]
    )


def _summary(found: CaseExplanation, case_id: str, part: str, out_of_fold: float | None) -> str:
    sentence = f"{case_id} ({part}): risk {found.risk:.2f} by the frozen ensemble"
    if part == "train":
        sentence += ", which was fitted on this case"
    if out_of_fold is not None:
        sentence += f"; {out_of_fold:.2f} by the model that never saw its disease"
    return f"{sentence}."


def _rows(found: CaseExplanation) -> list[Contribution]:
    """The contributions with names for readers; missing teachers are one row, the last."""
    rows, missing = [], []
    for one in found.contributions:
        if one.stated is not None:
            rows.append(one)
        elif one.name in _GROUPS:
            rows.append(Contribution(_GROUPS[one.name], one.log_odds))
        else:
            missing.append(one.log_odds)
    if missing:
        rows.append(Contribution(f"{len(missing)} who did not answer", sum(missing)))
    return rows


def _risk(log_odds: float) -> float:
    return 1 / (1 + math.exp(-log_odds))


def _as_json(found: CaseExplanation, case_id: str, part: str) -> dict[str, Any]:
    content: dict[str, Any] = rounded(
        {
            "risk": found.risk,
            "base": found.base,
            "voices": [
                {
                    "name": one.name,
                    "log_odds": one.log_odds,
                    "said": one.stated,
                    "risk_without": one.risk_without,
                }
                for one in found.contributions
            ],
            "columns": found.columns,
            "labels": found.labels,
            "strangeness": found.unfamiliarity,
        }
    )
    return {"case_id": case_id, "part": part, **content}


def _draw(found: CaseExplanation, case: LabelledCase, png: Path) -> None:
    names, values = tuple(found.columns), np.asarray(list(found.columns.values()))
    rare = case.label.label == "rare"
    figure = waterfall(names, values, found.base, case.case.case_id, rare=rare)
    with whole(png) as partial:
        figure.savefig(partial, format="png", dpi=120)
