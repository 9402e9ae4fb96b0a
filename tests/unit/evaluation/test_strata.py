"""What remains of an AUROC once a shortcut is held fixed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rarealert.evaluation.discrimination import UndefinedMetricError
from rarealert.evaluation.intervals import Bootstrap
from rarealert.evaluation.measures import Study
from rarealert.evaluation.report import Reference
from rarealert.evaluation.shortcut_audit import STRATA, remaining, strata_of, within_strata

PLAN = Bootstrap(200, 0.95, 1)


def by_hand(labels, risks, strata):
    """All pairs, one by one."""
    wins, pairs = 0.0, 0
    for i in range(len(labels)):
        for j in range(len(labels)):
            if labels[i] == 1 and labels[j] == 0 and strata[i] == strata[j]:
                pairs += 1
                wins += 1.0 if risks[i] > risks[j] else 0.5 * (risks[i] == risks[j])
    return wins / pairs if pairs else None


def sample(n=400, seed=2):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n).astype(float)
    return rng, labels, np.arange(n).astype(str)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5), st.integers(0, 2)),
                min_size=2, max_size=25))  # fmt: skip
def test_it_is_the_share_of_pairs_won_within_strata(rows):
    labels, risks, scores = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    expected = by_hand(labels, risks, scores)
    clusters = np.arange(len(rows)).astype(str)
    try:
        found = remaining(labels, risks / 5, scores, clusters, PLAN)
    except UndefinedMetricError:
        return  # too few resamples hold both labels in a stratum
    assert found.within.value == pytest.approx(expected)
    assert found.within.ci_low <= found.within.value <= found.within.ci_high


def test_a_model_that_is_the_shortcut_keeps_nothing():
    rng, labels, clusters = sample()
    shortcut = np.where(rng.random(labels.size) < 0.8, labels, 1 - labels)
    risks = 0.2 + 0.5 * shortcut + 0.01 * rng.random(labels.size)
    found = remaining(labels, risks, shortcut, clusters, PLAN)
    assert found.auroc.value > 0.75
    assert found.within.ci_low < 0.5 < found.within.ci_high
    assert abs(found.kept) < 0.25


def test_a_model_of_its_own_keeps_all():
    rng, labels, clusters = sample()
    risks = np.clip(0.3 + 0.3 * labels + 0.2 * rng.standard_normal(labels.size), 0, 1)
    found = remaining(labels, risks, rng.random(labels.size), clusters, PLAN)
    assert found.kept == pytest.approx(1, abs=0.1)
    assert found.strata == STRATA
    assert found.pairs_share == pytest.approx(1 / STRATA, abs=0.02)


def test_a_shortcut_that_is_the_label_leaves_no_pair():
    _, labels, clusters = sample()
    with pytest.raises(UndefinedMetricError, match="no stratum"):
        remaining(labels, np.full(labels.size, 0.5), labels, clusters, PLAN)


def test_below_chance_there_is_no_share_to_keep():
    _, labels, clusters = sample()
    found = remaining(labels, 0.9 - 0.5 * labels, np.zeros(labels.size), clusters, PLAN)
    assert found.auroc.value == 0
    assert found.kept is None


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_strata_keep_the_order_and_never_part_equal_scores(scores):
    strata = strata_of(scores)
    order = np.argsort(scores, kind="stable")
    assert (np.diff(strata[order]) >= 0).all()
    assert len(set(strata.tolist())) <= STRATA
    for score in set(scores):
        assert len({int(at) for at, other in zip(strata, scores, strict=True)
                    if other == score}) == 1  # fmt: skip


def test_the_strongest_shortcut_is_chosen_on_validation_and_words_are_none():
    rng, labels, clusters = sample()
    noise = rng.random(labels.size)
    risks = {
        "student": np.clip(0.3 + 0.3 * labels + 0.2 * rng.standard_normal(labels.size), 0, 1),
        "control:length": 0.5 + 0.1 * labels + 0.3 * noise,
        "control:source": noise,
        "control:tfidf": 0.1 + 0.8 * labels,
    }
    valid = {**risks, "control:length": noise, "control:source": 0.2 + 0.5 * labels}
    study = Study(labels, clusters, risks, {})
    found = within_strata(study, Reference(labels, valid), PLAN)
    assert found["strongest"] == "control:source"
    of_student = found["models"]["student"]
    assert set(of_student) == {"control:length", "control:source"}
    assert "ensemble" not in found["models"]
    assert of_student["control:length"]["auroc"]["n"] == labels.size
