"""MedR-Bench: case reports in sections, rare where the publisher matched an Orphanet name.

Qiu et al. 2025, Nature Communications; https://github.com/MAGIC-AI4Med/MedRBench. A case is
made of the sections before the first ancillary test; differential, diagnosis and body category are
not read.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from rarealert.errors import BadInputError
from rarealert.knowledge.names import normalise_name
from rarealert.knowledge.orphanet import LINEARISATION, Disorder, load_names
from rarealert.sources.labelling import without_diagnosis
from rarealert.sources.published_files import Tick, no_tick, parse_json, read_text
from rarealert.visits.case import LabelledCase
from rarealert.visits.demographics import parse_age, parse_sex
from rarealert.visits.diagnosis import core_name, disease_key
from rarealert.visits.refused import Place, Refused, build_case, build_labelled

FIELDS = {
    "patient information": "patient_information",
    "chief complaint": "chief_complaint",
    "history of present illness": "history_of_present_illness",
    "past medical history": "past_medical_history",
    "personal history": "social_history",
    "social history": "social_history",
    "family history": "family_history",
    "physical examination": "physical_examination",
    "vital signs": "vitals",
    "vitals": "vitals",
}
_HEADING = re.compile(
    r"^(?P<indent>\s*)(?:(?P<bullet>[-*•#]+)\s+|\d+\.\s+)?\**\s*"
    r"(?P<name>[A-Z][^:*\n]{1,60}?)\s*\**\s*(?::|\*\*\s*$)\s*\**\s*(?P<rest>.*)$"
)
_AFTER_THE_VISIT = re.compile(
    r"\b(?:ancillary|auxiliary|paraclinical|investigations?|laborator(?:y|ies)|labs?|blood ?(?:work"
    r"|tests?)|urinalysis|imaging|radiolog\w*|radiograph\w*|x-?rays?|ct|cect|mri|mra|pet|pet-ct|"
    r"ultrasound|ultrasonograph\w*|sonograph\w*|echocardiogra\w*|ecg|ekg|eeg|emg|endoscop\w*|"
    r"colonoscop\w*|gastroscop\w*|bronchoscop\w*|laparoscop\w*|biops\w*|histolog\w*|"
    r"histopatholog\w*|patholog\w*|immunohistochemi\w*|cytolog\w*|fnac?|genetic\w*|sequencing|"
    r"diagnos\w*|differential|treatment|management|intervention|surger\w*|operati\w*|"
    r"intraoperative|postoperative|post-surgery|outcomes?|follow-?ups?|tests?)\b",
    re.I,
)
_NOTHING = re.compile(
    r"(?:if none, write \W*)?(?:none|not|n/?a|no (?:details?|information|data))"
    r"(?: (?:explicitly|specifically|otherwise|further))?"
    r"(?: (?:is |was |were )?(?:reported|provided|mentioned|stated|documented|specified|noted|"
    r"available|detailed|given|described|recorded|applicable|disclosed|known))?"
    r"(?: in the (?:case |provided )?(?:report|summary|text))?",
    re.I,
)
_MARKUP = re.compile(r"\*\*|__|^\s*[-*•]\s+", re.M)


def visit_sections(summary: str) -> dict[str, str]:
    """Split a case summary into text by field of the case, plus ``patient_information``.

    Reading ends at the first top-level heading of anything after the first visit (``Ancillary
    Tests`` and the like); below a nested heading of a test, only its own lines are left out. The
    lines of an unknown heading belong to the section around it. Sections without information are
    left out.
    """
    kept: dict[str, list[str]] = {}
    field = ""
    skipped_depth: int | None = None
    for line in summary.splitlines():
        match = _HEADING.match(line)
        depth = len(line) - len(line.lstrip())
        if skipped_depth is not None and (not line.strip() or depth > skipped_depth):
            continue
        skipped_depth = None
        name = match.group("name").strip().lower() if match else ""
        if match and name not in FIELDS and _AFTER_THE_VISIT.search(name):
            if depth == 0 and match.group("bullet") != "•":
                break
            skipped_depth = depth
            continue
        known = _field_of(name) if match and depth == 0 else None
        field = known or field
        text = match.group("rest") if match and known else line
        kept.setdefault(field, []).append(text)
    sections = {name: "\n".join(lines) for name, lines in kept.items() if name}
    plain = {name: " ".join(_MARKUP.sub("", text).split()) for name, text in sections.items()}
    return {name: text for name, text in plain.items() if not is_uninformative(text)}


def _field_of(heading: str) -> str | None:
    """The field of a heading such as "Physical Examination at Admission"."""
    return next((field for name, field in FIELDS.items() if heading.startswith(name)), None)


def is_uninformative(text: str) -> bool:
    """Whether a section contains only a phrase for "nothing reported".

    A language model wrote the summaries, instructed to write "None." where a report has nothing;
    some of them contain the instruction itself. So a bare "None" may mean healthy or not mentioned
    and counts as absent. "Unremarkable", "None significant" or "No previous illness" are findings.
    """
    return _NOTHING.fullmatch(text.strip(" .;,-\"'*")) is not None


FILE = "diagnosis_957_cases_with_rare_disease_491.json.gz"
_SEVERAL = re.compile(
    r"\bcase series\b|\bcases?\s*[12]\b|\bpatients?\s*\(?[12]\b|^\W*(?:\w+ )?twins\b|"
    r"\b(?:two|three|four|five|six|seven|eight|nine|ten|\d+)\s+(?:[\w-]+\s+){0,2}"
    r"(?:patients|cases|siblings|sheep)\b|\(P1, P2",
    re.I,
)
_NUMBERED_PATIENT = re.compile(r"^\s*[-*•]\s*\**\s*(?:case|patient|P)\s?\d\b", re.I | re.M)
_ANIMAL = re.compile(
    r"\b(?:neutered|spayed|castrated|intact (?:fe)?male|[\w-]*breed(?:ing)?|chihuahua|retriever|"
    r"terrier|shepherd dog|sea lion|sheep|ewes?|ram|mare|stallion|gelding|heifer|bovine|canine|"
    r"feline|puppy|kitten)\b",
    re.I,
)
_PERSON_ONLY = re.compile(
    r"(?:\b(?:an?|old|years?|months?|weeks?|days?|man|woman|male|female|boy|girl|child|infant|"
    r"patient|adult|newborn|neonate|age|aged|sex|gender)\b|\d+(?:\.\d+)?|[\W_])+",
    re.I,
)
_Names = Mapping[str, Disorder]


def read(folder: Path, tick: Tick = no_tick) -> Iterator[LabelledCase | Refused]:
    """Read every report of ``folder`` as a labelled case or refused, in the published order.

    The publisher gives rare diseases by Orphanet name, so Orphanet's tables must be in the folder
    ``orphanet`` beside ``folder``.

    Raises:
        BadInputError: a file is missing or damaged.
    """
    tables = folder.parent / "orphanet"
    if not (tables / LINEARISATION).is_file():
        raise BadInputError(
            f"{tables / LINEARISATION} is missing, and MedR-Bench gives rare diseases by Orphanet "
            "name; run rarealert data import orphanet PATH first."
        )
    path = folder / FILE
    reports = _reports(path)
    names = load_names(tables)
    groups = _groups(reports.values(), names)
    share = path.stat().st_size // len(reports)
    for number, (key, report) in enumerate(reports.items(), 1):
        tick(share)
        yield _labelled(Place("medrbench", FILE, number), key, report, names, groups)


def _reports(path: Path) -> Mapping[str, object]:
    """The published reports by id, in their order."""
    try:
        reports = parse_json(read_text(path))
    except ValueError as error:
        raise BadInputError(
            f"{path} is not valid JSON; copy it again from its publisher."
        ) from error
    if not isinstance(reports, dict) or not reports:
        raise BadInputError(
            f"{path} is not an object of reports by id; copy it again from its publisher."
        )
    return reports


def _candidates(report: object, names: _Names) -> list[Disorder]:
    """Orphanet disorders of a report's rare disease names, in their order."""
    checked = report.get("checked_rare_disease") if isinstance(report, dict) else None
    if not isinstance(checked, list):
        return []
    found = (names.get(normalise_name(name)) for name in checked if isinstance(name, str))
    return [disorder for disorder in found if disorder]


def _groups(reports: Iterable[object], names: _Names) -> Mapping[str, str]:
    """Map each code to one code for its group: codes that any report names together.

    The publisher lists a disease beside its subtypes, so two reports of one disease may share only
    one name, and a split must not separate them. Where groups merge, the code of the largest stays,
    of equal ones that of the first name: folds of published studies depend on it.
    """
    group: dict[str, str] = {}
    members: dict[str, list[str]] = {}
    for report in reports:
        codes = [disorder.orpha_code for disorder in _candidates(report, names)]
        for code in codes:
            members.setdefault(group.setdefault(code, code), [code])
        merged = list(dict.fromkeys(group[code] for code in codes))
        largest = max(merged, key=lambda code: len(members[code]), default="")
        for code in merged:
            if code != largest:
                members[largest] += members.pop(code)
        group.update(dict.fromkeys(members.get(largest, ()), largest))
    return group


def _labelled(
    place: Place, key: str, report: object, names: _Names, groups: Mapping[str, str]
) -> LabelledCase | Refused:
    generated = report.get("generate_case") if isinstance(report, dict) else None
    checked = report.get("checked_rare_disease") if isinstance(report, dict) else None
    if not isinstance(generated, dict) or not isinstance(checked, list):
        return place.refuse("generate_case", "no generate_case or checked_rare_disease")
    summary, diagnosis = generated.get("case_summary"), generated.get("diagnosis_results")
    if not isinstance(summary, str) or not summary.strip():
        return place.refuse("case_summary", "no text")
    if not isinstance(diagnosis, str) or not diagnosis.strip():
        return place.refuse("diagnosis_results", "no diagnosis")
    sections = visit_sections(summary)
    scope = _out_of_scope(summary, sections.get("patient_information", ""))
    if scope:
        return place.refuse("case_summary", scope, "out_of_scope")
    candidates = _candidates(report, names)
    if checked and not candidates:
        return place.refuse("checked_rare_disease", "no name that Orphanet's tables contain")
    case = build_case(place, _fields(key, sections))
    labelled = build_labelled(place, case, _label(diagnosis, candidates, groups))
    listed = (disorder.name for disorder in candidates)
    return without_diagnosis(place, labelled, diagnosis, *listed, field="case_summary")


def _out_of_scope(summary: str, patient: str) -> str | None:
    if _SEVERAL.search(patient) or _NUMBERED_PATIENT.search(summary):
        return "several patients in one report"
    return "the patient is an animal" if _ANIMAL.search(patient) else None


def _fields(key: str, sections: Mapping[str, str]) -> dict[str, object]:
    fields: dict[str, object] = dict(sections)
    patient = str(fields.pop("patient_information", ""))
    if patient and not _PERSON_ONLY.fullmatch(patient):
        # origin, occupation or known illness, which no other section repeats
        history = fields.get("history_of_present_illness")
        fields["history_of_present_illness"] = f"{patient} {history}" if history else patient
    return {
        **fields,
        "case_id": key,
        "source": "medrbench",
        "age_years": parse_age(patient),
        "sex": parse_sex(patient),
    }


def _label(
    diagnosis: str, candidates: list[Disorder], groups: Mapping[str, str]
) -> dict[str, object]:
    if not candidates:
        return {
            "label": "nonrare",
            "disease_id": disease_key(diagnosis),
            "disease_name": core_name(diagnosis),
            "reason": "the publisher found no Orphanet disease in the diagnosis",
        }
    disorder = _closest(diagnosis, candidates)
    return {
        "label": "rare",
        "disease_id": groups[disorder.orpha_code],
        "disease_name": disorder.name,
        "orpha_code": disorder.orpha_code,
        "orphanet_head": disorder.head,
        "reason": "the publisher found an Orphanet disease in the diagnosis",
    }


def _closest(diagnosis: str, candidates: list[Disorder]) -> Disorder:
    """The candidate with the largest share of its words in the diagnosis.

    Of equal shares the longer name wins, then the earlier.
    """
    stated = set(normalise_name(diagnosis).split())

    def agreement(disorder: Disorder) -> tuple[float, int]:
        words = set(normalise_name(disorder.name).split())
        return len(words & stated) / max(len(words), 1), len(words & stated)

    return max(candidates, key=agreement)
