"""Calibrators keep ranks, repair distorted scores and are chosen on held-out folds."""

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss

from rarealert.calibration.calibrators import (
    METHODS,
    Calibrator,
    choose_calibrator,
    disease_folds,
    fit_calibrator,
    held_out_losses,
)


def drawn(cases: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """True log odds and labels drawn by them."""
    random = np.random.default_rng(seed)
    log_odds = random.normal(0, 1.5, cases)
    return log_odds, random.random(cases) < expit(log_odds)


@pytest.mark.parametrize("method", METHODS)
def test_risks_rise_with_the_log_odds_and_stay_in_range(method: str) -> None:
    log_odds, rare = drawn(400, 0)
    calibrator = METHODS[method](log_odds, rare, np.ones(400))
    risks = calibrator.risk(np.linspace(-9, 9, 101))
    assert (np.diff(risks) >= -1e-12).all()
    assert ((risks > 0) & (risks < 1)).all()
    assert Calibrator.model_validate_json(calibrator.model_dump_json()) == calibrator
    assert Calibrator(**calibrator.model_dump()) == calibrator


@pytest.mark.parametrize("method", ["platt", "beta", "isotonic", "venn_abers"])
def test_an_overconfident_score_is_repaired(method: str) -> None:
    truth, rare = drawn(4000, 1)
    distorted = 3 * truth + 1
    fit = METHODS[method](distorted[:2000], rare[:2000], np.ones(2000))
    risks = fit.risk(distorted[2000:])
    assert log_loss(rare[2000:], risks) < log_loss(rare[2000:], expit(truth[2000:])) + 0.02
    assert log_loss(rare[2000:], expit(distorted[2000:])) > log_loss(rare[2000:], risks) + 0.1


def test_platt_recovers_slope_and_intercept() -> None:
    truth, rare = drawn(20_000, 2)
    intercept, slope = METHODS["platt"]((truth - 1) / 2, rare, np.ones(20_000)).parameters
    assert (intercept, slope) == pytest.approx((1, 2), abs=0.1)


def test_isotonic_is_that_of_scikit_learn() -> None:
    log_odds, rare = drawn(300, 3)
    log_odds = log_odds.round(1)  # some are equal
    weights = np.random.default_rng(3).uniform(0.5, 2, 300)
    found = METHODS["isotonic"](log_odds, rare, weights)
    of_rare, of_others = weights[rare].sum(), weights[~rare].sum()
    targets = np.where(rare, (of_rare + 1) / (of_rare + 2), 1 / (of_others + 2))
    golden = IsotonicRegression(out_of_bounds="clip").fit(log_odds, targets, weights)
    asked = np.linspace(-6, 6, 200)
    np.testing.assert_allclose(found.risk(asked), golden.predict(asked), atol=1e-12)


def test_venn_abers_is_its_definition_at_a_new_score() -> None:
    log_odds, rare = drawn(60, 6)
    calibrator = METHODS["venn_abers"](log_odds, rare, np.ones(60))
    for new in calibrator.parameters[5:50:9]:
        pair = []
        for label in (0, 1):
            model = IsotonicRegression(out_of_bounds="clip")
            model.fit([*log_odds, new], [*rare.astype(float), label])
            pair.append(float(model.predict([new])[0]))
        expected = pair[1] / (1 - pair[0] + pair[1])
        assert calibrator.risk([new])[0] == pytest.approx(expected, abs=1e-6)


def test_the_method_with_the_lowest_held_out_loss_is_chosen_even_if_classes_separate() -> None:
    log_odds, rare = logit(np.linspace(0.01, 0.99, 60)), np.arange(60) >= 30
    fold = np.arange(60) % 3
    losses = held_out_losses(log_odds, rare, fold, np.ones(60))
    assert np.isfinite(list(losses.values())).all()
    assert choose_calibrator(log_odds, rare, fold).method == min(losses, key=losses.__getitem__)


def test_two_diseases_of_each_class_are_enough() -> None:
    log_odds, rare = drawn(300, 5)
    disease = np.asarray([f"{int(one)}-{n % 2}" for n, one in enumerate(rare)])
    assert fit_calibrator(log_odds, rare, disease, 1).method in METHODS


def test_a_disease_is_in_one_fold_and_few_diseases_make_few_folds() -> None:
    rare = np.random.default_rng(2).random(300) < 0.4
    number = np.random.default_rng(3).integers(0, 60, 300)
    disease = np.asarray([f"{int(one)}-{n}" for one, n in zip(rare, number, strict=True)])
    fold = disease_folds(rare, disease, 5, 1)
    assert all(np.unique(fold[disease == one]).size == 1 for one in np.unique(disease))
    assert fold.max() == 4
    few = np.asarray([f"{int(one)}-{n % 3}" for n, one in enumerate(rare)])
    assert disease_folds(rare, few, 5, 1).max() == 2
