"""Alerts in use: prevalence, abstention, prediction sets, perturbed visits."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rarealert.calibration.prevalence import shift_prevalence
from rarealert.errors import BadInputError
from rarealert.evaluation.abstention import abstention, balanced_threshold, conformal
from rarealert.evaluation.predictive_values import (
    ACT_AT,
    PREVALENCES,
    predictive_values,
    prevalence_table,
)
from rarealert.evaluation.robustness import (
    COLUMNS,
    Perturbed,
    read_robustness,
    robustness,
    write_robustness,
)
from rarealert.evaluation.study import Study


def test_predictive_values_by_hand():
    found = predictive_values(np.array([0.8, 0.0]), np.array([0.9, 1.0]), 0.01)
    assert found["ppv"][0] == pytest.approx(0.008 / 0.107)
    assert found["npv"][0] == pytest.approx(0.891 / 0.893)
    assert found["alerts_per_1000"][0] == pytest.approx(107)
    assert found["number_needed_to_evaluate"][0] == pytest.approx(0.107 / 0.008)
    assert np.isnan(found["ppv"][1])


def test_prevalence_rows_are_those_of_a_population_with_that_prevalence(make_study, plan):
    one = make_study()
    rows = prevalence_table(one, "student", 0.5, plan)
    assert [row["prevalence"] for row in rows] == list(PREVALENCES)
    risks, row = one.risks["student"], rows[-1]
    weight = np.where(one.labels == 1, 0.3 / 0.5, 0.7 / 0.5)  # reweighted to 30 % rare
    alert = risks >= 0.8
    assert row["prevalence"] == 0.3
    assert row["alerts_per_1000"] == pytest.approx(1000 * (weight * alert).sum() / weight.sum())
    ppv = (weight * alert * one.labels).sum() / (weight * alert).sum()
    assert row["ppv"] == pytest.approx(ppv)
    assert row["ci"]["ppv"][0] < ppv < row["ci"]["ppv"][1]
    act = row["at_shifted_risk"]
    flagged = shift_prevalence(risks, 0.5, 0.3) >= ACT_AT
    assert act["sensitivity"] == pytest.approx(flagged[one.labels == 1].mean())
    assert act["specificity"] == pytest.approx(1 - flagged[one.labels == 0].mean())


def test_no_threshold_means_no_prevalence_table(make_study, plan):
    assert prevalence_table(replace(make_study(), thresholds={}), "student", 0.5, plan) == []


def test_a_good_model_errs_less_where_it_is_confident_and_a_coin_does_not(make_study, plan):
    valid = make_study(2000, seed=9)
    models = ("student", "control:coin")
    found = abstention(
        make_study(2000), {name: (valid.labels, valid.risks[name]) for name in models}, plan
    )
    good = [row["balanced_error"].value for row in found["student"]]
    assert good == sorted(good, reverse=True)
    assert good[-1] < good[0] / 2
    assert abs(found["control:coin"][-1]["balanced_error"].value - 0.5) < 0.06
    for row in found["student"]:
        assert row["coverage"] == pytest.approx(row["target"], abs=0.06)
        assert row["n"] == row["coverage"] * 2000


def test_abstention_does_not_depend_on_the_scale_of_the_risks(make_study, plan):
    valid, one = make_study(seed=9), make_study()
    held = {"student": (valid.labels, valid.risks["student"])}
    cubed = {"student": (valid.labels, valid.risks["student"] ** 3)}
    other = Study(one.labels, one.clusters, {"student": one.risks["student"] ** 3}, {})
    assert abstention(one, held, plan)["student"] == abstention(other, cubed, plan)["student"]


def test_the_balanced_threshold_has_the_lowest_balanced_error(make_study):
    one = make_study()
    risks, rare = one.risks["student"], one.labels == 1
    errors = {at: 1 + (risks[~rare] >= at).mean() - (risks[rare] >= at).mean() for at in risks}
    at = balanced_threshold(one.labels, risks)
    assert errors[at] == pytest.approx(min(errors.values()))


def test_prediction_sets_reach_their_level_on_exchangeable_cases(make_study, plan):
    valid = make_study(4000, seed=9)
    rows = conformal(make_study(4000), "student", valid.labels, valid.risks["student"], plan)
    for row in rows:
        assert row["coverage_rare"].value == pytest.approx(row["level"], abs=0.03)
        assert row["coverage_nonrare"].value == pytest.approx(row["level"], abs=0.03)
        assert row["one_label"] + row["both_labels"] + row["no_label"] == pytest.approx(1)
    assert rows[0]["both_labels"] < rows[-1]["both_labels"]


def test_too_few_validation_cases_give_sets_of_both_labels(make_study, plan):
    rows = conformal(make_study(), "student", np.array([1.0, 0.0]), np.array([0.9, 0.1]), plan)
    assert all(row["both_labels"] == 1 for row in rows)
    assert rows[0]["rare_from"] is None


def test_a_risk_that_rises_with_a_perturbation_is_measured_with_its_interval(make_study, plan):
    one = make_study()
    index = np.arange(0, 400, 10)
    risks = one.risks["student"][index]
    perturbed = {
        "same": Perturbed(index, risks),
        "more": Perturbed(index, np.minimum(1, risks + 0.1)),
    }
    found = robustness(one, "student", perturbed, plan)
    for figure in ("mean_absolute_change", "changed_alerts", "auroc_change"):
        assert found["same"][figure].value == 0
    assert 0.05 < found["more"]["mean_change"].ci_low <= found["more"]["mean_change"].ci_high <= 0.1
    assert found["more"]["largest_change"] == pytest.approx(0.1)
    assert found["more"]["changed_alerts"].value > 0


def test_perturbed_risks_survive_the_file_and_bad_ones_are_refused(tmp_path):
    file = tmp_path / "robustness.parquet"

    def write(*rows):
        write_robustness(file, pd.DataFrame(rows, columns=list(COLUMNS)))

    write(("b", "typing_errors", 0.2), ("a", "typing_errors", 0.1), ("a", "paraphrase", 0.3))
    found = read_robustness(file, ["a", "b"])
    assert found["typing_errors"].index.tolist() == [0, 1]
    assert found["typing_errors"].risks.tolist() == [0.1, 0.2]
    with pytest.raises(BadInputError, match="case b"):
        read_robustness(file, ["a"])
    write(("a", "paraphrase", float("nan")))
    with pytest.raises(BadInputError, match="nan"):
        read_robustness(file, ["a"])
    file.write_bytes(b"no")
    with pytest.raises(BadInputError):
        read_robustness(file, ["a"])
    with pytest.raises(BadInputError, match="missing"):
        read_robustness(tmp_path / "no.parquet", ["a"])
