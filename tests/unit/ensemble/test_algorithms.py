"""No algorithm can learn the label from which teachers answered."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from rarealert.ensemble.algorithms import (
    ALGORITHMS,
    NeutralImputer,
    fit_pipeline,
    independence_weights,
    raw_scores,
)
from rarealert.ensemble.training_set import TrainingSet


def out_of_fold_auroc(data: TrainingSet, algorithm: str) -> float:
    fold, scores = data.folds(4, 1), np.empty(len(data.rare))
    for number in np.unique(fold):
        out = fold == number
        inside, settings = data.part(~out), ALGORITHMS[algorithm].default
        model = fit_pipeline(
            algorithm, settings, inside.values, inside.rare, inside.weights(), seed=1
        )
        scores[out] = raw_scores(model, data.values[out])
    return float(roc_auc_score(data.rare, scores))


@pytest.mark.parametrize("algorithm", ["logistic", "extra_trees", "hist_gradient_boosting"])
@pytest.mark.parametrize(("answers_rare", "answers_others"), [(1.0, 0.0), (0.9, 0.15)])
def test_a_teacher_who_answers_rare_cases_is_no_shortcut(
    noise, algorithm: str, answers_rare: float, answers_others: float
) -> None:
    data = noise(900, 3, 5)
    asked = np.random.default_rng(6).random(900) < np.where(data.rare, answers_rare, answers_others)
    assert roc_auc_score(data.rare, asked) > 0.85  # the shortcut is there to be taken
    data.values[~asked, 2] = np.nan
    assert 0.42 < out_of_fold_auroc(data, algorithm) < 0.58


@pytest.mark.parametrize("algorithm", ["logistic", "extra_trees"])
def test_panels_in_blocks_do_not_give_away_their_source(noise, algorithm: str) -> None:
    random = np.random.default_rng(3)
    first = random.random(900) < 0.5
    rare = random.random(900) < np.where(first, 0.7, 0.3)
    values = noise(900, 4, 4).values
    values[np.ix_(first, [2, 3])] = np.nan
    values[np.ix_(~first, [0, 1])] = np.nan
    number = random.integers(0, 60, 900)
    disease = np.asarray([f"{int(one)}-{n}" for one, n in zip(rare, number, strict=True)])
    assert 0.42 < out_of_fold_auroc(TrainingSet(values, rare, disease, values), algorithm) < 0.58


def test_weights_make_label_and_pattern_of_gaps_independent(noise) -> None:
    random = np.random.default_rng(0)
    first = random.random(2000) < 0.5
    rare = random.random(2000) < np.where(first, 0.7, 0.3)
    values = np.where(first[:, None], [[0.5, np.nan]], [[np.nan, 0.5]])
    weights = independence_weights(values, rare)
    shares = [np.average(rare[of], weights=weights[of]) for of in (first, ~first)]
    assert shares[0] == pytest.approx(shares[1], abs=0.02)
    assert (noise(50, 2, 0).weights() == 1).all()  # without gaps


def test_the_neutral_fill_is_between_the_classes_and_one_sided_columns_are_not_used() -> None:
    values = np.asarray([[0.8, 0.5], [np.nan, 0.5], [0.2, np.nan], [0.2, np.nan]])
    rare = np.asarray([True, True, False, False])
    filled = NeutralImputer().fit(values, rare).transform(values)
    assert filled[1, 0] == pytest.approx(0.5)
    assert (filled[:, 1] == 0).all()


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_constant_and_unknown_columns_give_sound_scores(noise, algorithm: str) -> None:
    data = noise(80, 3, 1)
    values, settings = data.values, ALGORITHMS[algorithm].default
    values[:, 1], values[:, 2] = 0.5, np.nan
    for columns in ([0], [1], [2], [0, 1, 2]):
        chosen = values[:, columns]
        weights = independence_weights(chosen, data.rare)
        model = fit_pipeline(algorithm, settings, chosen, data.rare, weights, seed=1)
        scores = raw_scores(model, chosen)
        assert ((scores >= 0) & (scores <= 1)).all()
