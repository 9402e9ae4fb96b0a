"""Subgroups, the gaps between them, and which of them are pooled."""

from dataclasses import replace

import numpy as np
import pytest

from rarealert.evaluation.metrics import auroc
from rarealert.evaluation.subgroups import Traits, blocks_of, contrasts, fairness


@pytest.fixture
def traits():
    def make(n=400, seed=3, head=None):
        rng = np.random.default_rng(seed)
        return Traits(
            source=np.array(["a", "b"])[rng.integers(0, 2, n)],
            head=head or [None] * n,
            age_years=[1.0, *rng.uniform(18, 90, n - 1).tolist()],
            sex=[("female", "male", None)[k] for k in rng.choice(3, n, p=[0.5, 0.48, 0.02])],
        )

    return make


def test_small_groups_are_pooled_and_sources_never(make_study, traits):
    head = ["large"] * 150 + ["small"] * 5 + [None] * 245
    cells = blocks_of(make_study(), traits(head=head))
    assert "other ages (each fewer than 10 rare or non-rare cases)" in cells["by_age_band"]
    assert "00-01 years" not in cells["by_age_band"]
    assert sum(index.size for index in cells["by_age_band"].values()) == 400
    assert set(cells["by_source"]) == {"a", "b"}
    pooled = "other heads (each fewer than 10 rare cases)"
    assert list(cells["by_category"]) == ["large", "no head known", pooled]
    assert [index.size for index in cells["by_category"].values()] == [350, 245, 205]


def test_rates_and_gaps_by_hand(make_study, traits, plan):
    one = make_study()
    cells = blocks_of(one, traits())
    found = fairness(one, "student", cells, plan)
    assert set(found) == {"by_sex", "by_age_band", "by_source"}
    alert, rare = one.risks["student"] >= 0.8, one.labels == 1
    for block, of_block in found.items():
        assert set(of_block["groups"]) == {name for name in cells[block] if "other" not in name}
        for name, row in of_block["groups"].items():
            index = cells[block][name]
            flagged, of_rare = alert[index], rare[index]
            assert row["alert_rate"] == pytest.approx(flagged.mean())
            assert row["sensitivity"] == pytest.approx(flagged[of_rare].mean())
            assert row["false_positive_rate"] == pytest.approx(flagged[~of_rare].mean())
        spread = {
            rate: np.ptp([row[rate] for row in of_block["groups"].values()])
            for rate in ("alert_rate", "sensitivity", "false_positive_rate")
        }
        gaps = {name: gap.value for name, gap in of_block["gaps"].items()}
        assert gaps == pytest.approx(
            {
                "demographic_parity_difference": spread["alert_rate"],
                "equal_opportunity_difference": spread["sensitivity"],
                "equalized_odds_difference": max(
                    spread["sensitivity"], spread["false_positive_rate"]
                ),
            }
        )


def test_a_group_with_worse_predictions_is_found_and_chance_is_not(make_study, traits, plan):
    one, who = make_study(1000), traits(1000)
    risks = one.risks["student"].copy()
    female = np.array([sex == "female" for sex in who.sex])
    risks[female] = np.random.default_rng(1).random(int(female.sum()))
    spoilt = replace(one, risks={"student": risks})
    found = contrasts(spoilt, "student", blocks_of(spoilt, who), plan)
    assert found["by_sex"]["female"]["ci_high"] < 0
    male = np.flatnonzero([sex == "male" for sex in who.sex])
    rest = np.setdiff1d(one.everyone, male)
    expected = auroc(one.labels[male], risks[male]) - auroc(one.labels[rest], risks[rest])
    assert found["by_sex"]["male"]["value"] == pytest.approx(expected)
    calm = contrasts(one, "student", blocks_of(one, who), plan)
    assert min(row["p_holm"] for block in calm.values() for row in block.values()) > 0.05


def test_a_gap_between_many_groups_is_significant_with_few_resamples_too(make_study, plan):
    one = make_study(800)
    cells = {"by_source": {f"s{place}": np.arange(place, 800, 8) for place in range(8)}}
    risks = one.risks["student"].copy()
    risks[::8] = 1 - risks[::8]
    spoilt = replace(one, risks={"student": risks})
    found = contrasts(spoilt, "student", cells, replace(plan, resamples=100))
    assert found["by_source"]["s0"]["p_holm"] < 0.05
