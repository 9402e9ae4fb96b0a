"""Interval, abstention and strangeness: against other implementations, and what they promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from venn_abers import VennAbers as Golden

from rarealert.calibration.student_uncertainty import (
    Doubts,
    Uncertainty,
    _conformal_quantile,
    fit_familiar,
    fit_venn_abers,
    load_doubts,
)
from rarealert.errors import BadInputError


def drawn(seed, count):
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, count).round(1)  # rounded, so that some are equal
    return logits, random.random(count) < 1 / (1 + np.exp(-logits))


def uncertainty(logits, rare, **changed):
    held = {
        "coverage": 0.8,
        "rare_from": -_conformal_quantile(-logits[rare], 0.8),
        "nonrare_to": _conformal_quantile(logits[~rare], 0.8),
        "venn_abers": fit_venn_abers(logits, rare),
        "familiar_share": 0.98,
        "strange_from": 2.0,
        "neutral": 0.0,
    }
    return Uncertainty(**held | changed)


def test_the_interval_is_that_of_the_venn_abers_package():
    logits, rare = drawn(1, 60)
    asked = np.concatenate([logits, logits + 0.05, [-50.0, 50.0]])

    def pair(values):
        risk = 1 / (1 + np.exp(-values))
        return np.column_stack([1 - risk, risk])

    golden = Golden()
    golden.fit(pair(logits), rare.astype(int), precision=None)
    _, both = golden.predict_proba(pair(asked))
    low, high = fit_venn_abers(logits, rare).interval(asked)
    np.testing.assert_allclose(low, both[:, 0], atol=1e-5)
    np.testing.assert_allclose(high, both[:, 1], atol=1e-5)


@given(st.integers(0, 50), st.integers(5, 40))
def test_the_interval_is_ordered_and_rises_with_the_logit(seed, count):
    logits, rare = drawn(seed, count)
    asked = np.sort(np.concatenate([logits, np.linspace(-9, 9, 31)]))
    low, high = fit_venn_abers(logits, rare).interval(asked)
    assert (low <= high).all()
    assert (np.diff(low) >= 0).all()
    assert (np.diff(high) >= 0).all()
    assert low.min() >= 0
    assert high.max() <= 1


def test_many_validation_cases_make_a_small_table_and_a_narrow_interval():
    logits = np.random.default_rng(3).normal(0, 2, 20_000)
    rare = np.random.default_rng(4).random(20_000) < 1 / (1 + np.exp(-logits))
    fitted = fit_venn_abers(logits, rare)
    assert len(fitted.logits) == 1000
    low, high = fitted.interval(np.array([-1.0, 0.0, 1.0]))
    assert (high - low).max() < 0.05
    np.testing.assert_allclose((low + high) / 2, 1 / (1 + np.exp([1.0, 0.0, -1.0])), atol=0.04)


def test_sets_hold_the_label_as_often_as_promised():
    covered = []
    for seed in range(60):
        logits, rare = drawn(seed, 200)
        fitted = uncertainty(logits, rare)
        new, truth = drawn(1000 + seed, 500)
        covered.append((new[truth] >= fitted.rare_from).mean())
        assert (fitted.abstains(new) == ((new >= fitted.rare_from) == (new <= fitted.nonrare_to)))[
            np.isfinite(new)
        ].all()
    assert 0.78 < np.mean(covered) < 0.86


def test_too_few_cases_to_leave_a_label_out_abstain():
    logits, rare = np.array([-1.0, 0.0, 1.0]), np.array([False, False, True])
    assert _conformal_quantile(logits[rare], 0.8) is None
    fitted = uncertainty(*drawn(0, 50), rare_from=None, nonrare_to=None)
    assert fitted.abstains(logits).all()


def test_the_distance_is_mahalanobis_under_the_full_covariance():
    random = np.random.default_rng(0)
    features = random.normal(size=(30, 8)) @ random.normal(size=(8, 8)) + 5
    held = fit_familiar(features)
    inside = held.axes.T @ np.diag(held.spread) @ held.axes
    rest = held.rest * (np.eye(8) - held.axes.T @ held.axes)
    scaled = (features - held.mean) / held.scale
    expected = np.sqrt(np.einsum("ij,jk,ik->i", scaled, np.linalg.inv(inside + rest), scaled))
    np.testing.assert_allclose(held.distance(features), expected, rtol=1e-6)


def test_what_is_unlike_training_is_farther():
    random = np.random.default_rng(1)
    held = fit_familiar(random.normal(size=(300, 40)))
    near, far = random.normal(size=(50, 40)), random.normal(size=(50, 40)) + 3
    assert held.distance(far).min() > held.distance(near).max()


def test_what_was_saved_is_loaded(tmp_path):
    logits, rare = drawn(2, 50)
    features = np.random.default_rng(2).normal(size=(40, 6))
    doubts = Doubts(uncertainty(logits, rare), fit_familiar(features))
    doubts.save(tmp_path)
    back = load_doubts(tmp_path)
    assert back.uncertainty == doubts.uncertainty
    np.testing.assert_allclose(back.strangeness(features), doubts.strangeness(features), rtol=1e-4)
    (tmp_path / "familiar.safetensors").write_bytes(b"cut")
    with pytest.raises(BadInputError, match="damaged"):
        load_doubts(tmp_path)
    (tmp_path / "uncertainty.json").unlink()
    with pytest.raises(BadInputError, match=r"no uncertainty\.json: this version was made before"):
        load_doubts(tmp_path)
