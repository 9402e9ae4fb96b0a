"""Knowledge as examples: visits made of profiles whose diseases no judged part holds.

A profile says which findings a disease has and how often, not who came to the clinic. Written as
visits by the sampler and the renderer of the simulated corpus, in the same format as every case,
profiles teach which findings point to rare diseases far beyond the diseases of the training cases.
"""

import hashlib
import itertools
import random
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import lru_cache
from typing import Literal

from rarealert.cases.case import LabelledCase
from rarealert.cases.simulate import GENERATOR_VERSION, draw
from rarealert.cases.simulate_world import Disease, World, load_world
from rarealert.errors import BadInputError
from rarealert.knowledge.names import normalise_name
from rarealert.knowledge.profiles import DiseaseProfile

SOURCE = "knowledge"
"""The source of every example made here; no case that is judged has it."""


def knowledge_cases(count: int, barred: AbstractSet[str], seed: int) -> Iterator[LabelledCase]:
    """``count`` visits, rare and non-rare in turn, of diseases without a key in ``barred``.

    Keys are those of ``disease_keys``. A barred disease is neither drawn nor does it lend a
    finding. Common conditions take turns, each as often as any other, and lend the patient's age
    and sex to the rare visit beside: there are few of them, and prevalence would show a handful
    again and again. The first ``n`` of a larger ``count`` are those of ``n``.

    Raises:
        BadInputError: every common condition or every rare disease is barred.
    """
    world = allowed_world(frozenset(barred))
    order = list(world.conditions)
    random.Random(seed).shuffle(order)  # noqa: S311 - not a secret
    for index in range(count):
        label: Literal["rare", "nonrare"] = "nonrare" if index % 2 else "rare"
        turn = f"{SOURCE}/{GENERATOR_VERSION}/{seed}/{index}"
        key = hashlib.sha256(turn.encode()).digest()
        item = draw(key, world, order[index // 2 % len(order)], label)
        case = item.case.model_copy(
            update={"case_id": f"{SOURCE}-{key.hex()[:16]}", "source": SOURCE}
        )
        yield LabelledCase(case=case, label=item.label)


@lru_cache(maxsize=2)
def allowed_world(barred: frozenset[str]) -> World:
    """The world without the diseases that have a key in ``barred``.

    Raises:
        BadInputError: nothing is left to draw from.
    """
    world = load_world()
    steps = [last - before for before, last in itertools.pairwise((0.0, *world.rare_weights))]
    rare = [
        (disease, weight)
        for disease, weight in zip(world.rare, steps, strict=True)
        if not keys_of(disease.profile) & barred
    ]
    conditions = [
        (condition, weight)
        for condition, weight in zip(world.conditions, world.condition_weights, strict=True)
        if not keys_of(condition.profile) & barred
    ]
    if not rare or not conditions:
        raise BadInputError(
            "validation and test part hold every disease that knowledge could be drawn from; set "
            "distil.knowledge_cases to 0 in params.yaml."
        )
    diseases: dict[str, Disease] = {disease.profile.disease_id: disease for disease, _ in rare}
    return replace(
        world,
        conditions=tuple(condition for condition, _ in conditions),
        condition_weights=tuple(weight for _, weight in conditions),
        rare=tuple(diseases.values()),
        rare_weights=tuple(itertools.accumulate(weight for _, weight in rare)),
        rare_by_id=diseases,
    )


def keys_of(profile: DiseaseProfile) -> frozenset[str]:
    """Every key of ``disease_keys`` under which a case could hold the disease of ``profile``."""
    return frozenset((profile.disease_id, f"NAME:{normalise_name(profile.name)}"))
