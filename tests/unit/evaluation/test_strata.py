"""What remains of an AUROC once a shortcut is held fixed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rarealert.evaluation.intervals import Bootstrap
from rarealert.evaluation.metrics import UndefinedMetricError
from rarealert.evaluation.strata import STRATA, remaining, strata_of, within_strata
from rarealert.evaluation.study import Reference, Study

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


@pytest.fixture
def sample():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 400).astype(float)
    strong = np.clip(0.3 + 0.3 * labels + 0.2 * rng.standard_normal(400), 0, 1)
    return rng, labels, strong, np.arange(400).astype(str)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5), st.integers(0, 2)),
                min_size=2, max_size=25))  # fmt: skip
def test_it_is_the_share_of_pairs_won_within_strata(rows):
    labels, risks, scores = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    clusters = np.arange(len(rows)).astype(str)
    try:
        found = remaining(labels, risks / 5, scores, clusters, PLAN)
    except UndefinedMetricError:
        return  # too few resamples hold both labels in a stratum
    assert found.within.value == pytest.approx(by_hand(labels, risks, scores))
    assert found.within.ci_low <= found.within.value <= found.within.ci_high


def test_a_model_that_is_the_shortcut_keeps_nothing(sample):
    rng, labels, _, clusters = sample
    shortcut = np.where(rng.random(labels.size) < 0.8, labels, 1 - labels)
    risks = 0.2 + 0.5 * shortcut + 0.01 * rng.random(labels.size)
    found = remaining(labels, risks, shortcut, clusters, PLAN)
    assert found.auroc.value > 0.75
    assert found.within.ci_low < 0.5 < found.within.ci_high
    assert abs(found.kept) < 0.25


def test_a_model_independent_of_the_shortcut_keeps_all(sample):
    rng, labels, strong, clusters = sample
    found = remaining(labels, strong, rng.random(labels.size), clusters, PLAN)
    assert found.kept == pytest.approx(1, abs=0.1)
    assert found.strata == STRATA
    assert found.pairs_share == pytest.approx(1 / STRATA, abs=0.02)


def test_a_shortcut_that_is_the_label_leaves_no_pair_and_chance_no_share(sample):
    _, labels, strong, clusters = sample
    with pytest.raises(UndefinedMetricError):
        remaining(labels, strong, labels, clusters, PLAN)
    found = remaining(labels, 0.9 - 0.5 * labels, np.zeros(labels.size), clusters, PLAN)
    assert found.auroc.value == 0
    assert found.kept is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_strata_keep_the_order_and_never_separate_equal_scores(scores):
    strata = strata_of(scores)
    assert (np.diff(strata[np.argsort(scores, kind="stable")]) >= 0).all()
    assert len(set(strata.tolist())) <= STRATA
    by_score = set(zip(scores, strata.tolist(), strict=True))
    assert len(by_score) == len(set(scores))


def test_the_strongest_shortcut_is_chosen_on_validation_and_is_not_words(sample):
    rng, labels, strong, clusters = sample
    noise = rng.random(labels.size)
    risks = {
        "student": strong,
        "control:length": 0.5 + 0.1 * labels + 0.3 * noise,
        "control:source": noise,
        "control:tfidf": 0.1 + 0.8 * labels,
    }
    valid = {**risks, "control:length": noise, "control:source": 0.2 + 0.5 * labels}
    study = Study(labels, clusters, risks, {})
    found = within_strata(study, Reference(labels, valid), PLAN)
    assert found["strongest"] == "control:source"
    assert set(found["models"]) == {"student"}
    of_student = found["models"]["student"]
    assert set(of_student) == {"control:length", "control:source"}
    assert of_student["control:length"].auroc.n == labels.size
