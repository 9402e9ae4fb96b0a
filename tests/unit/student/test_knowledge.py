"""Knowledge-only examples: of no judged disease, balanced, and computed once."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from rarealert.cases.leakage import disease_keys, near_duplicates, rendered, tied_groups
from rarealert.cases.simulate import simulate
from rarealert.cases.simulate_knowledge import SOURCE, allowed_world, keys_of, knowledge_cases
from rarealert.cases.simulate_world import load_world
from rarealert.cases.splits import PARTS, Shares, assign
from rarealert.errors import BadInputError
from rarealert.params import SimulatedParams
from rarealert.student.classroom import open_desk
from rarealert.student.head import Rows, fit_head
from rarealert.student.knowledge import knowledge_of_words, read_barred
from rarealert.student.wordrisk import fit_word_risk


@pytest.fixture(scope="module")
def held_out() -> list:
    """Validation and test part of a small simulated corpus, split as the stage splits it."""
    cases = list(simulate(SimulatedParams(seed=3, rare_cases=150, nonrare_cases=150)))
    groups = tied_groups(cases, near_duplicates(rendered(cases), 0.7, 64, 1))
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
    for group in tied_groups(both, near_duplicates(rendered(both), 0.7, 64, 1)):
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


def test_words_are_weighed_once_and_again_for_other_diseases(
    tiny_base: Path, distil_params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAREALERT_CACHE", str(tmp_path))
    chosen = distil_params(str(tiny_base), (2, 1)).model_copy(update={"knowledge_cases": 60})
    desk = open_desk(chosen)
    first = knowledge_of_words(desk, chosen, frozenset())
    assert first.shape == (desk.base.model.config.vocab_size,)
    (kept,) = tmp_path.iterdir()
    with monkeypatch.context() as without:
        without.setattr("rarealert.student.knowledge._fit", None)  # fitting would fail
        assert np.array_equal(knowledge_of_words(desk, chosen, frozenset()), first)
    knowledge_of_words(desk, chosen, frozenset({"ORPHA:589"}))
    assert len(list(tmp_path.iterdir())) == 2
    kept.write_bytes(b"no array")
    with pytest.raises(BadInputError, match="is damaged; delete it"):
        knowledge_of_words(desk, chosen, frozenset())


def test_word_risk_tells_words_of_one_label_and_is_silent_on_the_rest() -> None:
    random = np.random.default_rng(1)
    rare = np.arange(200) % 2 == 0
    # 0: everywhere, 1: rare, 2: common, 3-5: either, 9: one example alone
    ids = [[0, 1 if label else 2, *random.integers(3, 6, 3)] for label in rare]
    ids[0].append(9)
    table = fit_word_risk(ids, rare, 12)
    assert table[1] > 0.5
    assert table[2] < -0.5
    assert table[0] == table[9] == table[11] == 0
    assert np.abs(table[3:6]).max() < table[1] / 4


def test_word_risk_agrees_with_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(2)
    rare = random.random(300) < 0.5
    ids = [random.choice(8, 10, p=_tilted(label)).tolist() for label in rare]
    counts = np.array([np.bincount(row, minlength=8) for row in ids])
    rarity = 20 * np.log(301 / (1 + (counts > 0).sum(axis=0)))
    theirs = LogisticRegression(C=0.1, tol=1e-10, max_iter=2000).fit(counts / 10 * rarity, rare)
    assert np.allclose(fit_word_risk(ids, rare, 8), theirs.coef_[0] * rarity, atol=0.02)


def _tilted(label: bool) -> np.ndarray:
    weights = np.arange(1.0, 9.0) if label else np.arange(8.0, 0.0, -1)
    return weights / weights.sum()


def _rows(count: int, seed: int, spoken: int | None) -> Rows:
    random = np.random.default_rng(seed)
    rare = np.arange(count) % 2 == 0
    features = random.normal(size=(count, 12)).astype(np.float32)
    features[:, :2] += np.where(rare, 0.7, -0.7)[:, None]
    return Rows(features, rare, rare.astype(float), [f"d{i // 2}" for i in range(count)], spoken)


def test_head_agrees_with_scikit_learn_where_targets_are_labels() -> None:
    from sklearn.linear_model import LogisticRegression

    from rarealert.student.head import _fit

    rows = _rows(200, 1, None)
    ours = _fit(rows.features, rows.target, (1e-2, 1e-1))[1]
    theirs = LogisticRegression(C=1e-1, tol=1e-8, max_iter=1000).fit(rows.features, rows.rare)
    assert np.allclose(ours, [*theirs.coef_[0], theirs.intercept_[0]], atol=2e-3)


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


def test_what_words_say_is_the_same_at_work_as_in_training(
    tiny_base: Path, distil_params, cases, tmp_path: Path
) -> None:
    import torch

    from rarealert.student.activations import freeze_prompts
    from rarealert.student.lessons import make_lessons
    from rarealert.student.network import denied_mask, pad_right, pool

    desk = open_desk(distil_params(str(tiny_base), (2, 1)))
    count = int(desk.base.model.config.vocab_size)
    desk.trunk.word_risk = torch.arange(count, dtype=torch.float32)
    denying = cases[0].case.model_copy(update={"chief_complaint": "Cough, no fever."})
    some = [cases[0].model_copy(update={"case": denying}), *cases[1:5]]
    part = make_lessons(some, {item.case.case_id: 0.5 for item in some}, desk.encoder)
    frozen = freeze_prompts(desk.trunk, part.examples, 0, tmp_path / "x.f16", 2)
    ids, lengths = pad_right([item.prompt for item in part.examples], 0)
    assert frozen.words.shape == (5, desk.trunk.word_width)
    denied = denied_mask([item.denied for item in part.examples], ids.shape[1])
    alone = desk.trunk.words(ids, denied)
    assert np.allclose(frozen.words, pool(alone, lengths).detach().numpy(), atol=1e-4)
    assert denied.any()
    assert not alone[denied].any()
    means = [
        np.mean([token * (place not in item.denied) for place, token in enumerate(item.prompt)])
        for item in part.examples
    ]
    assert np.allclose(frozen.words[:, -1], means, rtol=1e-5)
