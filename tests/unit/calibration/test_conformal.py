"""Conformal sets cover each class as stated."""

import math

import numpy as np
import pytest

from rarealert.calibration.conformal import Cuts, fit_cuts

LEVELS = (0.8, 0.9, 0.95)


def drawn(cases: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    risks = random.beta(0.6, 0.6, cases)
    return random.random(cases) < risks, risks


def test_cuts_are_the_quantiles_of_each_class() -> None:
    rare, risks = drawn(300, 3)
    for level in LEVELS:
        cuts = fit_cuts(rare, risks, level)
        of_rare, of_others = np.sort(risks[rare])[::-1], np.sort(risks[~rare])
        assert cuts.rare_from == of_rare[math.ceil((len(of_rare) + 1) * level) - 1]
        assert cuts.nonrare_to == of_others[math.ceil((len(of_others) + 1) * level) - 1]


def test_new_cases_of_both_classes_are_covered_as_stated() -> None:
    covered = []
    for seed in range(60):
        cuts = fit_cuts(*drawn(200, seed), 0.8)
        rare, risks = drawn(500, 1000 + seed)
        held = cuts.covers(rare, risks)
        covered.append([held[rare].mean(), held[~rare].mean()])
    assert np.all(np.abs(np.mean(covered, axis=0) - 0.81) < 0.03)


@pytest.mark.parametrize("cases", [2, 5, 12, 23, 99, 100, 199, 2000])
@pytest.mark.parametrize("tied", [False, True])
def test_any_number_of_cases_is_covered_tied_or_not(cases: int, tied: bool) -> None:
    rare, risks = drawn(cases, cases)
    risks = risks.round(1) if tied else risks  # as isotonic calibration leaves them
    for level in LEVELS:
        held = fit_cuts(rare, risks, level).covers(rare, risks)
        assert all(held[of].mean() >= level for of in (rare, ~rare) if of.any())


def test_too_few_cases_exclude_no_label_and_decide_nothing() -> None:
    rare, risks = np.asarray([True, False, True]), np.asarray([0.9, 0.1, 0.4])
    cuts = fit_cuts(rare, risks, 0.95)
    assert cuts == Cuts(rare_from=None, nonrare_to=None)
    assert cuts.labels(0.99) == ("rare", "nonrare")
    assert not cuts.decides(risks).any()


def test_a_set_has_one_label_both_or_none() -> None:
    overlapping, apart = Cuts(rare_from=0.2, nonrare_to=0.7), Cuts(rare_from=0.7, nonrare_to=0.2)
    assert overlapping.labels(0.1) == ("nonrare",)
    assert overlapping.labels(0.5) == ("rare", "nonrare")
    assert apart.labels(0.5) == ()
    assert apart.decides(np.asarray([0.1, 0.5, 0.9])).tolist() == [True, False, True]
