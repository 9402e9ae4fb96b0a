"""Examples from disease profiles: none of a held-out disease, balanced, and reproducible."""

from collections import Counter

import pytest

from rarealert.errors import BadInputError
from rarealert.params import SimulatedParams
from rarealert.simulation.corpus import SOURCE, allowed_world, keys_of, knowledge_cases, simulate
from rarealert.simulation.world import load_world
from rarealert.splits.leakage import disease_keys, near_duplicates, tied_groups
from rarealert.splits.parts import PARTS, Shares, assign
from rarealert.visits.reading import render


def tied(cases: list) -> list[list[int]]:
    return tied_groups(cases, near_duplicates([render(item.case) for item in cases], 0.7, 64, 1))


@pytest.fixture(scope="module")
def held_out() -> list:
    """Validation and test part of a small simulated corpus, split as the stage splits it."""
    cases = list(simulate(SimulatedParams(seed=3, rare_cases=150, nonrare_cases=150)))
    groups = tied(cases)
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
    for group in tied(both):
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
