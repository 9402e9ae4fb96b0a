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
from rarealert.student.knowledge import knowledge_features, read_barred


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


def test_features_are_computed_once_and_again_for_other_diseases(
    tiny_base: Path, distil_params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAREALERT_CACHE", str(tmp_path))
    chosen = distil_params(str(tiny_base), (2, 1)).model_copy(update={"knowledge_cases": 12})
    desk = open_desk(chosen)
    first = knowledge_features(desk, chosen, frozenset())
    assert first.features.shape == (12, 2 * desk.base.model.config.hidden_size)
    assert first.rare.tolist() == [True, False] * 6
    (kept,) = tmp_path.iterdir()
    monkeypatch.setattr("rarealert.student.knowledge._compute", None)  # computing would fail
    again = knowledge_features(desk, chosen, frozenset())
    assert np.array_equal(again.features, first.features)
    assert again.groups == first.groups
    monkeypatch.undo()
    monkeypatch.setenv("RAREALERT_CACHE", str(tmp_path))
    knowledge_features(desk, chosen, frozenset({first.groups[0]}))
    assert len(list(tmp_path.iterdir())) == 2
    kept.write_bytes(b"no archive")
    with pytest.raises(BadInputError, match="is damaged; delete it"):
        knowledge_features(desk, chosen, frozenset())


def _rows(random, count: int, judged: bool, columns: int = 12) -> Rows:
    rare = np.arange(count) % 2 == 0
    features = random.normal(size=(count, columns)).astype(np.float32)
    features[:, 0] += np.where(rare, 0.7, -0.7)
    groups = [f"{'case' if judged else 'known'}-{index // 2}" for index in range(count)]
    return Rows(features, rare, rare.astype(float), groups, np.full(count, judged))


def _stack(first: Rows, second: Rows) -> Rows:
    return Rows(
        np.vstack([first.features, second.features]),
        np.concatenate([first.rare, second.rare]),
        np.concatenate([first.target, second.target]),
        [*first.groups, *second.groups],
        np.concatenate([first.judged, second.judged]),
    )


def test_head_agrees_with_scikit_learn_where_targets_are_labels() -> None:
    from sklearn.linear_model import LogisticRegression

    from rarealert.student.head import _fit

    rows = _rows(np.random.default_rng(1), 200, judged=True)
    ours = _fit(rows.features, rows.target, np.ones(200), (1e-2, 1e-1))[1]
    theirs = LogisticRegression(C=1e-1, tol=1e-8, max_iter=1000).fit(rows.features, rows.rare)
    assert np.allclose(ours, [*theirs.coef_[0], theirs.intercept_[0]], atol=2e-3)


def test_knowledge_of_other_diseases_helps_a_head_with_few_cases() -> None:
    import torch
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(2)
    few, known, unseen = (
        _rows(random, 24, True),
        _rows(random, 800, False),
        _rows(random, 400, True),
    )

    def auroc(rows: Rows, weight: float) -> float:
        head = fit_head(rows, 0.5, weight)
        with torch.no_grad():
            return float(roc_auc_score(unseen.rare, head(torch.from_numpy(unseen.features))))

    both = _stack(few, known)
    assert auroc(both, 1.0) > auroc(few, 1.0) + 0.02
    assert abs(auroc(both, 0.0) - auroc(few, 1.0)) < 0.02  # weight 0 leaves only the cases
