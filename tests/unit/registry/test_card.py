"""The model card: the hub can read it, and it contains the report's figures."""

import re

import pytest
from huggingface_hub import ModelCard

from rarealert.registry.card import CardFacts, render_card
from rarealert.registry.gates.gate import GateResult


def figure(value, n=350):
    return {"value": value, "ci_low": value - 0.05, "ci_high": value + 0.05, "n": n}


@pytest.fixture
def facts():
    return CardFacts(
        name="rarealert-student",
        version="3",
        base_model="smollm2-135m-instruct",
        identity={"base.sha256": "b" * 64, "adapter.sha256": "a" * 64, "code.sha256": "c" * 64},
        renderer_version="1",
        commit="d" * 40,
        sources=("simulated",),
        cases={"train": 770, "valid": 280, "test": 350},
        calibration_prevalence=0.5,
    )


@pytest.fixture
def report():
    control = {"auroc": figure(0.72)}
    student = {"auroc": figure(0.79), "brier": figure(0.19), "ece": figure(0.06)}
    row = {"prevalence": 0.001, "alerts_per_1000": 75.4, "ppv": None}
    return {
        "dataset": {"digest": "e" * 64, "interval": {"confidence": 0.95, "resamples": 1000}},
        "models": {"student": student, "control:tfidf": control},
        "controls": {"control:tfidf": control},
        "by_sex": {"female": {"student": {"auroc": figure(0.61, n=170)}}, "male": {"student": {}}},
        "comparisons": {"student - control:tfidf": figure(0.07)},
        "prevalence": {"student": [row | {"number_needed_to_evaluate": None}]},
        "robustness": {"typing_errors": {"n": 32, "mean_change": figure(0.087, n=32)}},
    }


GATES = [GateResult("RA003", "Above every control", False, -0.01, 0.0, "AUROC is -0.010.")]


def test_the_hub_reads_the_figures_as_a_model_index(facts, report):
    card = ModelCard(render_card(facts, report, GATES))
    assert card.data.license == "apache-2.0"
    assert card.data.base_model == "smollm2-135m-instruct"
    found = {one.metric_type: one for one in card.data.eval_results}
    assert found["auroc"].metric_value == 0.79
    assert found["auroc"].metric_args["n"] == 350
    assert found["auroc"].dataset_revision == "e" * 64


def test_figures_come_with_controls_groups_limits_and_gates(facts, report):
    text = render_card(facts, report, GATES)
    for heading in ("Intended use", "Data", "Figures", "Controls", "Subgroups", "Gates", "Limits"):
        assert f"\n## {heading}\n" in text
    assert "\n## Change plan\n" in text
    assert "**All of these visits are simulated**" in text
    assert "| sex | female | 170 | 0.610 (0.560 to 0.660) |" in text
    assert re.search(r"nearest control.*control:tfidf", text)
    assert "| RA003 | Above every control | **no** |" in text
    assert "| 0.1 % | 75 | \u2013 | \u2013 |" in text
    assert "| typing errors | 32 | 0.087 (0.037 to 0.137) |" in text
    assert text == render_card(facts, report, GATES)


@pytest.mark.parametrize("figures", [{}, {"auroc": figure(0.8)}])
def test_a_report_of_few_figures_still_makes_a_card(facts, figures):
    text = render_card(facts, {"models": {"student": figures}}, GATES)
    assert "## Subgroups" not in text
    assert ("0.800" in text) is bool(figures)
