"""The distance from the training features."""

import numpy as np

from rarealert.calibration.familiarity import fit_familiarity


def test_the_distance_is_mahalanobis_under_the_full_covariance() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(30, 8)) @ random.normal(size=(8, 8)) + 5
    found = fit_familiarity(features)
    inside = found.axes.T @ np.diag(found.spread) @ found.axes
    rest = found.rest * (np.eye(8) - found.axes.T @ found.axes)
    scaled = (features - found.mean) / found.scale
    expected = np.sqrt(np.einsum("ij,jk,ik->i", scaled, np.linalg.inv(inside + rest), scaled))
    np.testing.assert_allclose(found.distance(features), expected, rtol=1e-6)


def test_columns_as_before_but_together_as_never_before_are_farther() -> None:
    random = np.random.default_rng(5)
    values = random.normal(size=(400, 6))
    values[:, 1] = values[:, 0] + 0.1 * values[:, 1]
    found = fit_familiarity(values[:300])
    turned = values[300:].copy()
    turned[:, 1] = -turned[:, 1]
    typical = np.median(found.distance(values[:300]))
    assert np.median(found.distance(values[300:])) < 1.3 * typical
    assert np.median(found.distance(turned)) > 2 * typical
    shifted = values[300:] + 5
    assert found.distance(shifted).min() > found.distance(values[300:]).max()


def test_unknown_values_and_constant_columns_are_not_unfamiliar() -> None:
    random = np.random.default_rng(6)
    values = random.normal(size=(100, 4))
    values[:50, 1], values[:, 2], values[:, 3] = np.nan, 3.0, np.nan
    found = fit_familiarity(values)
    known = found.distance(values)
    assert np.isfinite(known).all()
    assert found.distance(np.full((1, 4), np.nan))[0] < np.median(known)
