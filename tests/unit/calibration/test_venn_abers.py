"""The Venn-Abers interval against the package ``venn-abers``, and its order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from venn_abers import VennAbers as Golden

from rarealert.calibration.venn_abers import fit_venn_abers


def drawn(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    log_odds = random.normal(0, 2, count).round(1)  # rounded, so that some are equal
    return log_odds, random.random(count) < expit(log_odds)


def test_the_interval_is_that_of_the_venn_abers_package() -> None:
    log_odds, rare = drawn(1, 60)
    asked = np.concatenate([log_odds, log_odds + 0.05, [-50.0, 50.0]])

    def columns(values: np.ndarray) -> np.ndarray:
        return np.column_stack([1 - expit(values), expit(values)])

    golden = Golden()
    golden.fit(columns(log_odds), rare.astype(int), precision=None)
    _, both = golden.predict_proba(columns(asked))
    low, high = fit_venn_abers(log_odds, rare).interval(asked)
    np.testing.assert_allclose(low, both[:, 0], atol=1e-5)
    np.testing.assert_allclose(high, both[:, 1], atol=1e-5)


@given(st.integers(0, 50), st.integers(5, 40))
def test_the_interval_is_ordered_and_rises_with_the_log_odds(seed: int, count: int) -> None:
    log_odds, rare = drawn(seed, count)
    asked = np.sort(np.concatenate([log_odds, np.linspace(-9, 9, 31)]))
    low, high = fit_venn_abers(log_odds, rare).interval(asked)
    assert (low <= high).all()
    assert (np.diff(low) >= 0).all()
    assert (np.diff(high) >= 0).all()
    assert low.min() >= 0
    assert high.max() <= 1


def test_many_cases_make_a_small_table_and_a_narrow_interval() -> None:
    log_odds = np.random.default_rng(3).normal(0, 2, 20_000)
    rare = np.random.default_rng(4).random(20_000) < expit(log_odds)
    fitted = fit_venn_abers(log_odds, rare)
    assert len(fitted.log_odds) == 1000
    asked = np.array([-1.0, 0.0, 1.0])
    low, high = fitted.interval(asked)
    assert (high - low).max() < 0.05
    np.testing.assert_allclose((low + high) / 2, expit(asked), atol=0.04)


def test_no_risk_is_beyond_what_the_calibration_cases_support() -> None:
    log_odds = np.linspace(-4, 4, 200)
    fitted = fit_venn_abers(log_odds, log_odds > 0)
    least, most = fitted.supported(np.array([0.0, 1.0]))
    assert 1 / 103 < least < 0.02  # no rare case among the hundred lowest
    assert 0.98 < most < 102 / 103
    assert fitted.supported(np.array([0.5])) == 0.5
