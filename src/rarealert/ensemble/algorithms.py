"""Keep who was asked from telling the label.

Recorded panels come in blocks: one source was shown to these teachers, another to those, and the
sources differ in their share of rare cases. A model that sees where the gaps are then learns the
source. Two measures close this way:

- ``NeutralImputer`` fills a gap with the value that speaks for neither class, so that a missing
  teacher says nothing, and silences a column that nearly only one class has;
- ``independence_weights`` weighs the training cases so that label and pattern of gaps are
  independent, which leaves nothing to be learnt from the pattern.

The algorithms that weigh teachers: named, seeded pipelines with their search spaces.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

if TYPE_CHECKING:
    import optuna

_LARGEST_WEIGHT = 10.0  # one case must not outweigh a dozen, however odd its pattern
_LARGEST_GAP = 0.5  # beyond it trees still told the classes apart by presence, weights or not


def audible(values: NDArray[np.float64], rare: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each column may be heard, shape ``(n_features,)``.

    It must be known in both classes, and in shares of them that differ by at most 0.5.
    """
    known = ~np.isnan(values)
    of_rare, of_others = known[rare].mean(axis=0), known[~rare].mean(axis=0)
    both = (of_rare > 0) & (of_others > 0)
    return np.asarray(both & (np.abs(of_rare - of_others) <= _LARGEST_GAP), dtype=bool)


class NeutralImputer(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # sklearn is untyped
    """Fill each gap with the value at which a column speaks for neither class.

    For two normal classes of equal variance the log likelihood ratio of linear discriminant
    analysis is 0 half-way between their means, whatever the share of rare cases is: that value is
    the fill. A column that is not ``audible`` would tell by its presence: it becomes 0 throughout.
    """

    neutral_: NDArray[np.float64]
    heard_: NDArray[np.bool_]

    def fit(self, values: NDArray[np.float64], rare: NDArray[np.bool_]) -> Self:
        """Learn the fills from ``values``, shape ``(n_cases, n_features)``, and their labels."""
        rare = np.asarray(rare, dtype=bool)
        self.heard_ = audible(values, rare)
        self.neutral_ = np.zeros(values.shape[1])
        heard = values[:, self.heard_]
        self.neutral_[self.heard_] = (
            np.nanmean(heard[rare], axis=0) + np.nanmean(heard[~rare], axis=0)
        ) / 2
        return self

    def transform(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """``values`` without gaps, same shape."""
        filled = np.where(np.isnan(values), self.neutral_, values)
        return np.where(self.heard_, filled, 0.0)


def independence_weights(
    values: NDArray[np.float64], rare: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Weights, shape ``(n_cases,)``, mean 1, that make label and pattern of gaps independent.

    Each case weighs ``P(label) / P(label | pattern)``, the reweighing of Kamiran and Calders
    (Data preprocessing techniques for classification without discrimination, 2012), with the
    conditional share from a logistic regression on the gaps, so that rare patterns borrow from
    common ones. Without gaps, or with the same gaps everywhere, all weights are 1.
    """
    gaps = np.isnan(values[:, audible(values, rare)])
    patterns = np.unique(gaps, axis=1)
    patterns = patterns[:, patterns.any(axis=0) & ~patterns.all(axis=0)]
    if not patterns.size:
        return np.ones(len(rare))
    model = LogisticRegression(C=10.0, max_iter=1000).fit(patterns.astype(float), rare)
    given_pattern = model.predict_proba(patterns.astype(float))[:, 1]
    share = rare.mean()
    weights = np.where(rare, share / given_pattern, (1 - share) / (1 - given_pattern))
    weights = np.minimum(weights, _LARGEST_WEIGHT)
    normalised: NDArray[np.float64] = weights / weights.mean()
    return normalised


Settings = Mapping[str, float | int | str]

_TREES = 60  # past this the out-of-fold AUROC moves by less than its own seed noise
_MANY = 20_000  # cases; beyond it only what is near linear in cases ends within minutes


@dataclass(frozen=True)
class Algorithm:
    """One way to weigh: ``build(settings, seed)`` makes the estimator that ends the pipeline.

    ``scaled`` wants columns of equal scale; ``linear_time`` is near linear in cases; without
    ``weighted`` the estimator takes no weights, and cases are drawn by them instead.
    """

    build: Callable[[Settings, int], Any]
    suggest: Callable[["optuna.Trial"], Settings]
    default: Settings
    scaled: bool
    linear_time: bool = False
    weighted: bool = True


def _logistic(settings: Settings, seed: int) -> Any:
    return LogisticRegression(C=settings["C"], max_iter=2000, random_state=seed)


def _suggest_logistic(trial: "optuna.Trial") -> Settings:
    return {"C": trial.suggest_float("C", 1e-3, 30, log=True)}


def _elastic_net(settings: Settings, seed: int) -> Any:
    # A loose tolerance and few steps: saga takes many to move the last decimals.
    return LogisticRegression(
        C=settings["C"],
        l1_ratio=settings["l1_ratio"],
        solver="saga",
        tol=1e-3,
        max_iter=200,
        random_state=seed,
    )


def _suggest_elastic_net(trial: "optuna.Trial") -> Settings:
    return {
        "C": trial.suggest_float("C", 1e-2, 3, log=True),
        "l1_ratio": trial.suggest_float("l1_ratio", 0.05, 1.0),
    }


def _linear_svm(settings: Settings, seed: int) -> Any:
    return LinearSVC(C=settings["C"], dual=False, max_iter=2000, random_state=seed)


def _suggest_linear_svm(trial: "optuna.Trial") -> Settings:
    return {"C": trial.suggest_float("C", 1e-4, 1, log=True)}


def _svm(settings: Settings, seed: int) -> Any:
    return SVC(C=settings["C"], gamma=settings["gamma"], random_state=seed)


def _suggest_svm(trial: "optuna.Trial") -> Settings:
    return {
        "C": trial.suggest_float("C", 1e-2, 10, log=True),
        "gamma": trial.suggest_float("gamma", 1e-3, 0.3, log=True),
    }


def _forest(kind: type[Any]) -> Callable[[Settings, int], Any]:
    def build(settings: Settings, seed: int) -> Any:
        return kind(
            n_estimators=_TREES,
            min_samples_leaf=settings["min_samples_leaf"],
            max_features=settings["max_features"],
            n_jobs=1,
            random_state=seed,
        )

    return build


def _suggest_forest(trial: "optuna.Trial") -> Settings:
    return {
        "min_samples_leaf": trial.suggest_int("min_samples_leaf", 2, 40, log=True),
        "max_features": trial.suggest_float("max_features", 0.15, 1.0),
    }


def _boosting(settings: Settings, seed: int) -> Any:
    return HistGradientBoostingClassifier(
        learning_rate=settings["learning_rate"],
        max_iter=settings["max_iter"],
        max_leaf_nodes=settings["max_leaf_nodes"],
        min_samples_leaf=settings["min_samples_leaf"],
        l2_regularization=1.0,
        early_stopping=False,  # it would hold out cases without regard to their disease
        random_state=seed,
    )


def _suggest_boosting(trial: "optuna.Trial") -> Settings:
    return {
        "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.2, log=True),
        "max_iter": trial.suggest_int("max_iter", 30, 120),
        "max_leaf_nodes": trial.suggest_int("max_leaf_nodes", 3, 15),
        "min_samples_leaf": trial.suggest_int("min_samples_leaf", 5, 40),
    }


def _lightgbm(settings: Mapping[str, Any], seed: int) -> Any:
    from lightgbm import LGBMClassifier

    return LGBMClassifier(
        learning_rate=settings["learning_rate"],
        n_estimators=settings["max_iter"],
        num_leaves=settings["max_leaf_nodes"],
        min_child_samples=settings["min_samples_leaf"],
        colsample_bytree=0.6,
        reg_lambda=1.0,
        n_jobs=1,
        deterministic=True,
        force_row_wise=True,  # else it times both ways, and the faster one sums in its own order
        random_state=seed,
        verbosity=-1,
    )


def _nearest(settings: Settings, _seed: int) -> Any:
    return KNeighborsClassifier(n_neighbors=settings["n_neighbors"], algorithm="brute")


def _suggest_nearest(trial: "optuna.Trial") -> Settings:
    return {"n_neighbors": trial.suggest_int("n_neighbors", 10, 80, log=True)}


def _naive_bayes(settings: Settings, _seed: int) -> Any:
    return GaussianNB(var_smoothing=settings["var_smoothing"])


def _suggest_naive_bayes(trial: "optuna.Trial") -> Settings:
    return {"var_smoothing": trial.suggest_float("var_smoothing", 1e-3, 1, log=True)}


def _network(settings: Settings, seed: int) -> Any:
    # Its few steps are part of how it is kept from overfitting, as is alpha.
    return MLPClassifier(
        (settings["width"],),
        solver="lbfgs",
        alpha=settings["alpha"],
        max_iter=60,
        random_state=seed,
    )


def _suggest_network(trial: "optuna.Trial") -> Settings:
    return {
        "width": trial.suggest_int("width", 2, 16, log=True),
        "alpha": trial.suggest_float("alpha", 0.3, 100, log=True),
    }


ALGORITHMS: Mapping[str, Algorithm] = {
    "logistic": Algorithm(_logistic, _suggest_logistic, {"C": 0.1}, scaled=True, linear_time=True),
    "elastic_net": Algorithm(
        _elastic_net, _suggest_elastic_net, {"C": 0.1, "l1_ratio": 0.5}, scaled=True
    ),
    "svm_linear": Algorithm(_linear_svm, _suggest_linear_svm, {"C": 0.003}, scaled=True),
    "svm_rbf": Algorithm(_svm, _suggest_svm, {"C": 0.5, "gamma": 0.03}, scaled=True),
    "random_forest": Algorithm(
        _forest(RandomForestClassifier),
        _suggest_forest,
        {"min_samples_leaf": 8, "max_features": 0.4},
        scaled=False,
    ),
    "extra_trees": Algorithm(
        _forest(ExtraTreesClassifier),
        _suggest_forest,
        {"min_samples_leaf": 8, "max_features": 0.6},
        scaled=False,
    ),
    "hist_gradient_boosting": Algorithm(
        _boosting,
        _suggest_boosting,
        {"learning_rate": 0.06, "max_iter": 60, "max_leaf_nodes": 6, "min_samples_leaf": 15},
        scaled=False,
        linear_time=True,
    ),
    "lightgbm": Algorithm(
        _lightgbm,
        _suggest_boosting,
        {"learning_rate": 0.06, "max_iter": 60, "max_leaf_nodes": 6, "min_samples_leaf": 15},
        scaled=False,
        linear_time=True,
    ),
    "nearest_neighbours": Algorithm(
        _nearest, _suggest_nearest, {"n_neighbors": 30}, scaled=True, weighted=False
    ),
    "naive_bayes": Algorithm(
        _naive_bayes, _suggest_naive_bayes, {"var_smoothing": 0.1}, scaled=True, linear_time=True
    ),
    "neural_network": Algorithm(
        _network, _suggest_network, {"width": 6, "alpha": 10.0}, scaled=True
    ),
}
"""Every algorithm by its name in reports and runs."""


def algorithms_for(cases: int) -> tuple[str, ...]:
    """The algorithms that can be fitted on ``cases`` cases within minutes."""
    return tuple(name for name, one in ALGORITHMS.items() if cases <= _MANY or one.linear_time)


def fit_pipeline(
    algorithm: str,
    settings: Settings,
    values: NDArray[np.float64],
    rare: NDArray[np.bool_],
    seed: int,
    weights: NDArray[np.float64] | None = None,
) -> Pipeline:
    """A pipeline fitted on ``values``, shape ``(n_cases, n_features)`` with NaN for gaps.

    ``weights``, shape ``(n_cases,)``, are those of ``TrainingSet.weights``; without them, all gaps
    count as silent teachers. The same inputs give the same pipeline, bit for bit.
    """
    chosen = ALGORITHMS[algorithm]
    if not np.ptp(NeutralImputer().fit(values, rare).transform(values), axis=0).any():
        # nothing to tell cases apart by; not every estimator bears that
        return Pipeline([("model", DummyClassifier(strategy="prior"))]).fit(values, rare)
    steps: list[tuple[str, Any]] = [("fill", NeutralImputer())]
    if chosen.scaled:
        steps.append(("scale", StandardScaler()))
    if "n_neighbors" in settings:  # a small fold may hold fewer cases than are to be asked
        settings = {**settings, "n_neighbors": min(int(settings["n_neighbors"]), len(rare))}
    steps.append(("model", chosen.build(settings, seed)))
    if weights is None:
        weights = independence_weights(values, rare)
    # On a few hundred cases a second thread costs more than it gains, and sums in another order.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # few steps are meant
        if chosen.weighted:
            return Pipeline(steps).fit(values, rare, model__sample_weight=weights)
        drawn = _drawn(weights, rare, seed)
        return Pipeline(steps).fit(values[drawn], rare[drawn])


def _drawn(weights: NDArray[np.float64], rare: NDArray[np.bool_], seed: int) -> NDArray[np.intp]:
    """Cases drawn by their weights, for estimators that take none; all once if these are equal."""
    if np.ptp(weights) == 0:
        return np.arange(len(weights))
    rng = np.random.default_rng(seed)
    drawn = rng.choice(len(weights), len(weights), p=weights / weights.sum())
    one_of_each = [np.flatnonzero(rare)[:1], np.flatnonzero(~rare)[:1]]
    return np.concatenate([drawn, *one_of_each])


def raw_scores(pipeline: Pipeline, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Uncalibrated scores in 0 to 1, shape ``(n_cases,)``; higher speaks for rare."""
    with threadpool_limits(1), warnings.catch_warnings():
        # LightGBM names columns of its own when fitted, and sklearn then misses the names
        warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
        if hasattr(pipeline, "predict_proba"):
            return np.asarray(pipeline.predict_proba(values)[:, 1], dtype=np.float64)
        return np.asarray(expit(pipeline.decision_function(values)), dtype=np.float64)
