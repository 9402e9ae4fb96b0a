"""Knowledge-only examples: of no judged disease, balanced, and computed once."""

import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from rarealert.errors import BadInputError
from rarealert.params import SimulatedParams
from rarealert.simulation.corpus import SOURCE, allowed_world, keys_of, knowledge_cases, simulate
from rarealert.simulation.world import load_world
from rarealert.splits.leakage import disease_keys, near_duplicates, tied_groups
from rarealert.splits.parts import PARTS, Shares, assign
from rarealert.student.encoding import EncodedFinding, Facts
from rarealert.student.finding_risk import (
    FindingRisk,
    fit_finding_risk,
    knowledge_of_findings,
    read_barred,
)
from rarealert.student.profile_match import ProfileMatch, packaged_library
from rarealert.student.tasks import Rows, fit_head, open_desk
from rarealert.visits.reading import read_visit, render


def _tied(cases: list) -> list[list[int]]:
    return tied_groups(cases, near_duplicates([render(item.case) for item in cases], 0.7, 64, 1))


@pytest.fixture(scope="module")
def held_out() -> list:
    """Validation and test part of a small simulated corpus, split as the stage splits it."""
    cases = list(simulate(SimulatedParams(seed=3, rare_cases=150, nonrare_cases=150)))
    groups = _tied(cases)
    parts = assign(cases, groups, Shares(0.2, 0.25), 7)
    assert set(parts) == set(PARTS)
    return [item for item, part in zip(cases, parts, strict=True) if part != "train"]


@pytest.fixture(scope="module")
def barred(held_out) -> frozenset[str]:
    return frozenset(key for item in held_out for key in disease_keys(item))


def test_no_example_shares_a_disease_or_a_text_with_what_is_judged(held_out, barred) -> None:
    made = list(knowledge_cases(600, barred, 17))
    assert not barred & {key for item in made for key in disease_keys(item)}
    both = [*held_out, *made]
    for group in tied_groups(
        both, near_duplicates([render(item.case) for item in both], 0.7, 64, 1)
    ):
        assert len({both[index].case.source for index in group}) == 1


def test_a_barred_disease_lends_no_finding_either(barred) -> None:
    world = allowed_world(barred)
    drawn = [*world.rare, *world.common.values()]
    assert {disease.profile.disease_id for disease in world.rare} == set(world.rare_by_id)
    lent = {id(disease) for disease in world.rare} | {
        id(world.common[condition.profile.disease_id]) for condition in world.conditions
    }
    for disease in drawn:
        if keys_of(disease.profile) & barred:
            assert id(disease) not in lent
    assert len(world.rare) > 3000
    assert len(world.conditions) > 100


def test_labels_alternate_and_conditions_take_turns(barred) -> None:
    conditions = len(allowed_world(barred).conditions)
    made = list(knowledge_cases(4 * conditions, barred, 17))
    assert [item.label.label for item in made[:4]] == ["rare", "nonrare", "rare", "nonrare"]
    counts = Counter(item.label.disease_id for item in made[1::2])
    assert set(counts.values()) == {2}
    assert len({item.label.disease_id for item in made[::2]}) > conditions / 2
    assert {item.case.source for item in made} == {SOURCE}
    assert len({item.case.case_id for item in made}) == len(made)


def test_a_larger_count_starts_with_the_smaller_one_and_a_seed_decides(barred) -> None:
    few, more = list(knowledge_cases(6, barred, 17)), list(knowledge_cases(10, barred, 17))
    assert more[:6] == few
    assert list(knowledge_cases(6, barred, 18)) != few


def test_nothing_left_to_draw_is_one_sentence() -> None:
    world = load_world()
    everything = frozenset(disease.profile.disease_id for disease in world.rare)
    with pytest.raises(BadInputError, match="knowledge_cases to 0"):
        next(knowledge_cases(1, everything, 1))


def test_held_out_diseases_are_read_as_split_left_them(tmp_path: Path) -> None:
    file = tmp_path / "held_out.json"
    with pytest.raises(BadInputError, match="run dvc repro split"):
        read_barred(file)
    file.write_text("{}")
    with pytest.raises(BadInputError, match="names no held-out diseases"):
        read_barred(file)
    file.write_text(json.dumps({"valid": ["ORPHA:1"], "test": ["NAME:flu"]}))
    assert read_barred(file) == {"ORPHA:1", "NAME:flu"}


def test_findings_are_weighed_once_and_again_for_other_diseases(
    tiny_base: Path, distil_params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAREALERT_CACHE", str(tmp_path))
    chosen = distil_params(str(tiny_base), (2, 1)).model_copy(update={"knowledge_cases": 60})
    desk = open_desk(chosen)
    first = knowledge_of_findings(desk, chosen, frozenset())
    assert first.terms.shape == first.log_odds.shape
    assert (np.diff(first.terms) > 0).all()
    assert np.abs(first.log_odds).max() > 0.1
    (kept,) = tmp_path.iterdir()
    with monkeypatch.context() as without:
        without.setattr("rarealert.student.finding_risk._fit", None)  # fitting would fail
        again = knowledge_of_findings(desk, chosen, frozenset())
    assert np.array_equal(again.terms, first.terms)
    assert np.array_equal(again.log_odds, first.log_odds)
    knowledge_of_findings(desk, chosen, frozenset({"ORPHA:589"}))
    assert len(list(tmp_path.iterdir())) == 2
    for damaged in (b"no array", kept.read_bytes()[:-30]):
        kept.write_bytes(damaged)
        with pytest.raises(BadInputError, match="is damaged; delete it"):
            knowledge_of_findings(desk, chosen, frozenset())


def test_finding_risk_tells_terms_of_one_label_and_is_silent_on_the_rest() -> None:
    random = np.random.default_rng(1)
    rare = np.arange(200) % 2 == 0
    # 10: everywhere, 21: rare, 22: common, 33-38: either, 99: one example alone
    found = [
        [10, 21 if label else 22, *random.choice(range(33, 39), 3, replace=False)] for label in rare
    ]
    found[0].append(99)
    known = fit_finding_risk(found, [20] * 200, rare)
    said = dict(zip(known.terms.tolist(), known.log_odds.tolist(), strict=True))
    assert said[21] > 0.5
    assert said[22] < -0.5
    assert said[10] == said[99] == 0
    assert max(abs(said[term]) for term in range(33, 39)) < said[21] / 4


def test_finding_risk_is_where_its_ridge_logistic_loss_is_least() -> None:
    random = np.random.default_rng(2)
    rare = random.random(300) < 0.5
    lengths = random.integers(50, 90, 300)
    found = [np.unique(random.choice(8, 4, p=_tilted(label))).tolist() for label in rare]
    held = np.array([np.bincount(row, minlength=8) for row in found])
    rarity = 20 * np.log(301 / (1 + held.sum(axis=0)))
    shares = held / lengths[:, None] * rarity
    best = _least(shares, rare.astype(float), 1.0)
    known = fit_finding_risk(found, lengths.tolist(), rare)
    assert known.terms.tolist() == list(range(8))
    assert np.allclose(known.log_odds, best[:-1] * rarity, atol=0.05)


def _least(features: np.ndarray, share: np.ndarray, strength: float) -> np.ndarray:
    """Weights and bias at the least ``strength * cross-entropy + |weights|² / 2``, by SciPy."""
    from scipy.optimize import minimize
    from scipy.special import expit

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        logits = features @ values[:-1] + values[-1]
        error = strength * (expit(logits) - share)
        entropy = strength * (np.logaddexp(0, logits) - share * logits).sum()
        slope = np.append(features.T @ error + values[:-1], error.sum())
        return entropy + values[:-1] @ values[:-1] / 2, slope

    start = np.zeros(features.shape[1] + 1)
    return minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-6}).x


def test_each_finding_speaks_where_it_stands_and_unknown_ones_are_silent() -> None:
    known = FindingRisk(np.array([5, 9]), np.array([0.5, -2.0], dtype=np.float32))
    found = [
        Facts(
            (EncodedFinding(1, (5, 9)), EncodedFinding(3, (9, 10)))
        ),  # 9 counts where it is first brought
        Facts(),
        Facts((EncodedFinding(0, (4, 9)), EncodedFinding(2, (10,)), EncodedFinding(7, (5,)))),
    ]
    expected = [[0, -1.5, 0, 0], [0, 0, 0, 0], [-2, 0, 0, 0]]
    assert known.at(found, 4).tolist() == expected
    nothing = FindingRisk(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
    assert not nothing.at(found, 4).any()


def _tilted(label: bool) -> np.ndarray:
    weights = np.arange(1.0, 9.0) if label else np.arange(8.0, 0.0, -1)
    return weights / weights.sum()


def _rows(count: int, seed: int, spoken: int | None) -> Rows:
    random = np.random.default_rng(seed)
    rare = np.arange(count) % 2 == 0
    features = random.normal(size=(count, 12)).astype(np.float32)
    features[:, :2] += np.where(rare, 0.7, -0.7)[:, None]
    return Rows(features, rare, rare.astype(float), [f"d{i // 2}" for i in range(count)], spoken)


@pytest.mark.parametrize("rows", [200, 9])
def test_head_is_where_its_ridge_logistic_loss_of_shares_is_least(rows) -> None:
    from rarealert.student.tasks import _fit

    features = _rows(rows, 1, None).features  # of 12 columns: more rows than them, and fewer
    share = np.random.default_rng(4).random(rows)
    strengths = (1e-2, 1e-1)
    ours = _fit(features, share, strengths)
    theirs = [_least(features.astype(float), share, strength) for strength in strengths]
    assert np.allclose(ours, theirs, atol=1e-4)
    assert np.array_equal(ours, _fit(features, share, strengths))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_knowledge_moves_its_share_of_the_logit_and_learns_nothing_of_the_cases(share) -> None:
    import torch

    rows = _rows(200, 3, 1)
    head = fit_head(rows, 0.5, share)
    scaled = (torch.from_numpy(rows.features) - head.mean) / head.scale
    parts = (scaled * head.linear.weight).detach().numpy()
    rest = np.delete(parts, 1, axis=1).sum(axis=1)
    assert parts[:, 1].std() * (1 - share) == pytest.approx(rest.std() * share, rel=1e-3)
    flipped = Rows(rows.features, ~rows.rare, 1 - rows.target, rows.groups, 1)
    other = fit_head(flipped, 0.5, share)
    assert float(other.linear.weight.detach()[0, 1]) >= 0  # whatever the labels say


def test_how_profiles_match_is_fitted_and_hardly_penalised() -> None:
    rows = _rows(200, 3, 5)
    penalised, trusted = (
        fit_head(dataclasses.replace(rows, matched=column), 0.5, 0.3) for column in (None, 0)
    )
    before, after = (abs(float(one.linear.weight.detach()[0, 0])) for one in (penalised, trusted))
    assert after > 1.2 * before  # and the share of what findings say leaves it as it is
    unshared = fit_head(dataclasses.replace(rows, matched=0), 0.5, 0.0)
    assert abs(float(unshared.linear.weight.detach()[0, 0])) == pytest.approx(after, rel=1e-5)


def test_what_findings_say_is_the_same_at_work_as_in_training(
    tiny_base: Path, distil_params, cases, tmp_path: Path
) -> None:
    from rarealert.student.activations import freeze_prompts
    from rarealert.student.examples import LabelledReading, make_lessons
    from rarealert.student.network import denied_mask, pad_right, pool

    desk = open_desk(distil_params(str(tiny_base), (2, 1)))
    denying = cases[0].case.model_copy(update={"chief_complaint": "Cough, no fever."})
    some = [LabelledReading(read_visit(denying), cases[0].label), *cases[1:5]]
    part = make_lessons(some, {item.case.case_id: 0.5 for item in some}, desk.encoder)
    found = [item.facts for item in part.examples]
    terms = np.unique([number for facts in found for _, number in facts.implied()])
    odds = np.random.default_rng(5).normal(size=len(terms)).astype(np.float32)
    desk.trunk.finding_risk = FindingRisk(terms, odds)
    desk.trunk.profile_match = match = ProfileMatch(packaged_library())
    frozen = freeze_prompts(desk.trunk, part.examples, 0, tmp_path / "x.f16", 2)
    ids, lengths = pad_right([item.prompt for item in part.examples], 0)
    assert frozen.words.shape == (5, desk.trunk.word_width)
    denied = denied_mask([item.denied for item in part.examples], ids.shape[1])
    alone = desk.trunk.words(ids, denied, found)
    assert np.allclose(frozen.words, pool(alone, lengths).detach().numpy(), atol=1e-4)
    assert denied.any()
    assert not alone[denied].any()
    said = dict(zip(terms.tolist(), odds.tolist(), strict=True))
    means = [
        sum(said[number] for _, number in item.facts.implied()) / len(item.prompt)
        for item in part.examples
    ]
    assert np.ptp(means) > 0
    assert np.allclose(frozen.words[:, -2], means, atol=1e-5)
    ratios = [sum(part for _, part in match.log_ratios(item)) for item in found]
    assert np.ptp(ratios) > 0
    assert np.allclose(frozen.words[:, -1], ratios, atol=1e-4)


def test_a_head_carries_what_knowledge_says(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    from rarealert.student.network import RiskHead

    head = RiskHead(3)
    assert head.finding_risk is None
    head.finding_risk = FindingRisk(np.array([5, 9]), np.array([0.5, -2.0], dtype=np.float32))
    save_file(head.state_dict(), tmp_path / "head.safetensors")
    state = load_file(tmp_path / "head.safetensors")
    other = RiskHead(3, state["terms"].shape[0])
    other.load_state_dict(state)
    assert torch.equal(other.terms, head.terms)
    assert other.finding_risk.at([Facts((EncodedFinding(0, (9,)),))], 1).tolist() == [[-2.0]]
    other.finding_risk = None
    assert other.finding_risk is None
