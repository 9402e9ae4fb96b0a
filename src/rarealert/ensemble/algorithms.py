"""The algorithms that weigh teachers: seeded pipelines that do not learn which teachers were asked.

Recorded panels come in blocks: one source was shown to these teachers, another to those, and the
sources differ in their share of rare cases. A model that sees where the gaps are then learns the
source. Two measures prevent this: ``NeutralImputer`` fills a gap with the value that favours
neither class, and ``independence_weights`` weighs the training cases so that label and pattern of
gaps are independent.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

if TYPE_CHECKING:
    import optuna

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_LARGEST_WEIGHT = 10.0  # one case must not outweigh a dozen, however odd its pattern
_LARGEST_GAP = 0.5  # beyond it trees still distinguished the classes by presence, weights or not


def usable_columns(values: Floats, rare: Bools) -> Bools:
    """Whether each column may be used, shape ``(n_features,)``.

    It must be known in both classes, and in shares of them that differ by at most 0.5: else its
    presence would give away the label.
    """
    known = ~np.isnan(values)
    of_rare, of_others = known[rare].mean(axis=0), known[~rare].mean(axis=0)
    both = (of_rare > 0) & (of_others > 0)
    return np.asarray(both & (np.abs(of_rare - of_others) <= _LARGEST_GAP), dtype=bool)


class NeutralImputer(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # sklearn is untyped
    """Fill each gap with the value at which a column favours neither class.

    For two normal classes of equal variance the log likelihood ratio of linear discriminant
    analysis is 0 half-way between their means, whatever the share of rare cases is: that value is
    the fill. A column that is not usable becomes 0 throughout.
    """

    neutral_: Floats
    usable_: Bools

    def fit(self, values: Floats, rare: Bools) -> Self:
        """Fit the fills on ``values``, shape ``(n_cases, n_features)``, and their labels."""
        rare = np.asarray(rare, dtype=bool)
        self.usable_ = usable_columns(values, rare)
        self.neutral_ = np.zeros(values.shape[1])
        usable = values[:, self.usable_]
        self.neutral_[self.usable_] = (
            np.nanmean(usable[rare], axis=0) + np.nanmean(usable[~rare], axis=0)
        ) / 2
        return self

    def transform(self, values: Floats) -> Floats:
        """Return ``values`` without gaps, same shape."""
        filled = np.where(np.isnan(values), self.neutral_, values)
        return np.where(self.usable_, filled, 0.0)


def independence_weights(values: Floats, rare: Bools) -> Floats:
    """Weights, shape ``(n_cases,)``, mean 1, that make label and pattern of gaps independent.

    Each case weighs ``P(label) / P(label | pattern)``, the reweighing of Kamiran and Calders
    (Data preprocessing techniques for classification without discrimination, 2012), with the
    conditional share from a logistic regression on the gaps, so that rare patterns borrow from
    common ones. Without gaps, or with the same gaps everywhere, all weights are 1.
    """
    gaps = np.isnan(values[:, usable_columns(values, rare)])
    patterns = np.unique(gaps, axis=1)
    patterns = patterns[:, patterns.any(axis=0) & ~patterns.all(axis=0)]
    if not patterns.size:
        return np.ones(len(rare))
    model = LogisticRegression(C=10.0, max_iter=1000).fit(patterns.astype(float), rare)
    given_pattern = model.predict_proba(patterns.astype(float))[:, 1]
    share = rare.mean()
    weights = np.where(rare, share / given_pattern, (1 - share) / (1 - given_pattern))
    weights = np.minimum(weights, _LARGEST_WEIGHT)
    return np.asarray(weights / weights.mean(), dtype=np.float64)


Settings = Mapping[str, float | int | str]

_TREES = 60  # past this the out-of-fold AUROC moves by less than its own seed noise
_MANY = 20_000  # cases; beyond it only what is near linear in cases ends within minutes


@dataclass(frozen=True)
class Range:
    """The values that a setting may take; whole numbers where both ends are."""

    low: float
    high: float
    log: bool = False

    def suggest(self, trial: "optuna.Trial", name: str) -> float | int:
        """Draw a value of the setting ``name``."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)


@dataclass(frozen=True)
class Algorithm:
    """One algorithm: ``build`` makes the estimator from settings and ``random_state``.

    ``space`` is searched by Optuna, in this order. ``scaled`` requires columns of equal scale;
    ``linear_time`` is near linear in cases.
    """

    build: Callable[..., Any]
    space: Mapping[str, Range]
    default: Settings
    scaled: bool
    linear_time: bool = False

    def suggest(self, trial: "optuna.Trial") -> Settings:
        """Draw settings for ``trial``."""
        return {name: values.suggest(trial, name) for name, values in self.space.items()}


def _lightgbm(max_leaf_nodes: int, min_samples_leaf: int, **settings: Any) -> Any:
    """Gradient boosting by LightGBM, its settings named as scikit-learn's."""
    from lightgbm import LGBMClassifier

    return LGBMClassifier(
        n_estimators=settings.pop("max_iter"),
        num_leaves=max_leaf_nodes,
        min_child_samples=min_samples_leaf,
        colsample_bytree=0.6,
        reg_lambda=1.0,
        n_jobs=1,
        deterministic=True,
        force_row_wise=True,  # else it times both ways, and the faster one sums in its own order
        verbosity=-1,
        **settings,
    )


def _neural_network(width: int, **settings: Any) -> Any:
    # Its few steps keep it from overfitting, as alpha does.
    return MLPClassifier((width,), solver="lbfgs", max_iter=60, **settings)


_BOOSTING: Mapping[str, Any] = {
    "space": {
        "learning_rate": Range(0.02, 0.2, log=True),
        "max_iter": Range(30, 120),
        "max_leaf_nodes": Range(3, 15),
        "min_samples_leaf": Range(5, 40),
    },
    "default": {
        "learning_rate": 0.06,
        "max_iter": 60,
        "max_leaf_nodes": 6,
        "min_samples_leaf": 15,
    },
    "scaled": False,
    "linear_time": True,
}

ALGORITHMS: Mapping[str, Algorithm] = {
    "logistic": Algorithm(
        partial(LogisticRegression, max_iter=2000),
        {"C": Range(1e-3, 30.0, log=True)},
        {"C": 0.1},
        scaled=True,
        linear_time=True,
    ),
    "elastic_net": Algorithm(
        # A loose tolerance and few steps: saga takes many to move the last decimals.
        partial(LogisticRegression, solver="saga", tol=1e-3, max_iter=200),
        {"C": Range(1e-2, 3.0, log=True), "l1_ratio": Range(0.05, 1.0)},
        {"C": 0.1, "l1_ratio": 0.5},
        scaled=True,
    ),
    "svm_linear": Algorithm(
        partial(LinearSVC, dual=False, max_iter=2000),
        {"C": Range(1e-4, 1.0, log=True)},
        {"C": 0.003},
        scaled=True,
    ),
    "svm_rbf": Algorithm(
        SVC,
        {"C": Range(1e-2, 10.0, log=True), "gamma": Range(1e-3, 0.3, log=True)},
        {"C": 0.5, "gamma": 0.03},
        scaled=True,
    ),
    "extra_trees": Algorithm(
        partial(ExtraTreesClassifier, n_estimators=_TREES, n_jobs=1),
        {"min_samples_leaf": Range(2, 40, log=True), "max_features": Range(0.15, 1.0)},
        {"min_samples_leaf": 8, "max_features": 0.6},
        scaled=False,
    ),
    "hist_gradient_boosting": Algorithm(
        # Early stopping would hold out cases without regard to their disease.
        partial(HistGradientBoostingClassifier, l2_regularization=1.0, early_stopping=False),
        **_BOOSTING,
    ),
    "lightgbm": Algorithm(_lightgbm, **_BOOSTING),
    "neural_network": Algorithm(
        _neural_network,
        {"width": Range(2, 16, log=True), "alpha": Range(0.3, 100.0, log=True)},
        {"width": 6, "alpha": 10.0},
        scaled=True,
    ),
}
"""Every algorithm by its name in reports and runs."""


def algorithms_for(cases: int) -> tuple[str, ...]:
    """The algorithms that can be fitted on ``cases`` cases within minutes."""
    return tuple(name for name, one in ALGORITHMS.items() if cases <= _MANY or one.linear_time)


def fit_pipeline(
    algorithm: str,
    settings: Settings,
    values: Floats,
    rare: Bools,
    weights: Floats,
    seed: int,
) -> Pipeline:
    """Fit a pipeline; the same inputs give the same pipeline, bit for bit.

    Args:
        algorithm: a key of ``ALGORITHMS``.
        settings: the algorithm's settings.
        values: features, shape ``(n_cases, n_features)``, NaN for gaps.
        rare: labels, shape ``(n_cases,)``.
        weights: as from ``TrainingSet.weights``, shape ``(n_cases,)``.
        seed: of the algorithm.
    """
    chosen = ALGORITHMS[algorithm]
    if not np.ptp(NeutralImputer().fit(values, rare).transform(values), axis=0).any():
        # not every estimator can be fitted on constant columns
        return Pipeline([("model", DummyClassifier(strategy="prior"))]).fit(values, rare)
    steps: list[tuple[str, Any]] = [("fill", NeutralImputer())]
    if chosen.scaled:
        steps.append(("scale", StandardScaler()))
    steps.append(("model", chosen.build(**settings, random_state=seed)))
    # On a few hundred cases a second thread costs more than it gains, and sums in another order.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # few steps are intended
        return Pipeline(steps).fit(values, rare, model__sample_weight=weights)


def raw_scores(pipeline: Pipeline, values: Floats) -> Floats:
    """Uncalibrated scores 0 to 1, shape ``(n_cases,)``; higher favours rare."""
    with threadpool_limits(1), warnings.catch_warnings():
        # LightGBM names its columns when fitted, and sklearn then misses the names
        warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
        if hasattr(pipeline, "predict_proba"):
            return np.asarray(pipeline.predict_proba(values)[:, 1], dtype=np.float64)
        return np.asarray(expit(pipeline.decision_function(values)), dtype=np.float64)
