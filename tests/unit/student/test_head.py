"""The fitted head: the minimum of its loss, and how far it trusts knowledge."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from scipy.special import expit

from rarealert.student.head import HeadData, fit_head
from rarealert.student.logistic import fit_logistic


def least(features: np.ndarray, share: np.ndarray, strength: float) -> np.ndarray:
    """Weights and bias at the least ``strength * cross-entropy + |weights|² / 2``, by SciPy."""

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        logits = features @ values[:-1] + values[-1]
        error = strength * (expit(logits) - share)
        entropy = strength * (np.logaddexp(0, logits) - share * logits).sum()
        slope = np.append(features.T @ error + values[:-1], error.sum())
        return entropy + values[:-1] @ values[:-1] / 2, slope

    start = np.zeros(features.shape[1] + 1)
    return minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-6}).x


def head_data(count: int, seed: int, finding_column: int | None = None) -> HeadData:
    random = np.random.default_rng(seed)
    rare = np.arange(count) % 2 == 0
    features = random.normal(size=(count, 12)).astype(np.float32)
    features[:, :2] += np.where(rare, 0.7, -0.7)[:, None]
    groups = [f"d{i // 2}" for i in range(count)]
    return HeadData(features, rare, rare.astype(float), groups, finding_column)


@pytest.mark.parametrize("rows", [200, 9])
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("of", [np.asarray, csr_matrix])
def test_a_logistic_fit_is_at_the_minimum_of_its_loss(rows, hard, of) -> None:
    data = head_data(rows, 1)  # of 12 columns: more rows than them, and fewer
    share = data.rare.astype(float) if hard else np.random.default_rng(4).random(rows)
    strengths = (1e-2, 1e-1)
    expected = [least(data.features.astype(float), share, strength) for strength in strengths]
    found = fit_logistic(of(data.features.astype(float)), share, strengths)
    assert np.allclose(found, expected, atol=1e-4)


def weight(head: torch.nn.Module, column: int) -> float:
    return float(head.linear.weight.detach()[0, column])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_finding_risk_moves_its_share_of_the_logit_and_is_not_fitted_to_the_cases(share) -> None:
    data = head_data(200, 3, finding_column=1)
    head = fit_head(data, 0.5, share)
    scaled = (torch.from_numpy(data.features) - head.mean) / head.scale
    parts = (scaled * head.linear.weight).detach().numpy()
    rest = np.delete(parts, 1, axis=1).sum(axis=1)
    assert parts[:, 1].std() * (1 - share) == pytest.approx(rest.std() * share, rel=1e-3)
    flipped = dataclasses.replace(data, rare=~data.rare, target=1 - data.target)
    assert weight(fit_head(flipped, 0.5, share), 1) >= 0  # whatever the labels are


def test_the_profile_match_is_fitted_and_hardly_penalised() -> None:
    data = head_data(200, 3, finding_column=5)
    matched = dataclasses.replace(data, match_column=0)
    before, after = (abs(weight(fit_head(one, 0.5, 0.3), 0)) for one in (data, matched))
    assert after > 1.2 * before
    unshared = fit_head(matched, 0.5, 0.0)  # the share of finding risk does not change it
    assert abs(weight(unshared, 0)) == pytest.approx(after, rel=1e-5)
