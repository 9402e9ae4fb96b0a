"""Two versions on the same cases: differences, subgroups, changed alerts, and the pages."""

from dataclasses import replace

import numpy as np
import pytest

from rarealert.errors import RareAlertError
from rarealert.evaluation.intervals import Bootstrap
from rarealert.evaluation.metrics import auroc
from rarealert.registry.comparison import (
    Side,
    TestPart,
    calibration_overlay,
    compare_sides,
    markdown,
    page,
)
from rarealert.registry.judged import SMALL_HEADS

N = 160
PLAN = Bootstrap(200, 0.95, 3)


def risks(separation, seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=N) + separation * (2 * (np.arange(N) % 2) - 1)
    return {f"c{i}": float(1 / (1 + np.exp(-value))) for i, value in enumerate(logits)}


def side(version, found, **fields):
    costs = {"seconds for one visit": 0.1 * version}
    made = Side(f"version {version}", str(version), found, 0.6, costs, "none")
    return replace(made, **fields)


@pytest.fixture
def part():
    keys = [f"c{i}" for i in range(N)]
    rare = {key: i % 2 == 1 for i, key in enumerate(keys)}
    heads = {key: "renal" if i < 60 else f"head {i}" for i, key in enumerate(keys) if rare[key]}
    sexes = {key: ("female", "male")[i // 2 % 2] for i, key in enumerate(keys)}
    disease = {key: f"d{i // 2}" for i, key in enumerate(keys)}
    return TestPart(rare, disease, {"head": heads, "sex": sexes, "source": {}})


def test_the_difference_is_second_minus_first_and_names_the_better(part):
    weak, strong = risks(0.3, 1), risks(2.0, 2)
    found = compare_sides(side(1, weak), side(2, strong), part, PLAN)
    labels = [float(part.rare[key]) for key in sorted(part.rare)]
    values = [auroc(labels, [each[key] for key in sorted(part.rare)]) for each in (weak, strong)]
    difference = found["metrics"]["auroc"]["difference"]
    assert difference["value"] == pytest.approx(values[1] - values[0])
    assert difference["ci_low"] > 0
    assert found["metrics"]["auroc"]["better"] == "b"
    assert found["metrics"]["brier"]["difference"]["value"] < 0
    assert found["metrics"]["brier"]["better"] == "b"
    assert "B is better" in found["verdict"]
    back = compare_sides(side(2, strong), side(1, weak), part, PLAN)
    assert back["metrics"]["auroc"]["difference"]["value"] == pytest.approx(-difference["value"])
    assert back["metrics"]["brier"]["better"] == "a"


def test_a_version_is_not_better_than_itself(part):
    found = compare_sides(side(1, risks(1, 1)), side(1, risks(1, 1)), part, PLAN)
    assert found["metrics"]["auroc"]["better"] == "neither"
    assert found["metrics"]["auroc"]["difference"]["value"] == 0
    assert "better" not in found["verdict"]


def test_a_head_that_loses_shows_although_the_average_gains(part):
    strong = risks(2.0, 2)
    turned = {
        key: 1 - risk if part.cells["head"].get(key) == "renal" else risk
        for key, risk in strong.items()
    }
    heads = compare_sides(side(1, strong), side(2, turned), part, PLAN)["subgroups"]["head"]
    assert set(heads) == {"renal", SMALL_HEADS}
    assert heads["renal"]["gains"] == "a"
    assert heads[SMALL_HEADS]["gains"] == "neither"


def test_alerts_are_counted_at_each_sides_own_threshold(part):
    one, other = side(1, risks(1, 1), alert=2.0), side(2, risks(1, 1), alert=0.0)
    alerts = compare_sides(one, other, part, PLAN)["alerts"]
    assert alerts["rare"] == {"n": N // 2, "both": 0, "gained": N // 2, "lost": 0}
    assert alerts["nonrare"]["gained"] == N // 2
    assert compare_sides(replace(one, alert=None), other, part, PLAN)["alerts"] is None


def test_only_cases_that_both_scored_count(part):
    few = {key: risk for i, (key, risk) in enumerate(risks(1, 1).items()) if i < 100}
    found = compare_sides(side(1, few), side(2, risks(1, 2)), part, PLAN)
    assert found["cases"] == {"n": 100, "rare": 50, "of": N}
    with pytest.raises(RareAlertError, match="AUROC"):
        compare_sides(side(1, {"c0": 0.5}), side(2, risks(1, 2)), part, PLAN)


def test_the_page_and_the_markdown_have_the_same_content(part):
    one, other = side(1, risks(0.3, 1)), side(2, risks(2.0, 2), failed="RA003")
    found = compare_sides(one, other, part, PLAN)
    plot = calibration_overlay(one, other, part)
    assert plot.startswith(b"\x89PNG")
    html, text = page(found, plot), markdown(found)
    for shown in (html, text):
        assert found["verdict"] in shown
        assert "RA003" in shown
        assert "Orphanet head: renal" in shown
        assert "0.2" in shown
        assert "not a diagnosis" in shown
    assert len(html) < 1_000_000
    assert "http" not in html
    lengths = {line.count("|") for line in text.splitlines() if line.startswith("| AUROC")}
    assert lengths == {7}
