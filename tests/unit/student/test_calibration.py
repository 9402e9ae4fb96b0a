"""Calibration and bands."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rarealert.calibration.student_calibration import (
    Bands,
    Calibration,
    _isotonic,
    fit_bands,
    fit_calibration,
)
from rarealert.files import write_skops


def test_platt_recovers_the_slope_of_overconfident_logits() -> None:
    random = np.random.default_rng(0)
    true = random.normal(0, 1.5, 4000)
    rare = random.random(4000) < 1 / (1 + np.exp(-true))
    calibration = fit_calibration(3 * true + 1, rare, [str(i) for i in range(4000)], 1)
    risk = calibration.risk(3 * true + 1)
    assert np.abs(risk - 1 / (1 + np.exp(-true))).mean() < 0.03


def test_risk_never_falls_with_the_logit() -> None:
    for rare in (np.arange(60) % 3 == 0, np.arange(60) < 30):
        logits = np.linspace(-3, 3, 60)
        risk = fit_calibration(logits, rare, [str(i) for i in range(60)], 1).risk(logits)
        assert (np.diff(risk) >= 0).all()
        assert ((risk > 0) & (risk < 1)).all()


def test_isotonic_interpolates_its_steps() -> None:
    fitted = Calibration(kind="isotonic", logits=(-1.0, 1.0), risks=(0.2, 0.8))
    np.testing.assert_allclose(fitted.risk(np.array([-5.0, 0.0, 5.0])), [0.2, 0.5, 0.8])


def test_the_alert_band_keeps_95_percent_specificity() -> None:
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


def test_scikit_learn_s_estimator_says_the_same(tmp_path: Path) -> None:
    from skops.io import load

    logits = np.linspace(-4, 4, 33)
    isotonic = _isotonic(logits, logits + np.sin(3 * logits) > 0)
    written = []
    for name in ("first", "second"):
        write_skops(tmp_path / name, isotonic.estimator())
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]
    said = load(tmp_path / "first").predict(logits)
    np.testing.assert_allclose(said, isotonic.risk(logits), rtol=0, atol=1e-12)
    platt = Calibration(kind="platt", slope=1.5, intercept=-0.2)
    said = platt.estimator().predict_proba(logits[:, None])[:, 1]
    np.testing.assert_allclose(said, platt.risk(logits), rtol=0, atol=1e-12)
