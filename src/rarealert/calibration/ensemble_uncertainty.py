"""How sure a risk is: sets with stated coverage, what abstaining buys, and who is a stranger."""

import contextlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.covariance import LedoitWolf

from rarealert.ensemble.algorithms import NeutralImputer
from rarealert.evaluation.discrimination import UndefinedMetricError, auroc

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

CONFIDENCES = (0.8, 0.9, 0.95)
"""Coverages 0-1 that sets are made for."""
_ROUNDING = 1e-12  # of 1 - (1 - risk); cases whose risk ties with a cut belong inside it
_KEPT = tuple(round(1 - 0.05 * step, 2) for step in range(16))  # shares of cases, 1 to 0.25


@dataclass(frozen=True)
class Cuts:
    """A set holds "rare" from risk ``rare_from`` on, and "nonrare" up to ``nonrare_to``.

    Between them, where both hold, the set says that it does not know.
    """

    rare_from: float
    nonrare_to: float

    def labels(self, risk: float) -> tuple[str, ...]:
        """The set of one risk."""
        rare, nonrare = risk >= self.rare_from, risk <= self.nonrare_to
        return (*(["rare"] if rare else []), *(["nonrare"] if nonrare else []))

    def holds(self, rare: Bools, risks: Floats) -> Bools:
        """Whether each case's set holds its label, shape ``(n_cases,)``."""
        return np.where(rare, risks >= self.rare_from, risks <= self.nonrare_to)

    def decided(self, risks: Floats) -> Bools:
        """Whether each case's set has exactly one label, shape ``(n_cases,)``."""
        return np.asarray((risks >= self.rare_from) != (risks <= self.nonrare_to), dtype=bool)


class _AsRisk(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # sklearn is untyped
    """A classifier whose probability of "rare" is its only column."""

    def fit(self, _values: Floats, _rare: Bools) -> Self:
        self.classes_ = np.asarray([0, 1])
        return self

    def predict_proba(self, values: Floats) -> Floats:
        return np.column_stack([1 - values[:, 0], values[:, 0]])

    def predict(self, values: Floats) -> NDArray[Any]:
        return (values[:, 0] >= 0.5).astype(int)


def conformal_cuts(rare: Bools, risks: Floats) -> Mapping[float, Cuts]:
    """Cuts for each of ``CONFIDENCES``, from cases that the model was not fitted on.

    Split conformal prediction with the least ambiguous sets (Sadinle, Lei and Wasserman, JASA
    114:223, 2019), by mapie. It is asked for sets at the risks where one can change, so that a cut
    lies on the risk that sets it: calibrated risks are often tied there, and sets that miss the
    tie cover too little. A confidence that so few cases can't support gets sets of both labels.
    """
    from mapie.classification import SplitConformalClassifier

    model = _AsRisk().fit(np.empty((0, 1)), np.empty(0, dtype=bool))
    able = [level for level in CONFIDENCES if len(rare) * (1 - level) >= 1]  # mapie's own bound
    cuts = dict.fromkeys(CONFIDENCES, Cuts(0.0, 1.0))
    if not able:
        return cuts
    splitter = SplitConformalClassifier(
        model, confidence_level=able, conformity_score="lac", prefit=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of empty sets, which are an answer here
        splitter.conformalize(risks[:, None], rare.astype(int))
        places = np.unique(np.concatenate([risks, 1 - risks]))
        sets = splitter.predict_set(places[:, None])[1]
    for place, level in enumerate(able):
        nonrare, is_rare = sets[:, 0, place], sets[:, 1, place]
        cuts[level] = Cuts(
            max(0.0, float(places[is_rare].min()) - _ROUNDING),
            min(1.0, float(places[nonrare].max()) + _ROUNDING),
        )
    return cuts


@dataclass(frozen=True)
class Coverage:
    """What sets of a stated ``confidence`` did on diseases that did not set their cuts."""

    confidence: float
    covered: float
    covered_rare: float | None
    covered_nonrare: float | None
    decided: float
    cases: int


def coverages(rare: Bools, risks: Floats, fold: NDArray[np.intp]) -> list[Coverage]:
    """Coverage on each fold with cuts from the others; ``risks`` must be out-of-fold."""
    held = np.zeros((len(CONFIDENCES), len(rare)), dtype=bool)
    decided = np.zeros_like(held)
    for number in np.unique(fold):
        out = fold == number
        cuts = conformal_cuts(rare[~out], risks[~out])
        for place, level in enumerate(CONFIDENCES):
            held[place, out] = cuts[level].holds(rare[out], risks[out])
            decided[place, out] = cuts[level].decided(risks[out])
    return [
        Coverage(
            level,
            float(held[place].mean()),
            float(held[place, rare].mean()) if rare.any() else None,
            float(held[place, ~rare].mean()) if (~rare).any() else None,
            float(decided[place].mean()),
            len(rare),
        )
        for place, level in enumerate(CONFIDENCES)
    ]


def abstention_curve(rare: Bools, risks: Floats) -> list[dict[str, float]]:
    """Accuracy, Brier score and AUROC of the cases kept when the least sure are sent on.

    Sure is far from 0.5; a row for each share of cases that is kept.
    """
    order = np.argsort(-np.abs(risks - 0.5), kind="stable")
    rows = []
    for share in _KEPT:
        kept = order[: max(1, round(share * len(order)))]
        wrong = risks[kept] - rare[kept]
        row = {
            "kept": share,
            "accuracy": float(((risks[kept] >= 0.5) == rare[kept]).mean()),
            "brier": float((wrong**2).mean()),
        }
        with contextlib.suppress(UndefinedMetricError):  # the surest are all of one class
            row["auroc"] = auroc(rare[kept], risks[kept])
        rows.append(row)
    return rows


@dataclass(frozen=True)
class Familiarity:
    """How far a case's features lie from those the ensemble has learnt on.

    The Mahalanobis distance with a shrunk covariance (Ledoit and Wolf, J Multivariate Anal 88:365,
    2004); ``reference`` are the sorted distances of the training cases, at most 1,001 quantiles.
    """

    neutral: Floats
    mean: Floats
    scale: Floats
    precision: Floats
    reference: Floats

    def strangeness(self, values: Floats) -> Floats:
        """The share 0 to 1 of training cases that lie nearer, shape ``(n_cases,)``."""
        nearer = np.searchsorted(self.reference, self.distances(values))
        return np.asarray(nearer / len(self.reference), dtype=np.float64)

    def distances(self, values: Floats) -> Floats:
        """Squared distances, shape ``(n_cases,)``, of values ``(n_cases, n_features)``."""
        filled = np.where(np.isnan(values), self.neutral, values)
        away = (filled - self.mean) / self.scale
        return np.asarray(np.einsum("ij,jk,ik->i", away, self.precision, away))


def learn_familiarity(values: Floats, rare: Bools) -> Familiarity:
    """The familiarity of training values, shape ``(n_cases, n_features)`` with NaN for gaps."""
    imputer = NeutralImputer().fit(values, rare)
    filled = np.where(np.isnan(values), imputer.neutral_, values)
    mean, spread = filled.mean(axis=0), filled.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    precision = LedoitWolf(assume_centered=True).fit((filled - mean) / scale).precision_
    found = Familiarity(imputer.neutral_, mean, scale, precision, np.empty(0))
    distances = found.distances(values)
    reference = np.quantile(distances, np.linspace(0, 1, min(1001, len(distances))))
    return Familiarity(imputer.neutral_, mean, scale, precision, reference)
