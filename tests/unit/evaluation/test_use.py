"""What alerts mean in use: prevalence, abstention, prediction sets, fairness, retold visits."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import (
    demographic_parity_difference,
    equal_opportunity_difference,
    equalized_odds_difference,
)

from rarealert.calibration.prevalence import shift_prevalence
from rarealert.errors import BadInputError
from rarealert.evaluation.abstention import abstention, balanced_threshold, conformal
from rarealert.evaluation.discrimination import auroc
from rarealert.evaluation.intervals import Bootstrap
from rarealert.evaluation.measures import Study, Thresholds
from rarealert.evaluation.page import flow, table_one
from rarealert.evaluation.prevalence import ACT_AT, PREVALENCES, prevalence_table
from rarealert.evaluation.robustness import Retold, read_robustness, robustness, write_robustness
from rarealert.evaluation.subgroups import Traits, blocks_of, contrasts, fairness

PLAN = Bootstrap(resamples=200, confidence=0.95, seed=5)


def study(n=400, seed=2, thresholds=None):
    rng = np.random.default_rng(seed)
    labels = np.repeat([1.0, 0.0], n // 2)
    clusters = np.array([f"{label:.0f}-{rng.integers(60)}" for label in labels])
    logit = 2 * (labels - 0.5) + rng.normal(size=n)
    risks = {"student": 1 / (1 + np.exp(-logit)), "control:coin": rng.random(n)}
    at = {"student": Thresholds(0.8, 0.2)} if thresholds is None else thresholds
    return Study(labels, clusters, risks, at)


def traits(n=400, seed=3):
    rng = np.random.default_rng(seed)
    return Traits(
        source=np.array(["a", "b"])[rng.integers(0, 2, n)],
        head=[None] * n,
        age_years=[1.0, *rng.uniform(18, 90, n - 1).tolist()],
        sex=[("female", "male", None)[k] for k in rng.choice(3, n, p=[0.5, 0.48, 0.02])],
    )


def test_prevalence_rows_are_those_of_a_population_with_that_prevalence():
    one = study()
    rows = prevalence_table(one, "student", 0.5, PLAN)
    assert [row["prevalence"] for row in rows] == list(PREVALENCES)
    assert rows[0]["prevalence"] == 0.001
    assert rows[-1]["prevalence"] == 0.3
    risks, row = one.risks["student"], rows[-1]
    weight = np.where(one.labels == 1, 0.3 / 0.5, 0.7 / 0.5)  # reweighted to 30 % rare
    alert = risks >= 0.8
    assert row["alerts_per_1000"] == pytest.approx(1000 * (weight * alert).sum() / weight.sum())
    ppv = (weight * alert * one.labels).sum() / (weight * alert).sum()
    assert row["ppv"] == pytest.approx(ppv)
    assert row["ci"]["ppv"][0] < ppv < row["ci"]["ppv"][1]
    act = row["at_shifted_risk"]
    flagged = shift_prevalence(risks, 0.5, 0.3) >= ACT_AT
    assert act["sensitivity"] == pytest.approx(flagged[one.labels == 1].mean())
    assert act["specificity"] == pytest.approx(1 - flagged[one.labels == 0].mean())


def test_no_threshold_means_no_prevalence_table():
    assert prevalence_table(study(thresholds={}), "student", 0.5, PLAN) == []


def test_a_good_model_errs_less_where_it_is_sure_and_a_coin_does_not():
    valid, one = study(2000, seed=9), study(2000)
    held = {name: (valid.labels, risks) for name, risks in valid.risks.items()}
    found = abstention(one, held, PLAN)
    good = [row["balanced_error"].value for row in found["student"]]
    assert good == sorted(good, reverse=True)
    assert good[-1] < good[0] / 2
    assert abs(found["control:coin"][-1]["balanced_error"].value - 0.5) < 0.06
    for row in found["student"]:
        assert row["coverage"] == pytest.approx(row["target"], abs=0.06)
        assert row["n"] == row["coverage"] * 2000


def test_abstention_does_not_depend_on_the_scale_of_the_risks():
    valid, one = study(seed=9), study()
    held = {"student": (valid.labels, valid.risks["student"])}
    cubed = {"student": (valid.labels, valid.risks["student"] ** 3)}
    other = Study(one.labels, one.clusters, {"student": one.risks["student"] ** 3}, {})
    assert abstention(one, held, PLAN)["student"] == abstention(other, cubed, PLAN)["student"]


def test_the_balanced_threshold_has_the_lowest_balanced_error():
    one = study()
    risks, rare = one.risks["student"], one.labels == 1
    errors = {at: 1 + (risks[~rare] >= at).mean() - (risks[rare] >= at).mean() for at in risks}
    at = balanced_threshold(one.labels, risks)
    assert errors[at] == pytest.approx(min(errors.values()))


def test_prediction_sets_keep_their_promise_on_exchangeable_cases():
    valid, one = study(4000, seed=9), study(4000)
    rows = conformal(one, "student", valid.labels, valid.risks["student"], PLAN)
    for row in rows:
        assert row["coverage_rare"].value == pytest.approx(row["level"], abs=0.03)
        assert row["coverage_nonrare"].value == pytest.approx(row["level"], abs=0.03)
        assert row["one_label"] + row["both_labels"] + row["no_label"] == pytest.approx(1)
    assert rows[0]["both_labels"] < rows[-1]["both_labels"]


def test_too_few_validation_cases_promise_nothing_but_both_labels():
    one = study()
    rows = conformal(one, "student", np.array([1.0, 0.0]), np.array([0.9, 0.1]), PLAN)
    assert all(row["both_labels"] == 1 for row in rows)
    assert rows[0]["rare_from"] is None


def test_gaps_are_fairlearns_own():
    one, who = study(), traits()
    cells = blocks_of(one, who)
    found = fairness(one, "student", cells, PLAN)
    for block in ("by_sex", "by_age_band", "by_source"):
        names = np.empty(400, dtype=object)
        for name, index in cells[block].items():
            names[index] = name
        large = np.array(["other" not in name for name in names])
        assert set(found[block]["groups"]) == set(names[large])
        labels, names = one.labels[large], names[large]
        alert = one.risks["student"][large] >= 0.8
        gaps = {key: gap.value for key, gap in found[block]["gaps"].items()}
        given = {"sensitive_features": names}
        assert gaps == pytest.approx(
            {
                "demographic_parity_difference": demographic_parity_difference(
                    labels, alert, **given
                ),
                "equal_opportunity_difference": equal_opportunity_difference(
                    labels, alert, **given
                ),
                "equalized_odds_difference": equalized_odds_difference(labels, alert, **given),
            }
        )
        for name, row in found[block]["groups"].items():
            assert row["alert_rate"] == pytest.approx(alert[names == name].mean())


def test_small_groups_are_pooled_and_sources_never():
    one, who = study(), traits()
    cells = blocks_of(one, who)
    pooled = "other ages (each fewer than 10 rare or non-rare cases)"
    assert pooled in cells["by_age_band"]
    assert "00-01 years" not in cells["by_age_band"]
    assert sum(index.size for index in cells["by_age_band"].values()) == 400
    assert set(cells["by_source"]) == {"a", "b"}


def test_a_group_that_is_served_worse_is_found_and_chance_is_not():
    one, who = study(1000), traits(1000)
    risks = one.risks["student"].copy()
    female = np.array([sex == "female" for sex in who.sex])
    risks[female] = np.random.default_rng(1).random(int(female.sum()))
    spoilt = Study(one.labels, one.clusters, {"student": risks}, one.thresholds)
    found = contrasts(spoilt, "student", blocks_of(spoilt, who), PLAN)
    assert found["by_sex"]["female"]["ci_high"] < 0
    male = np.flatnonzero([sex == "male" for sex in who.sex])
    inside = auroc(one.labels[male], risks[male])
    rest = np.setdiff1d(np.arange(1000), male)
    expected = inside - auroc(one.labels[rest], risks[rest])
    assert found["by_sex"]["male"]["value"] == pytest.approx(expected)
    calm = contrasts(one, "student", blocks_of(one, who), PLAN)
    assert min(row["p_holm"] for block in calm.values() for row in block.values()) > 0.05


def test_a_gap_between_many_groups_is_significant_with_few_resamples_too():
    one = study(1000)
    cells = {"by_source": {f"s{place}": np.arange(place, 1000, 20) for place in range(20)}}
    risks = one.risks["student"].copy()
    risks[::20] = 1 - risks[::20]
    spoilt = Study(one.labels, one.clusters, {"student": risks}, one.thresholds)
    found = contrasts(spoilt, "student", cells, replace(PLAN, resamples=100))
    assert found["by_source"]["s0"]["p_holm"] < 0.05


def test_a_risk_that_rises_with_a_change_is_seen_with_its_interval():
    one = study()
    index = np.arange(0, 400, 10)
    same = Retold(index, one.risks["student"][index])
    more = Retold(index, np.minimum(1, one.risks["student"][index] + 0.1))
    found = robustness(one, "student", {"same": same, "more": more}, PLAN)
    assert found["same"]["mean_absolute_change"].value == 0
    assert found["same"]["changed_alerts"].value == 0
    assert found["same"]["auroc_change"].value == 0
    assert 0.05 < found["more"]["mean_change"].ci_low <= found["more"]["mean_change"].ci_high <= 0.1
    assert found["more"]["largest_change"] == pytest.approx(0.1)
    assert found["more"]["changed_alerts"].value > 0


def test_retold_risks_survive_the_file_and_bad_ones_are_refused(tmp_path):
    file = tmp_path / "robustness.parquet"
    rows = [("b", "typing_errors", 0.2), ("a", "typing_errors", 0.1), ("a", "paraphrase", 0.3)]
    columns = ["case_id", "perturbation", "risk"]
    write_robustness(file, pd.DataFrame(rows, columns=columns))
    found = read_robustness(file, ["a", "b"])
    assert found["typing_errors"].index.tolist() == [0, 1]
    assert found["typing_errors"].risks.tolist() == [0.1, 0.2]
    with pytest.raises(BadInputError, match="foreign"):
        read_robustness(file, ["a"])
    write_robustness(file, pd.DataFrame([("a", "paraphrase", float("nan"))], columns=columns))
    with pytest.raises(BadInputError, match="nan"):
        read_robustness(file, ["a"])
    file.write_bytes(b"no")
    with pytest.raises(BadInputError, match="can't be read"):
        read_robustness(file, ["a"])
    with pytest.raises(BadInputError, match="missing"):
        read_robustness(tmp_path / "no.parquet", ["a"])


def test_flow_and_table_one_add_up():
    frame = pd.DataFrame(
        {
            "part": ["train", "train", "test", "test"],
            "rare": [True, False, True, False],
            "disease": ["a", "b", "c", "d"],
            "source": ["s"] * 4,
            "age_years": [1.0, 3.0, None, 5.0],
            "sex": ["female", None, "male", "female"],
            "words": [10.0, 20.0, 30.0, 40.0],
            "missing_vitals": [True, False, True, False],
        }
    )
    reasons = {"excluded": {"label: not a known disease name": 3}}
    read = {"cases": 4, "left_out": 3, "sources": {"s": {"left_out": reasons}}}
    found = flow(read, frame)
    assert found["read"] == found["cases"] + sum(found["left_out"].values())
    assert found["parts"]["test"]["s"] == {"rare": 1, "nonrare": 1}
    one = table_one(frame)["test"]["rare"]
    assert one["age_years"] == {"q1": None, "median": None, "q3": None, "unknown": 1}
    assert one["sex"] == {"female": 0, "male": 1, "unknown": 0}
    assert one["missing"] == {"vitals": 1}
