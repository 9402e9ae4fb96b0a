"""Bands and the shift to another prevalence."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarealert.calibration.bands import Bands, fit_bands
from rarealert.calibration.prevalence import shift_prevalence
from rarealert.errors import BadInputError


def test_alert_keeps_its_specificity_and_watch_its_sensitivity() -> None:
    random = np.random.default_rng(1)
    rare = random.random(400) < 0.5
    risk = np.clip(random.normal(0.4 + 0.3 * rare, 0.15), 0, 1)
    bands = fit_bands(risk, rare)
    assert np.mean(risk[~rare] < bands.alert) >= 0.95
    assert np.mean(risk[rare] >= bands.watch) >= 0.9
    assert bands.watch <= bands.alert


@given(st.floats(0, 1))
def test_bands_are_ordered(risk: float) -> None:
    band = Bands(alert=0.7, watch=0.3).band(risk)
    assert band == ("alert" if risk >= 0.7 else "watch" if risk >= 0.3 else "low")


def test_ties_at_the_top_do_not_break_specificity() -> None:
    rare = np.array([True] * 10 + [False] * 10)
    bands = fit_bands(np.full(20, 0.5), rare)
    assert bands.band(0.5) == "watch"
    assert bands.alert > 0.5


@given(st.floats(0, 1), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_a_shifted_risk_is_bayes_rule_and_comes_back(risk: float, at: float, to: float) -> None:
    there = float(shift_prevalence(risk, at, to))
    assert shift_prevalence(there, to, at) == pytest.approx(risk, rel=1e-6, abs=1e-12)
    likelihood_ratio = risk / (1 - risk) / (at / (1 - at)) if risk < 1 else np.inf
    odds = likelihood_ratio * to / (1 - to)
    assert there == pytest.approx(odds / (1 + odds) if np.isfinite(odds) else 1)


@pytest.mark.parametrize("prevalence", [0.0, 1.0, -0.1, 1.5])
def test_a_prevalence_of_none_or_all_is_refused(prevalence: float) -> None:
    with pytest.raises(BadInputError, match="prevalence"):
        shift_prevalence(0.5, 0.5, prevalence)
