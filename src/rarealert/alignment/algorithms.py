"""The algorithms that weigh teachers: named, seeded pipelines with their search spaces."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.ensemble import (
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from rarealert.alignment.balance import NeutralImputer, independence_weights

if TYPE_CHECKING:
    import optuna

Settings = Mapping[str, float | int | str]

_TREES = 100  # past this the out-of-fold AUROC moves by less than its own seed noise


@dataclass(frozen=True)
class Algorithm:
    """One way to weigh: ``build(settings, seed)`` makes the estimator that ends the pipeline."""

    build: Callable[[Settings, int], Any]
    suggest: Callable[["optuna.Trial"], Settings]
    default: Settings
    scaled: bool


def _logistic(settings: Settings, seed: int) -> Any:
    return LogisticRegression(C=settings["C"], max_iter=2000, random_state=seed)


def _suggest_logistic(trial: "optuna.Trial") -> Settings:
    return {"C": trial.suggest_float("C", 1e-3, 30, log=True)}


def _elastic_net(settings: Settings, seed: int) -> Any:
    # A loose tolerance keeps saga within 0.1 s; tighter ones move no case's rank.
    return LogisticRegression(
        C=settings["C"],
        l1_ratio=settings["l1_ratio"],
        solver="saga",
        tol=1e-3,
        max_iter=5000,
        random_state=seed,
    )


def _suggest_elastic_net(trial: "optuna.Trial") -> Settings:
    return {
        "C": trial.suggest_float("C", 1e-2, 3, log=True),
        "l1_ratio": trial.suggest_float("l1_ratio", 0.05, 1.0),
    }


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


ALGORITHMS: Mapping[str, Algorithm] = {
    "logistic": Algorithm(_logistic, _suggest_logistic, {"C": 0.1}, scaled=True),
    "elastic_net": Algorithm(
        _elastic_net, _suggest_elastic_net, {"C": 0.1, "l1_ratio": 0.5}, scaled=True
    ),
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
    ),
}
"""Every algorithm by its name in reports and runs."""


def fit_pipeline(
    algorithm: str,
    settings: Settings,
    values: NDArray[np.float64],
    rare: NDArray[np.bool_],
    seed: int,
) -> Pipeline:
    """A pipeline fitted on ``values``, shape ``(n_cases, n_features)`` with NaN for gaps.

    The same inputs give the same pipeline, bit for bit.
    """
    chosen = ALGORITHMS[algorithm]
    steps: list[tuple[str, Any]] = [("fill", NeutralImputer())]
    if chosen.scaled:
        steps.append(("scale", StandardScaler()))
    steps.append(("model", chosen.build(settings, seed)))
    weights = independence_weights(values, rare)
    # On a few hundred cases a second thread costs more than it gains, and sums in another order.
    with threadpool_limits(1):
        return Pipeline(steps).fit(values, rare, model__sample_weight=weights)


def raw_scores(pipeline: Pipeline, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Uncalibrated scores in 0 to 1, shape ``(n_cases,)``; higher speaks for rare."""
    with threadpool_limits(1):
        if hasattr(pipeline, "predict_proba"):
            return np.asarray(pipeline.predict_proba(values)[:, 1], dtype=np.float64)
        return np.asarray(expit(pipeline.decision_function(values)), dtype=np.float64)
